"""Environments by name: the real Procgen, gymnasium's, and what is refused."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from nas_apps.core.errors import UserError
from nas_apps.tasks.rl.envs import make_env
from nas_apps.tasks.rl.procgen_env import GAMES, ProcgenEnv, Setup
from nas_apps.tasks.rl.quiet import silence

PATTERN = "pattern_env:nas_apps/Pattern-v0"
LONG = "pattern_env:nas_apps/PatternLong-v0"
real = pytest.mark.skipif(not (find_spec("procgen") or find_spec("procgen_gym")), reason="procgen is not installed")


class Dot(gymnasium.Env):
    """A pixel that is lit at a random place; an episode has three steps, and pays what was done."""

    observation_space: Any = Box(0, 255, (6, 5, 1), np.uint8)
    action_space: Any = Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 3
        return self._shown(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return self._shown(), float(action), self.left == 0, False, {}

    def _shown(self) -> np.ndarray:
        image = np.full((6, 5, 1), self.left, np.uint8)
        image[self.np_random.integers(6), self.np_random.integers(5)] = 255
        return image


class Floats(Dot):
    observation_space = Box(0, 1, (6, 5, 1), np.float32)


class Flat(Dot):
    observation_space = Box(0, 255, (6, 5), np.uint8)


class Steers(Dot):
    action_space = Box(-1, 1, (2,), np.float32)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    made = [("test/Dot-v0", Dot), ("test/Floats-v0", Floats), ("test/Flat-v0", Flat), ("test/Steers-v0", Steers)]
    for name, env in made:
        gymnasium.register(name, env, disable_env_checker=True)
    yield
    for name, _ in made:
        del gymnasium.registry[name]


def trace(env: Any, steps: int, seed: int = 0) -> list[np.ndarray]:
    """All that `steps` random actions bring."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        observations, reward, terminated, truncated, info = env.step(
            rng.integers(env.single_action_space.n, size=env.num_envs)
        )
        seen += [observations, reward, terminated, truncated, *(info[name] for name in sorted(info) if "level" in name)]
    return seen


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def stored(state: Any) -> Any:
    """A state out of a file of weights only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@real
def test_equal_seeds_give_equal_pixels_on_any_number_of_threads() -> None:
    runs = {}
    for seed, threads in ((3, 0), (3, 2), (4, 0)):
        env = ProcgenEnv(Setup("starpilot", 3), seed=seed, num_threads=threads)
        runs[seed, threads] = [env.reset()[0], *trace(env, 30)]
        env.close()
    assert same(runs[3, 0], runs[3, 2])
    assert not same(runs[3, 0], runs[4, 0])


@real
def test_fifty_steps_of_maze_are_those_of_the_real_engine() -> None:
    env = make_env("maze", 4, seed=5)
    digest = hashlib.sha256()
    for array in [env.reset()[0], *trace(env, 50)]:
        digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == "61aa91abebd55558"


@real
@pytest.mark.parametrize(("levels", "start", "inside"), [(200, 0, range(200)), (100, 500, range(500, 600)),
                                                         (2**31 - 1 - 200, 200, range(200, 2**31))])  # fmt: skip
def test_levels_are_of_the_range_that_was_asked_for(levels: int, start: int, inside: range) -> None:
    env = make_env("jumper", 32, seed=1, levels=levels, start_level=start)
    seeds = {*env.reset()[1]["level_seed"].tolist()}
    for array in trace(env, 40)[4::7]:  # level_seed, after observations, rewards and ends
        seeds |= {*array.tolist()}
    assert len(seeds) > 20
    assert all(seed in inside for seed in seeds)


@real
def test_all_levels_are_more_than_those_trained_on() -> None:
    seeds = make_env("coinrun", 32, seed=1, levels=0).reset()[1]["level_seed"]
    assert (seeds >= 200).all()


@real
@pytest.mark.parametrize("mode", ["easy", "hard"])
@pytest.mark.parametrize("game", GAMES)
def test_a_state_goes_on_bit_for_bit_in_an_engine_of_another_seed(game: str, mode: str) -> None:
    env = make_env(game, 2, seed=1, mode=mode)
    trace(env, 15)
    here, state = env.reset()[0], stored(env.get_state())
    after = trace(env, 15, seed=2)
    fresh, other = make_env(game, 2, seed=9, mode=mode), make_env(game, 2, seed=9, mode=mode)
    assert np.array_equal(fresh.set_state(state), here)
    assert np.array_equal(fresh.reset()[0], here)
    assert same(trace(fresh, 15, seed=2), after)
    assert not same(trace(other, 15, seed=2), after)


@real
@pytest.mark.parametrize(
    ("other", "told"),
    [({"levels": 0}, r"levels=200; allowed: levels=0"),
     ({"start_level": 200}, "start_level=0; allowed: start_level=200"),
     ({"mode": "hard"}, "mode='easy'; allowed: mode='hard'"), ({"num": 3}, "num=2; allowed: num=3"),
     ({"game": "maze"}, "game='coinrun'; allowed: game='maze'")],
)  # fmt: skip
def test_a_train_state_is_refused_in_a_test_environment(other: dict[str, Any], told: str) -> None:
    state = make_env("coinrun", 2, seed=1).get_state()
    env = make_env(**{"game": "coinrun", "num": 2, **other}, seed=2)
    before = env.reset()[0]
    with pytest.raises(UserError, match=told):
        env.set_state(state)
    assert np.array_equal(env.reset()[0], before)


@real
def test_an_end_brings_the_first_image_of_the_next_level() -> None:
    env, rng = make_env("jumper", 32, seed=1), np.random.default_rng(0)
    _, info = env.reset()
    ended = 0
    for _ in range(40):
        level, actions = info["level_seed"], rng.integers(15, size=32)
        observations, reward, terminated, truncated, info = env.step(actions)
        assert np.array_equal(info["prev_level_seed"][terminated], level[terminated])
        assert np.array_equal(info["level_seed"][~terminated], level[~terminated])
        assert ((reward > 0) == (info["prev_level_complete"] == 1))[terminated].all()
        assert not truncated.any()
        ended += terminated.sum()
        assert np.array_equal(env.reset()[0], observations)  # a reset without a seed changes nothing
    assert ended > 5
    assert env.metadata["autoreset_mode"] is env.autoreset_mode is AutoresetMode.SAME_STEP
    assert (observations.shape, observations.dtype, reward.dtype) == ((32, 64, 64, 3), np.uint8, np.float32)
    assert env.observation_space.contains(observations)


@real
def test_a_reset_with_a_seed_makes_the_engine_anew() -> None:
    env = make_env("coinrun", 3, seed=1)
    trace(env, 10)
    seen, _ = env.reset(seed=7)
    assert np.array_equal(seen, make_env("coinrun", 3, seed=7).reset()[0])
    assert np.array_equal(seen, make_env("coinrun", 3, seed=7 + 2**31).reset()[0])  # any integer is a seed


def test_an_environment_of_gymnasium_is_made_by_its_id() -> None:
    env, twin, other = (make_env("test/Dot-v0", 4, seed=seed) for seed in (1, 1, 2))
    observations, _ = env.reset()
    assert (observations.shape, observations.dtype) == ((4, 6, 5, 1), np.uint8)
    first, second = twin.reset()[0], other.reset()[0]
    assert np.array_equal(observations, first)
    assert not np.array_equal(observations, second)
    for step in range(1, 7):
        observations, reward, terminated, truncated, _ = env.step(np.array([0, 1, 2, 0]))
        assert reward.dtype == np.float32
        assert reward.tolist() == [0, 1, 2, 0]
        assert (terminated == (step % 3 == 0)).all()
        left = 3 - step % 3  # an end shows the next episode's first image, in which three steps are left
        assert (np.sort(observations.reshape(4, -1))[:, 0] == left).all()
    assert not np.array_equal(twin.reset()[0], first)  # a later reset does not repeat the episodes
    assert env.metadata["autoreset_mode"] is env.autoreset_mode is AutoresetMode.SAME_STEP


def test_single_environments_of_gymnasium_have_no_state() -> None:
    env = make_env("test/Dot-v0", 2, seed=1)
    assert env.get_state() is None
    state = {"game": "test/Dot-v0", "num": 2, "mode": "easy", "levels": 200, "start_level": 0}
    with pytest.raises(UserError, match="'test/Dot-v0' cannot be put into a state"):
        env.set_state(state)


def test_a_vector_environment_with_a_state_goes_on_from_it() -> None:
    env = make_env(LONG, 3, seed=1)
    env.reset()
    trace(env, 6)
    state = stored(env.get_state())
    after = trace(env, 6)
    fresh, other = make_env(LONG, 3, seed=2), make_env(LONG, 3, seed=2)
    assert np.array_equal(fresh.set_state(state), state["seen"].numpy())
    assert same(trace(fresh, 6), after)
    other.reset()
    assert not same(trace(other, 6), after)
    with pytest.raises(UserError, match="levels=200; allowed: levels=0"):
        make_env(LONG, 3, seed=1, levels=0).set_state(state)


@pytest.mark.parametrize(
    ("made", "told"),
    [({"game": "Coinrun"}, "game: got 'Coinrun' .*; allowed: bigfish, .*starpilot, or the id of a gymnasium env"),
     ({"game": "no_such_module:Env-v0"}, "No module named 'no_such_module'"),
     ({"game": "CartPole-v1"}, r"'CartPole-v1' shows Box of float32 \(4,\); allowed: images, uint8"),
     ({"game": "test/Floats-v0"}, "shows Box of float32"), ({"game": "test/Flat-v0"}, r"uint8 \(6, 5\); allowed"),
     ({"game": "test/Steers-v0"}, r"takes Box of \(2,\); allowed: discrete"),
     ({"num": 0}, "envs: got 0; allowed: 1 and more"), ({"mode": "memory"}, "mode: no 'memory'; allowed: easy, hard"),
     ({"levels": -1}, "levels: got -1; allowed: 0"), ({"levels": 2**31}, "levels: got 2147483648; allowed"),
     ({"start_level": -1}, "start_level: got -1; allowed: 0 to"),
     ({"levels": 0, "start_level": 200}, "start_level: got 200; allowed: 0 to 0 with levels=0"),
     ({"levels": 200, "start_level": 2**31 - 200}, "allowed: 0 to 2147483447 with levels=200")],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(made: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        make_env(**{"game": "coinrun", "num": 2, "seed": 1, **made})
    assert "\n" not in str(error.value)


def test_an_environment_that_begins_episodes_otherwise_is_refused() -> None:
    def late(num_envs: int) -> Any:
        return gymnasium.make_vec("test/Dot-v0", num_envs)

    gymnasium.register("test/Late-v0", vector_entry_point=late)
    with pytest.raises(UserError, match="begins episodes in mode AutoresetMode.NEXT_STEP; allowed: .*SAME_STEP"):
        make_env("test/Late-v0", 2, seed=1)
    del gymnasium.registry["test/Late-v0"]


def test_a_missing_procgen_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "procgen", None)
    monkeypatch.setitem(sys.modules, "procgen_gym", None)
    with pytest.raises(
        UserError, match=r"^maze needs procgen .*uv pip install 'nas-apps\[rl\]'.*procgen-mirror"
    ) as error:
        make_env("maze", 2, seed=1)
    assert "\n" not in str(error.value)


def test_a_level_of_torchrls_log_that_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RL_LOGGING_LEVEL", "DEBUG")
    silence()
    assert os.environ["RL_LOGGING_LEVEL"] == "DEBUG"
    assert "RL_WARNINGS" not in os.environ


QUIET = """
import sys
from nas_apps.core.errors import UserError
from nas_apps.tasks.rl.quiet import require_replay
from nas_apps.tasks.rl.envs import make_env
require_replay()
make_env("maze", 1, seed=1).reset()
import torch, torchrl.objectives
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer
replay = TensorDictPrioritizedReplayBuffer(alpha=0.8, beta=0.2, storage=LazyTensorStorage(8), batch_size=2)
replay.extend(TensorDict({"x": torch.zeros(4, 1)}, [4]))
assert replay.sample()["x"].shape == (2, 1)
sys.modules["torchrl._torchrl"] = None  # as with a torch that it was not built for
try:
    require_replay()
except UserError as error:
    print(error)
"""


@real
def test_procgen_and_torchrl_print_nothing_and_a_replay_that_cannot_be_made_is_told() -> None:
    env = {name: value for name, value in os.environ.items() if name != "RL_LOGGING_LEVEL"}
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False, env=env)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("a prioritised replay: the compiled part of torchrl 0.13")
    assert line.endswith("pip install 'nas-apps[rl]'")
