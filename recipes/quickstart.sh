#!/bin/sh
# The main job on real data that needs no download: search a cell on scikit-learn's digits, stack it, retrain it, compare
# it with a random cell, write the report. Some minutes on two cores.
recipe=$0 task=image dataset=digits variant=pc_darts extras=image
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # digits are small: a second thread only waits
. "$(dirname "$0")/run_stages.sh"
