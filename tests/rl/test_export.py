import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas_apps.core.cell import Fixed
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.parts.derive import Random
from nas_apps.tasks.rl.export import load_encoder, load_policy, read, write
from nas_apps.tasks.rl.network import ActorCritic, DuelingC51, Network, build_encoder
from nas_apps.tasks.rl.spaces import space

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "rl.md").read_text(), re.DOTALL)
SIZE = (16, 16, 3)
SPACE, SETTINGS = space("micro", nodes=2, distinct=True), Network((4, 4), output="weighted_sum", features=8)


def watched() -> Tensor:
    return torch.randint(0, 256, (5, *SIZE), dtype=torch.uint8)


def genotype() -> Genotype:
    return Random()(SPACE.choices(), {}, torch.Generator().manual_seed(1))


def network(algorithm: str) -> ActorCritic | DuelingC51:
    encoder = build_encoder(Fixed(SPACE.choices(), genotype()), SPACE, SETTINGS, SIZE)
    return ActorCritic(encoder, 2) if algorithm == "ppo" else DuelingC51(encoder, 2, 7, 6)


def exported(folder: Path, algorithm: str = "ppo") -> ActorCritic | DuelingC51:
    made = network(algorithm)
    write(made, genotype(), SPACE, SETTINGS, folder, about={"game": "coinrun"})
    return made


@pytest.mark.parametrize("algorithm", ["ppo", "rainbow"])
def test_a_network_comes_back_as_it_was(algorithm: str, tmp_path: Path) -> None:
    made, x = exported(tmp_path, algorithm), watched()
    found = load_policy(tmp_path)
    assert type(found) is type(made)
    assert all(torch.equal(a, b) for a, b in zip(found(x), made(x), strict=True))
    assert torch.equal(load_encoder(tmp_path)(x), made.encoder(x))
    anew = load_encoder(tmp_path, pretrained=False)
    assert [*anew.state_dict()] == [*made.encoder.state_dict()]
    assert not torch.equal(anew(x), made.encoder(x))
    assert read(tmp_path).about == {"game": "coinrun"}


def test_no_library_of_reinforcement_learning_is_needed_and_missing_ones_are_named(tmp_path: Path) -> None:
    exported(tmp_path)
    code = f"""
import sys
hidden = {{"gym", "gymnasium", "procgen", "stable_baselines3", "tensordict", "torchrl"}}
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *args):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, *args)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
import torch
from nas_apps.core.errors import UserError
from nas_apps.tasks.rl.export import load_policy
from nas_apps.tasks.rl.torchrl_module import torchrl_module
print(load_policy({str(tmp_path)!r})(torch.zeros(1, *{SIZE}, dtype=torch.uint8))[0].shape)
print(hidden & set(sys.modules))
try: torchrl_module({str(tmp_path)!r})
except UserError as error: print(error)
try: import nas_apps.tasks.rl.sb3
except UserError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "torch.Size([1, 2])",
        "set()",
        "needs tensordict, which is not installed: pip install 'nas-apps[rl]'",
        "sb3: needs gymnasium, which is not installed: pip install stable-baselines3",
    ], done.stderr


def test_stable_baselines_sees_the_features_of_the_exported_encoder_unless_it_draws_weights_anew(
    tmp_path: Path,
) -> None:
    pytest.importorskip("stable_baselines3")
    import gymnasium
    from stable_baselines3.common.policies import ActorCriticCnnPolicy

    from nas_apps.tasks.rl.sb3 import policy_kwargs

    made, x = exported(tmp_path), watched()
    images = gymnasium.spaces.Box(0, 255, (3, 16, 16), "uint8")
    for ortho_init, pretrained, same in ((False, True, True), (True, True, False), (False, False, False)):
        given = policy_kwargs(tmp_path, pretrained=pretrained) | {"ortho_init": ortho_init}
        policy = ActorCriticCnnPolicy(images, gymnasium.spaces.Discrete(2), lambda progress: 1e-3, **given)
        assert torch.equal(policy.extract_features(x.permute(0, 3, 1, 2)), made.encoder(x)) == same
    assert policy_kwargs(tmp_path)["ortho_init"] is False


@pytest.mark.parametrize("shape", [(16, 16, 3), (3, 16, 17)], ids=str)
def test_stable_baselines_is_told_of_other_observations(shape: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    import gymnasium

    from nas_apps.tasks.rl.sb3 import CellExtractor

    exported(tmp_path)
    with pytest.raises(
        UserError, match=r"observation_space: got .*; allowed: Box\(0, 255, \(3, 16, 16\), uint8\), as "
    ):
        CellExtractor(gymnasium.spaces.Box(0, 255, shape, "uint8"), tmp_path)


def test_the_example_with_stable_baselines_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    made = exported(tmp_path / "runs" / "rl" / "train")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(next(b for b in BLOCKS if "stable_baselines3" in b), "docs/rl.md", "exec"), names)  # noqa: S102, our text
    agent = names["agent"]
    assert agent.num_timesteps == 32
    learnt = agent.policy.features_extractor.encoder.state_dict()
    assert learnt.keys() == made.encoder.state_dict().keys()
    assert not all(torch.equal(learnt[name], tensor) for name, tensor in made.encoder.state_dict().items())


@pytest.mark.filterwarnings("ignore:unclosed file .*procgen.version:ResourceWarning")  # procgen's, when it is imported
def test_the_example_with_torchrl_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchrl")
    made = exported(tmp_path / "runs" / "rl" / "train")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(next(b for b in BLOCKS if "torchrl" in b), "docs/rl.md", "exec"), names)  # noqa: S102, our text
    batch = names["batch"]
    logits, value = made(batch["observation"])
    assert torch.equal(batch["logits"], logits)
    assert torch.equal(batch["state_value"], value)
    assert batch["action"].shape == (4,)


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    def told(message: str) -> None:
        with pytest.raises(UserError) as error:
            load_policy(tmp_path)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    told("model.json: cannot read a trained network: No such file")
    exported(tmp_path)
    model, weights = tmp_path / "model.json", tmp_path / "model.safetensors"
    data, whole = json.loads(model.read_text()), weights.read_bytes()
    for wrong, message in {
        "{": "model.json: not JSON (",
        "[]": "model.json: not a network of this task",
        json.dumps(data | {"version": 2}): "model.json: version 2; this release reads version 1",
        json.dumps(data | {"size": [16, 16]}): "model.json.size: got [16, 16]; allowed: ",
        json.dumps(data | {"network": {"channels": [0]}}): "model.json.network.channels: got 0; allowed: 1 and more",
        json.dumps(data | {"kept": {}}): "genotype: of another space: ",
        json.dumps(data | {"actions": 3}): "model.safetensors: the weights of another network",
    }.items():
        model.write_text(wrong)
        told(message)
    model.write_text(json.dumps(data))
    weights.write_bytes(whole[:100])
    told("model.safetensors: cannot read the weights: ")
    weights.unlink()
    told("model.safetensors: cannot read the weights: ")
