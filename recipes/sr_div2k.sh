#!/bin/sh
# Trilevel super-resolution (arXiv:2101.06658): depth, operations and widths are searched while the weights are trained,
# and what is left in the end is the network: it is measured as it is (folder `derived`), and then trained on (`train`).
# --data takes DIV2K, DF2K, Flickr2K or any folder of images, for a GPU; without it, a small network is searched on the
# photographs that scikit-image and scikit-learn ship.
#
#   --scale 2|3|4               how much larger images get
#   --tests FOLDER,FOLDER,...   images to measure on: Set5, Set14, BSD100, Urban100, any other
#   --transfer-scale 2|3|4      another scale to train the found network for (stage 5)
recipe=$0 task=sr dataset=div2k variant=trilevel extras=sr baseline= inherit=1
options="scale tests transfer_scale"
small() { [ -n "$embedded" ]; } # the found network is of a size, whatever it is trained on in the end
chosen() {
  embedded=$([ -n "$data" ] || echo 1) folders=
  [ -z "$scale" ] || override "task.scale=$scale"
  label=${scale:+_x$scale}
  while [ -n "$tests" ]; do
    folders="$folders${folders:+,}\"$(path "${tests%%,*}")\""
    case $tests in *,*) tests=${tests#*,} ;; *) tests= ;; esac
  done
  [ -z "$folders" ] || override "task.tests=[$folders]"
  [ -n "$transfer$transfer_scale" ] || return 0
  [ -z "${transfer_scale:-$scale}" ] || transfer_set "task.scale=${transfer_scale:-$scale}"
  [ -z "$folders" ] || transfer_set "task.tests=[$folders]"
}
. "$(dirname "$0")/run_stages.sh"
