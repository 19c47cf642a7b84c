"""What the README says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas_apps.core.parts.relax import RELAXATIONS
from nas_apps.core.parts.relaxation import Relaxation
from nas_apps.core.progress import Progress, Ramp, value
from nas_apps.core.variants import VARIANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"(?:recipes|nas_apps|tests|docs|scripts)/[\w/.]+\w", README))
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists(), name


def test_its_table_of_methods_is_the_table_of_methods() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert rows == list(VARIANTS)


def test_its_reading_order_has_seven_files() -> None:
    section = README.split("## Dive into the code")[1].split("###")[0]
    assert len(re.findall(r"`[\w/]+\.(?:py|yaml)`", section)) == 7


def test_its_example_of_a_part_is_a_relaxation() -> None:
    from dataclasses import dataclass

    table: dict[str, type] = {}
    names = {"dataclass": dataclass, "Ramp": Ramp, "value": value, "Relaxation": Relaxation, "RELAXATIONS": table}
    code = compile(next(block for block in BLOCKS if "Sharpened" in block), "README.md", "exec", dont_inherit=True)
    exec(code, names)  # noqa: S102, our own text
    part = table["sharpened"]()
    weights = part(torch.randn(3, 4), Progress(1, 2), torch.Generator())
    assert torch.allclose(weights.sum(-1), torch.ones(3))
    assert "sharpened" not in RELAXATIONS


@pytest.mark.slow
def test_its_python_example_runs(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    subprocess.run([sys.executable, "-c", BLOCKS[0]], cwd=tmp_path, check=True, timeout=900)
