#!/bin/sh
# Darts-Conformer on AISHELL-1 (after arXiv:2104.02868): search the encoder of a recogniser with ESPnet's own loss, retrain
# it and a Conformer of as many parameters with one script, and compare their character error rates. --data takes the
# corpus as published; without it, a small corpus of Mandarin is spoken here, which shows that all of it works and says
# nothing of the paper's figure. A folder of the Free Spoken Digit Dataset is real speech of that size. --transfer-data
# takes a larger corpus (AISHELL-2, WenetSpeech, Kaldi's folders).
#
#   --trainer ours|espnet       who does the final trainings, of the found cell and of the Conformer alike (docs/asr.md)
recipe=$0 task=asr dataset=aishell variant=darts extras=asr reference=conformer
options=trainer
small() { [ -n "$(find "$1" -maxdepth 1 -name '[0-9]_*_*.wav' 2>/dev/null | head -n 1)" ]; }
chosen() {
  { [ -n "$data" ] && ! small "$data"; } || export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # small tensors
  case $trainer in
    '' | ours) return 0 ;;
    espnet) label=_espnet ;;
    *) echo "$recipe: --trainer: got '$trainer'; allowed: ours, espnet" >&2; exit 2 ;;
  esac
  final_training() {
    [ "$nproc" = 1 ] || set -- --nproc "$nproc" "$@"
    [ -z "$data" ] || small "$data" || set -- --espnet recipes/conf/asr/espnet.yaml "$@"
    python -m nas_apps.tasks.asr.espnet retrain "$@"
  }
}
. "$(dirname "$0")/run_stages.sh"
