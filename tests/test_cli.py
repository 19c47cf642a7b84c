"""The command line: what each verb takes and says, and the one line that each mistake gives."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
from omegaconf import OmegaConf

from nas_apps import cli
from nas_apps.core import checkpoint, config
from nas_apps.core.variants import PAPERS, VARIANTS

TINY = ("task=toy", "task.points=96", "search.epochs=4", "search.batch_size=16", "search.log_steps=1",
        "train.epochs=3", "train.batch_size=16", "train.log_steps=1")  # fmt: skip
PHOTOS = ("task=image", "task.train_images=64", "search.network.channels=4", "search.network.cells=3", "search.epochs=1",
          "search.batch_size=16", "search.epoch_steps=1")  # fmt: skip
IMAGE = pytest.mark.skipif(not config.find_spec("timm"), reason="needs nas-apps[image]") if hasattr(config, "find_spec") else ()
