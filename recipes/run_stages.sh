# The stages of every recipe, sourced with these set: recipe (its file), task, dataset, variant, extras. A recipe may
# also set: reference, a cell made by hand that is trained beside the found one, with as many parameters; options, the
# names of options of its own, whose values are then in variables; a function `chosen` that is called when all options
# are read (`override key=value` sets what the user did not, `transfer_set key=value` is for stage 5 alone); a function
# `small` that says whether some --data has the sizes of the embedded corpus; and a function `final_training` that does
# what `nas-apps train` does. With `inherit`, the found network is measured with the weights that the search ends with, and
# then trained on from these.
#
#   --stage N, --stop-stage N   start and end with stage N: 0 data, 1 search, 2 derive, 3 retrain, 4 evaluate, 5 transfer
#   --variant NAME              the method (nas-apps show lists them on a wrong name)
#   --data PATH                 the corpus; an embedded one without it
#   --genotype FILE|NAME        skip the search and use this cell
#   --table FILE                a table of accuracies to look the found cell up in
#   --transfer-data PATH        a larger corpus to train the found cell on (stage 5)
#   --seed N, --device NAME, --nproc N (processes, by torchrun), --run FOLDER
#   --no-baseline               no random cell, and none made by hand, beside the found one
#   --along N                   also train the cells derived at N moments along the search
#   --smoke                     the smallest sizes: every stage in minutes on two cores
#   key=value ...               over the recipe's YAML (not in stage 5, which has a YAML of its own)
set -eu
quoted() { printf "'%s' " "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }
command="sh $recipe"
for argument in "$@"; do
  case $argument in *[!A-Za-z0-9_./=-]*) command="$command $(quoted "$argument")" ;; *) command="$command $argument" ;; esac
done
here=$PWD
cd "$(dirname "$recipe")/.."
stage=0 stop_stage=5 beside= data= genotype= table= transfer= seed=0 device=auto nproc=1 run= smoke= overrides=
along=0 transfer_overrides= label=
baseline=${baseline-random} reference=${reference-} inherit=${inherit-}
override() { overrides="$(quoted "$1")$overrides"; }
transfer_set() { transfer_overrides="$transfer_overrides$(quoted "$1")"; }
for name in ${options-}; do eval "$name="; done
command -v small >/dev/null || small() { false; }
no_option() {
  own=$(echo "${options-}" | sed 's/[a-z_]\{1,\}/--&,/g; s/_/-/g')
  echo "$recipe: no option '$1'; allowed: ${own:+$own }the list at the head of recipes/run_stages.sh, and key=value" >&2
  exit 2
}
need() { [ $# -gt 1 ] || { echo "$recipe: $1 needs a value" >&2; exit 2; }; }
path() { case $1 in /* | digits) echo "$1" ;; *) echo "$here/$1" ;; esac; }
while [ $# -gt 0 ]; do
  case $1 in
    --stage) need "$@"; stage=$2; shift ;;
    --stop-stage) need "$@"; stop_stage=$2; shift ;;
    --variant) need "$@"; variant=$2; shift ;;
    --data) need "$@"; data=$(path "$2"); shift ;;
    --genotype) need "$@"; genotype=$2; [ ! -e "$here/$2" ] || genotype=$(path "$2"); shift ;;
    --table) need "$@"; table=$(path "$2"); shift ;;
    --transfer-data) need "$@"; transfer=$(path "$2"); shift ;;
    --seed) need "$@"; seed=$2; shift ;;
    --device) need "$@"; device=$2; shift ;;
    --nproc) need "$@"; nproc=$2; shift ;;
    --run) need "$@"; run=$(path "$2"); shift ;;
    --no-baseline) baseline= reference= ;;
    --along) need "$@"; along=$2; shift ;;
    --smoke) smoke=1 ;;
    --[a-z]*)
      name=$(echo "${1#--}" | tr - _)
      case " ${options-} " in
        *" $name "*) need "$@"; eval "$name=\$2"; shift ;;
        *) no_option "$1" ;;
      esac ;;
    *=*) overrides="$overrides$(quoted "$1")" ;;
    *) no_option "$1" ;;
  esac
  shift
done
for number in "$stage" "$stop_stage" "$seed" "$nproc" "$along"; do
  case $number in '' | *[!0-9]*) echo "$recipe: got '$number'; allowed: a number" >&2; exit 2 ;; esac
done
[ -z "$table" ] || [ -e "$table" ] || { echo "$recipe: --table $table: no such file" >&2; exit 2; }
! command -v chosen >/dev/null || chosen
. scripts/env.sh

name=$(basename "$recipe" .sh)
run=${run:-runs/${name}${label}_${variant}_seed$seed${smoke:+_smoke}}
conf=recipes/conf/$task/$dataset
mkdir -p "$run"
[ -z "$smoke" ] || export OMP_NUM_THREADS=1 # small tensors: a second thread only waits
export NAS_APPS_COMMAND="$command"

launch() {
  if [ "$1" = train ] && command -v final_training >/dev/null; then
    shift
    final_training "$@"
  elif [ "$nproc" -gt 1 ]; then
    torchrun --standalone --nproc-per-node "$nproc" -m -- nas_apps "$@"
  else
    nas-apps "$@"
  fi
}
# call VERB METHOD [the verb's own options]: with the configuration of a method, that is the base, what the method
# brings, the sizes for small data, what a smoke run shrinks, what the user says; each over the one before.
call() {
  verb=$1 method=$2
  shift 2
  eval "set -- $overrides"'"$@"'
  [ -z "$data" ] || set -- "task.data=$data" "$@"
  set -- "variant=$method" "seed=$seed" "device=$device" "$@"
  [ -z "$smoke" ] || set -- "$conf/smoke.yaml" "$@"
  if [ -e "$conf/embedded.yaml" ] && { [ -z "$data" ] || small "$data"; }; then set -- "$conf/embedded.yaml" "$@"; fi
  [ ! -e "$conf/$method.yaml" ] || set -- "$conf/$method.yaml" "$@"
  if [ "$verb" = show ]; then nas-apps show "$conf/base.yaml" "$@"; else launch "$verb" "$conf/base.yaml" "$@"; fi
}
retrain() { # genotype, folder, options: the same configuration for the found cell and the one it is compared with
  cell=$1 folder=$2
  shift 2
  call train "$variant" "$@" --genotype "$cell" --run "$run/$folder" --resume >/dev/null
}
along_the_way() { # the cells of --along moments, evenly spaced, the last of them the end
  set -- "$run"/search/genotypes/epoch_*.json
  [ -e "$1" ] || { echo "$recipe: --along: no cells of a search in $run/search" >&2; exit 2; }
  count=$# at=1
  while [ "$at" -le "$along" ]; do
    eval "file=\${$(((count * at + along - 1) / along))}"
    moment=$(basename "$file" .json)
    say 3 "train the cell of $moment"
    retrain "$file" "${moment}_train"
    at=$((at + 1))
  done
}
stage_is() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
say() { echo "[$name] stage $1: $2" >&2; }

if stage_is 0 || [ "$nproc" -gt 1 ]; then # a mistake is found before any process group is
  say 0 data
  shown=$(call show "$variant")
  echo "$shown" | grep '^#' >&2
  [ -z "$transfer_overrides" ] || (overrides="$overrides$transfer_overrides" && call show "$variant" >/dev/null)
fi
if stage_is 1; then
  say 1 "search ($variant)"
  [ -n "$genotype" ] || call search "$variant" --run "$run/search" --resume >/dev/null
  [ -z "$baseline" ] || call search "$baseline" --run "$run/${baseline}_search" --resume >/dev/null
fi
if stage_is 2; then
  say 2 derive
  [ -n "$genotype" ] || nas-apps derive "$run/search" --out "$run/genotype.json" >&2
fi
if stage_is 3; then
  if [ -n "$baseline" ] && [ "$nproc" = 1 ] && [ "${OMP_NUM_THREADS:-}" = 1 ] &&
    [ "$(getconf _NPROCESSORS_ONLN)" -gt 1 ]; then
    say 3 "train a $baseline cell of the same space, as long, on another core ($run/${baseline}_train.log)"
    retrain "$run/${baseline}_search/genotype.json" "${baseline}_train" 2>"$run/${baseline}_train.log" &
    beside=$!
    trap 'pkill -P "$beside" 2>/dev/null || :; kill "$beside" 2>/dev/null || :' EXIT # what runs beside ends with this script
    trap 'exit 130' INT TERM
  fi
  if [ -n "$inherit" ] && [ -z "$genotype" ]; then
    say 3 "the found network as the search leaves it"
    retrain "$run/genotype.json" derived --inherit "$run/search" train.epochs=0
    say 3 "train it on"
    retrain "$run/genotype.json" train --inherit "$run/search"
  else
    say 3 "retrain the found cell"
    retrain "${genotype:-$run/genotype.json}" train
  fi
  if [ -n "$beside" ]; then
    wait "$beside" || { status=$?; tail -n 1 "$run/${baseline}_train.log" >&2; exit "$status"; }
    trap - EXIT INT TERM
  elif [ -n "$baseline" ]; then
    say 3 "train a $baseline cell of the same space, as long"
    retrain "$run/${baseline}_search/genotype.json" "${baseline}_train"
  fi
  if [ -n "$reference" ]; then
    say 3 "train the cell made by hand ($reference) with as many parameters, as long"
    call train "$variant" "$conf/$reference.yaml" --genotype "$reference" --like "$run/train" --run "$run/${reference}_train" \
      --resume >/dev/null
  fi
  [ "$along" = 0 ] || along_the_way
fi
if stage_is 4; then
  say 4 evaluate
  [ ! -e "$run/derived" ] || nas-apps evaluate "$run/derived"
  nas-apps evaluate "$run/train"
  if [ -n "$table" ]; then
    nas-apps evaluate "$run/train" --table "$table"
    [ -z "$baseline" ] || nas-apps evaluate "$run/${baseline}_train" --table "$table"
  fi
fi
if stage_is 5 && [ -n "$transfer$transfer_overrides" ]; then
  say 5 "train the found cell on ${transfer:-$transfer_overrides}"
  [ -z "$transfer" ] || { conf=recipes/conf/$task/${transfer_dataset:-$dataset} data=$transfer overrides=; }
  overrides="$overrides$transfer_overrides"
  retrain "${genotype:-$run/genotype.json}" transfer ${inherit:+--inherit "$run/train"}
  nas-apps evaluate "$run/transfer"
fi
[ ! -e "$run/train/summary.json" ] || nas-apps report "$run"
