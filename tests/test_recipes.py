"""Every recipe and every YAML that is shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas_apps.core.config import load
from nas_apps.core.errors import UserError
from nas_apps.core.variants import VARIANTS

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.sh") if path.name != "run_stages.sh")
OFF_POLICY = {"rome_v1", "rome_v2", "msg_das", "p_darts", "rapdarts"}
CONFS = sorted((ROOT / "recipes" / "conf").glob("*/*/base.yaml"))


def sh(recipe: str, *args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["sh", str(ROOT / "recipes" / recipe), *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=900)


def refused(recipe: str, variant: str) -> str | None:
    """Why a recipe refuses a method, if it does."""
    if variant.startswith("rome") and recipe.startswith("nasbench"):
        return r"^variant.edges: 2 edges a node are drawn, and .*; allowed"
    if recipe == "ppo" and variant in OFF_POLICY:
        return r"an agent that learns on-policy .*; allowed here"
    if recipe == "div2k" and VARIANTS[variant].edges is not None:
        return r"^variant.edges: this space has no edges; allowed here: null$"
    if recipe == "div2k" and VARIANTS[variant].distill is not None:
        return r"^variant.distill: compares the odds of classes, .*; allowed here: null$"
    return None


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("base", CONFS, ids=[path.parent.name for path in CONFS])
def test_every_configuration_builds_for_every_method(base: Path, variant: str) -> None:
    brought = [path for path in (base.with_name(f"{variant}.yaml"),) if path.exists()]
    for sizes in ("embedded", "smoke"):
        small = [path for path in (base.with_name(f"{sizes}.yaml"),) if path.exists()]
        for sources in ([base, *brought], [base, *brought, *small]):
            if reason := refused(base.parent.name, variant):
                with pytest.raises(UserError, match=reason):
                    load(sources, [f"variant={variant}"])
                continue
            recipe = load(sources, [f"variant={variant}"])
            assert recipe.variant_name == variant
            assert recipe.task.choices(edges=1)


def test_every_yaml_is_of_a_recipe_or_a_method() -> None:
    names = {path.stem for path in (ROOT / "recipes" / "conf").glob("*/*/*.yaml")}
    assert names <= {"base", "embedded", "smoke", "impala", "conformer", *VARIANTS}


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--varient", "darts"), "no option '--varient'; allowed"),
        (("--seed",), "--seed needs a value"),
        (("--seed", "x"), "got 'x'; allowed: a number"),
    ],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_wrong_option_is_one_line_and_status_2(recipe: str, args: tuple[str, ...], line: str) -> None:
    done = sh(recipe, *args)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_is_asked_for_no_stage_ends_well(recipe: str, tmp_path: Path) -> None:
    done = sh(recipe, "--stage", "5", "--stop-stage", "4", "--run", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_quick_start_goes_through_every_stage_and_ends_with_its_summary(tmp_path: Path) -> None:
    tiny = [f"{phase}.{key}=1" for phase in ("search", "train") for key in ("epochs", "epoch_steps")]
    tiny += [f"{phase}.batch_size=8" for phase in ("search", "train")]
    tiny += ["task.train_images=64", "train.network.channels=4", "train.network.cells=3"]
    done = sh("quickstart.sh", "--smoke", "--variant", "gdas", "--run", "mine", *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == str(tmp_path / "mine" / "summary.json")
    summary = json.loads(Path(last).read_text())
    assert summary["variant"] == "gdas"
    assert set(summary["stages"]) == {"search", "train", "random_search", "random_train"}
    assert summary["stages"]["random_train"]["variant"] == "random"
    assert summary["command"].startswith("sh ")
    assert "normal: " in done.stdout
    assert "random_train" in done.stdout
    assert (tmp_path / "mine" / "report.html").exists()
    again = sh("quickstart.sh", "--smoke", "--variant", "gdas", "--run", "mine", *tiny, "train.epochs=2", cwd=tmp_path)
    assert again.returncode == 2
    assert "train.epochs is 1 there and 2 here" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_smoke_run_of_every_recipe_ends_well(recipe: str, tmp_path: Path) -> None:
    done = sh(recipe, "--smoke", "--run", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(Path(done.stdout.splitlines()[-1]).read_text())["metrics"]
    goal = {"rl_": "return", "asr": "cer", "sr_": "psnr_c"}.get(recipe[:3], "accuracy")
    assert metrics[goal] > 0


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--algorithm", "dqn"), "--algorithm: got 'dqn'; allowed: ppo, rainbow"),
        (("--data", "somewhere"), "no --data and no --transfer-data"),
        (("--transfer-game", "bigfsh", "--stop-stage", "0"), "task.game: got 'bigfsh'"),
    ],
)
def test_mistakes_in_options_of_a_recipe_of_its_own_are_told_before_anything_runs(
    args: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    pytest.importorskip("torchrl")
    done = sh("rl_procgen.sh", "--run", "mine", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert line in done.stderr.splitlines()[-1]
    assert not (tmp_path / "mine" / "search").exists()
