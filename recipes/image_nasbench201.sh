#!/bin/sh
# Search in NAS-Bench-201 on CIFAR-10, look the cell up in the official table (--table: the archive of the authors, or a
# parquet or csv of it), and train it as the table's entries were. Without --data it runs on scikit-learn's digits.
recipe=$0 task=image dataset=nasbench201 variant=gdas extras=image
. "$(dirname "$0")/run_stages.sh"
