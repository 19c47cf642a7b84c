"""The 16 games of Procgen (arXiv:1912.01588) as a vector environment of gymnasium that can be saved and restored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from nas_apps.core.errors import UserError, unknown
from nas_apps.tasks.rl.quiet import silence

GAMES = ("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot", "heist",
         "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot")  # fmt: skip
MODES = ("easy", "hard")
SEEDS = 2**31  # seeds, of the engine and of its levels, are below it


@dataclass(frozen=True)
class Setup:
    """What an environment is made of, and so what its state belongs to.

    levels, start_level: of Procgen's games, which play the levels from start_level on, `levels` of them; 0 is all
    there are, from 0 on. For other environments they and the mode only name what a state is of.
    """

    game: str
    num: int
    mode: str = "easy"
    levels: int = 200
    start_level: int = 0

    def __post_init__(self) -> None:
        if self.num < 1:
            raise UserError(f"envs: got {self.num}; allowed: 1 and more")
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if not 0 <= self.levels < SEEDS:
            raise UserError(f"levels: got {self.levels}; allowed: 0, for all, to {SEEDS - 1}")
        last = SEEDS - 1 - self.levels if self.levels else 0  # the engine starts at 0 when it plays all
        if not 0 <= self.start_level <= last:
            raise UserError(f"start_level: got {self.start_level}; allowed: 0 to {last} with levels={self.levels}")

    def refuse_other(self, state: Mapping[str, Any]) -> None:
        """Refuse the state of an environment that was made of something else."""
        for name, own in asdict(self).items():
            if state.get(name) != own:
                got = f"{name}={state.get(name)!r}"
                raise UserError(f"state of an environment: got one of {got}; allowed: {name}={own!r}, as it was made")


class ProcgenEnv(VectorEnv):
    """Observations uint8 [N, 64, 64, 3], 15 actions, rewards float32 [N], on the engine's own threads or on none.

    An episode's end brings the first observation of the next; there is none of the end itself, and running out of time
    looks like any other end. `info` has level_seed, prev_level_seed and prev_level_complete, each [N]. An engine's
    pixels are a function of its seed and the actions, not of num_threads.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    autoreset_mode = AutoresetMode.SAME_STEP
    _engine: Any = None

    def __init__(self, setup: Setup, *, seed: int, num_threads: int = 0) -> None:
        if setup.game not in GAMES:
            raise unknown("game", setup.game, GAMES)
        self.setup, self._threads = setup, num_threads
        self.num_envs = setup.num
        self.single_observation_space = Box(0, 255, (64, 64, 3), np.uint8)
        self.single_action_space = Discrete(15)
        self.observation_space = batch_space(self.single_observation_space, setup.num)
        self.action_space = batch_space(self.single_action_space, setup.num)
        self._engine = self._started(seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Where the environments stand: Procgen cannot end an episode by hand, so it begins none, and changes nothing.
        With a seed the engine is made anew, and every environment begins.
        """
        if seed is not None:
            self._engine.close()
            self._engine = self._started(seed)
        return self._engine.reset()

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One action in each, integers [N] below 15; no episode is ever told to be truncated."""
        return self._engine.step(np.asarray(actions))

    def get_state(self) -> dict[str, Any]:
        """All that the next observations depend on, beside what they are of."""
        states = [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in self._engine.get_state()]
        return {**asdict(self.setup), "states": states}

    def set_state(self, state: Mapping[str, Any]) -> np.ndarray:
        """Go on from a state, of any seed, of an environment that was made of the same; returns what is seen there.

        The engine's own state carries the range of levels along, so that one of training levels in an environment of
        unseen levels would go on with the former: it is refused.
        """
        self.setup.refuse_other(state)
        self._engine.set_state([blob.cpu().numpy().tobytes() for blob in state["states"]])
        return self._engine.reset()[0]

    def close_extras(self, **kwargs: Any) -> None:
        """Free the engine."""
        if self._engine:
            self._engine.close()

    def _started(self, seed: int) -> Any:
        """The engine: of procgen_gym where that is installed, the port for Python 3.13, else of procgen."""
        silence()
        made = self.setup
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # procgen leaves a file open, and gym is old
                engine = import_module("procgen_gym").ProcgenVecEnv if find_spec("procgen_gym") else _gym3()
        except ImportError as error:
            raise UserError(
                f"{made.game} needs procgen ({error}): uv pip install 'nas-apps[rl]' in the project's folder; or, on "
                "Python 3.11 and 3.12, pip install --no-deps procgen-mirror gym3 and pip install gym cffi imageio"
            ) from error
        return engine(
            made.num, made.game, distribution_mode=made.mode, num_levels=made.levels, start_level=made.start_level,
            rand_seed=seed % SEEDS, num_threads=self._threads,
        )  # fmt: skip


def _gym3() -> type:
    """procgen's engine under the methods that procgen_gym gives it."""
    from procgen import ProcgenGym3Env

    class Engine(ProcgenGym3Env):
        def reset(self) -> tuple[Any, dict[str, Any]]:
            observations, _, _, _, info = self._told()
            return observations, info

        def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
            self.act(actions)
            return self._told()

        def _told(self) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
            reward, observations, first = self.observe()
            infos = self.get_info()
            info = {name: np.array([info[name] for info in infos]) for name in infos[0]}
            return observations["rgb"], reward, first, np.zeros_like(first), info

    return Engine
