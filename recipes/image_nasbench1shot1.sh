#!/bin/sh
# Search in a space of NAS-Bench-1Shot1 on CIFAR-10, look the cell up in NAS-Bench-101 (--table: the tfrecord of the
# authors), and train it about as the table's entries were. Without --data it runs on scikit-learn's digits.
recipe=$0 task=image dataset=nasbench1shot1 variant=darts extras=image
. "$(dirname "$0")/run_stages.sh"
