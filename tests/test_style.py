"""The house rules that a machine can see, over the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nas_apps"
MODULES = sorted(PACKAGE.rglob("*.py"))
SETTINGS = {"self", "phase", "task"}  # what has a `.data` of our own; anything else with one is a tensor
MODEL = re.compile("model|network|objective|learner|module")
CALLS = {"eval", "exec", "print", "np.random.seed", "numpy.random.seed", "sys.path.insert", "sys.path.append"}


def calls(node: ast.AST) -> str:
    """The name of what a node calls."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def copies_a_model(node: ast.AST) -> bool:
    return calls(node).endswith("deepcopy") and bool(MODEL.search(ast.unparse(node.args[0])))  # type: ignore[attr-defined]


def loads_code(node: ast.AST) -> bool:
    return calls(node) == "torch.load" and "weights_only=True" not in ast.unparse(node)


def touches_data(node: ast.AST) -> bool:
    """`.data` of anything but our own settings, and any method in place on a `.data`."""
    match node:
        case ast.Attribute(attr="data", value=owner):
            return ast.unparse(owner).split(".")[-1] not in SETTINGS
        case ast.Attribute(attr=method, value=ast.Attribute(attr="data")):
            return re.fullmatch(r"[a-z]\w*_", method) is not None
    return False


def imports(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Import(names=names):
            return name in {alias.name for alias in names}
        case ast.ImportFrom(module=module, names=names):
            return name == module or name in {alias.name for alias in names}
    return False


SYNTAX: dict[str, Callable[[ast.AST], bool]] = {
    "a call that is not ours to make": lambda node: calls(node) in CALLS,
    ".cuda(": lambda node: calls(node).endswith(".cuda"),
    "deepcopy of a model": copies_a_model,
    "torch.load without weights_only=True": loads_code,
    ".data of a tensor": touches_data,
    "global": lambda node: isinstance(node, ast.Global),
    "except without a kind": lambda node: isinstance(node, ast.ExceptHandler) and node.type is None,
    "import *": lambda node: imports(node, "*"),
    "argparse": lambda node: imports(node, "argparse"),
}
TEXT = {
    "a path of one machine": r"[\"' ]/(work|home|root|tmp|mnt|opt|scratch|Users|data)/",
    "a host of packages": r"py"
    r"pi\.|python"
    r"hosted|anaconda\.|download\.pytorch\.org|index-url|huggingface|mirrors?\.\w",
}


def found(path: Path) -> Iterator[tuple[int, str]]:
    """(line, what) of each thing in a module that the house rules forbid."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        yield from ((node.lineno, what) for what, is_so in SYNTAX.items() if is_so(node))  # type: ignore[attr-defined]
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef) and "torch.device(" in ast.unparse(statement):
            yield statement.lineno, "a device of the whole module"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        yield from ((number, what) for what, pattern in TEXT.items() if re.search(pattern, line))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_forbidden_is_in_a_module(path: Path) -> None:
    assert [f"{path.name}:{line}: {what}" for line, what in found(path)] == []


@pytest.mark.parametrize(
    "bad",
    ["eval('1')", "exec('1')", "print(1)", "model.cuda()", "import argparse", "from argparse import ArgumentParser",
     "from os import *", "def f():\n    global x", "copy.deepcopy(self.model)", "deepcopy(network)", "p.data.add_(1)",
     "p.data = q", "self.weight.data *= 2", "w = p.data", "for p in model.parameters(): p.data[0] = 1",
     "self.data.mul_(2)", "np.random.seed(0)", "torch.load(f)", "torch.load(f, weights_only=False)",
     "DEVICE = torch.device('cuda')", "ROOT = '/home/me/data'", "x = 'https://py" "pi.org/simple'",
     "try:\n    f()\nexcept:\n    g()"],
)  # fmt: skip
def test_the_rules_see_what_they_are_for(bad: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(bad)
    assert list(found(tmp_path / "bad.py"))


def test_modules_and_functions_are_short() -> None:
    long = [f"{path}: {len(lines)} lines" for path in MODULES if len(lines := path.read_text().splitlines()) > 250]
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > 40:
                long.append(f"{path}:{node.lineno}: {node.name} has {lines} lines")
    assert long == []


def test_no_module_is_named_for_what_it_is_not() -> None:
    assert {path.stem for path in MODULES}.isdisjoint({"utils", "util", "helpers", "common", "base", "misc"})


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("timm", "torchvision", "omegaconf", "tensorboard", "sklearn", "gymnasium", "torchrl", "espnet2")
    code = f"import sys, nas_apps; print(sorted(sys.modules.keys() & set({heavy})))"
    cores = "import nas_apps.core.runs, nas_apps.cli"
    domains = f"print(sorted(sys.modules.keys() & set({heavy}) - {{'omegaconf'}}))"
    command = [sys.executable, "-c", f"{code}; {cores}; {domains}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
