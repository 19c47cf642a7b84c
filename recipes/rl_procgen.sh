#!/bin/sh
# RL-DARTS on Procgen (arXiv:2106.02229): search the encoder of an agent with its own loss, retrain it from scratch,
# compare it with IMPALA's residual block of equal size on levels seen and unseen. By default starpilot, easy, 200
# levels, 25 million steps: for a GPU. The games make their own data, so there is no --data.
#
#   --game NAME                 one of Procgen's 16 games, or a gymnasium id
#   --mode easy|hard            of Procgen's levels
#   --algorithm ppo|rainbow     the agent's
#   --transfer-game NAME, --transfer-mode easy|hard     another game or mode to train the found cell in (stage 5)
recipe=$0 task=rl variant=rl_darts extras=rl reference=impala
options="game mode algorithm transfer_game transfer_mode"
levels() { # the benchmark's, where the user does not say how many
  case "$1 $given" in
    *task.levels=*) ;;
    easy*) "$2" task.levels=200 ;;
    hard*) "$2" task.levels=500 ;;
  esac
}
chosen() {
  given=$overrides
  dataset=${algorithm:-ppo}
  [ "$dataset" = ppo ] || [ "$dataset" = rainbow ] ||
    { echo "$recipe: --algorithm: got '$dataset'; allowed: ppo, rainbow" >&2; exit 2; }
  [ -z "$data$transfer" ] || { echo "$recipe: no --data and no --transfer-data: the games make their own" >&2; exit 2; }
  [ -z "$game" ] || override "task.game=$game"
  [ -z "$mode" ] || override "task.mode=$mode"
  levels "$mode" override
  [ -z "$transfer_game" ] || transfer_set "task.game=$transfer_game"
  [ -z "$transfer_mode" ] || transfer_set "task.mode=$transfer_mode"
  levels "$transfer_mode" transfer_set
  label=_$(echo "${game:-starpilot}" | tr '/:' '__')${mode:+_$mode}_$dataset
}
. "$(dirname "$0")/run_stages.sh"
