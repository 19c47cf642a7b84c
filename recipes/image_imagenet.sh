#!/bin/sh
# Train a cell that was found on CIFAR-10 in the mobile setting on ImageNet (C48, 14 cells, 250 epochs): --genotype takes
# a file or a published name (pc_darts_cifar), --data any image folder. Without --data it runs on scikit-learn's digits.
recipe=$0 task=image dataset=imagenet variant=pc_darts extras=image baseline=
case " $* " in *" --genotype "*) ;; *) set -- --genotype pc_darts_cifar "$@" ;; esac
. "$(dirname "$0")/run_stages.sh"
