#!/bin/sh
# Search on CIFAR-10 and retrain at the size of the papers (C36, 20 cells, 600 epochs): --data takes a folder in the
# original layout (cifar-10-batches-py), CIFAR-100's too. Without --data it runs on scikit-learn's digits.
# --transfer-data takes an image folder (ImageNet) for the cell that was found.
recipe=$0 task=image dataset=cifar10 variant=pc_darts extras=image transfer_dataset=imagenet
. "$(dirname "$0")/run_stages.sh"
