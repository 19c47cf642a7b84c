"""What docs/methods.md says of the methods is so."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas_apps.core import refusals
from nas_apps.core.config import load
from nas_apps.core.errors import UserError
from nas_apps.core.variants import VARIANTS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "methods.md").read_text()
TABLE = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\) \| (.*) \|$", TEXT, re.MULTILINE)
REFUSED = [
    (overrides, " ".join(reason.split()))
    for overrides, reason in re.findall(r"^- `(variant=[^`]+)`: (\w(?:.|\n(?=  ))+)$", TEXT, re.MULTILINE)
]


def test_every_method_has_its_row_and_its_section_in_order() -> None:
    assert [(name, anchor) for name, anchor, _ in TABLE] == [(name, name) for name in VARIANTS]
    assert re.findall(r"^### `(\w+)`$", TEXT, re.MULTILINE) == list(VARIANTS)


def test_a_row_names_the_paper_and_the_yaml_of_its_method() -> None:
    for name, _, row in TABLE:
        paper, *_, settings = row.split(" | ")
        assert paper.startswith(f"arXiv:{VARIANTS[name].cite[0]}")
        there = sorted(path.parent.name for path in (ROOT / "recipes/conf").glob(f"*/*/{name}.yaml"))
        assert settings == (", ".join(there) or "-")


def _switches() -> Iterator[tuple[str, str]]:
    """The overrides named in the file, each with the method in whose section or row it stands."""
    section = "darts"
    for line in TEXT.splitlines():
        named = re.match(r"### `(\w+)`$|\| U\d+ \| `(\w+)`", line)
        section = (named[1] or named[2]) if named else "darts" if line.startswith("## ") else section
        for text in re.findall(r"`('?variant[.=][^`]+)`", line):
            yield section, text.replace("'", "")


@pytest.mark.parametrize(("variant", "text"), sorted({s for s in _switches() if s[1] not in dict(REFUSED)}))
def test_every_switch_it_names_is_accepted(variant: str, text: str) -> None:
    task = "task=image" if "task." in text else "task=toy"
    words = re.split(r" (?=[\w.]+=)", text)
    if "=" not in text:
        words = [f"{text}={_now(variant, text)}"]
    recipe = load([], [task, f"variant={variant}", *words])
    assert recipe.plain()["variant"].keys() == load([], [task]).plain()["variant"].keys()


def _now(variant: str, key: str) -> Any:
    """What a variant has there already, as an override says it; a KeyError where it has nothing."""
    value = load([], ["task=toy", f"variant={variant}"]).plain()
    for part in key.split("."):
        value = value[part]
    return str(value).replace("None", "null").replace("True", "true").replace("False", "false").replace("'", "")


@pytest.mark.parametrize(("overrides", "reason"), REFUSED, ids=[overrides for overrides, _ in REFUSED])
def test_every_combination_it_calls_refused_is_refused_with_that_reason(overrides: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        load([], [*([] if "task=" in overrides else ["task=toy"]), *overrides.split()])
    assert str(caught.value) in (f"variant.{reason}", reason)


def test_every_reason_there_is_for_a_refusal_is_told() -> None:
    nodes = list(ast.walk(ast.parse(inspect.getsource(refusals))))
    said = [node.values[-1] for node in nodes if isinstance(node, ast.BoolOp)]
    said += [node.args[0] for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "UserError"]
    patterns = [pattern for pattern in map(_pattern, said) if ": " in pattern.replace("\\", "")]
    assert len(patterns) == len(REFUSED)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, f"variant.{told}") or re.fullmatch(pattern, told) for _, told in REFUSED), (
            pattern
        )


def _pattern(node: ast.expr) -> str:
    """What a string looks like whatever is filled in; nothing for what is no string."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    if not all(isinstance(part, ast.FormattedValue | ast.Constant) for part in parts):
        return ""
    return "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in parts)
