"""Vector environments by name: Procgen's games and those that gymnasium knows, all of one kind.

Observations are images, uint8 [N, H, W, C], actions integers [N], and the step that ends an episode brings the first
observation of the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from nas_apps.core import logs
from nas_apps.core.errors import UserError
from nas_apps.tasks.rl.procgen_env import GAMES, ProcgenEnv, Setup

SAME_STEP = AutoresetMode.SAME_STEP


@runtime_checkable
class Stateful(Protocol):
    """A vector environment that can be saved: its state is of plain values and tensors."""

    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...


class ImageEnv(VectorWrapper):
    """A vector environment of gymnasium under the same methods as Procgen's; refused when it is of another kind.

    It is seeded by its first reset. It has a state when the vector environment itself has get_state and set_state.
    """

    autoreset_mode = SAME_STEP

    def __init__(self, env: VectorEnv, setup: Setup, *, seed: int) -> None:
        super().__init__(env)
        self.setup = setup
        self._seed: int | None = seed
        self._seen: Any = None
        self._refuse_others(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """New episodes; the first time under the seed it was made with, unless another is given."""
        seed, self._seed = self._seed if seed is None else seed, None
        self._seen, info = self.env.reset(seed=seed, options=options)
        return self._seen, info

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One action in each, integers [N]; rewards are float32."""
        self._seen, reward, terminated, truncated, info = self.env.step(actions)
        return self._seen, np.asarray(reward, np.float32), terminated, truncated, info

    def get_state(self) -> dict[str, Any] | None:
        """The state and what is seen in it; None where the environment has no state to give."""
        if not isinstance(self.env, Stateful):
            return None
        if self._seen is None:
            self.reset()
        return {**asdict(self.setup), "env": self.env.get_state(), "seen": torch.tensor(self._seen)}

    def set_state(self, state: Mapping[str, Any]) -> np.ndarray:
        """Go on from a state of an environment that was made of the same; returns what is seen there."""
        self.setup.refuse_other(state)
        if not isinstance(self.env, Stateful):
            raise UserError(
                f"game: {self.setup.game!r} cannot be put into a state; allowed: one with get_state, set_state"
            )
        self.env.set_state(state["env"])
        self._seed, self._seen = None, state["seen"].cpu().numpy()
        return self._seen

    def _refuse_others(self, env: VectorEnv) -> None:
        game, seen, acts = self.setup.game, env.single_observation_space, env.single_action_space
        if seen.dtype != np.uint8 or len(seen.shape or ()) != 3:
            got = f"{type(seen).__name__} of {seen.dtype} {seen.shape}"
            raise UserError(f"game: {game!r} shows {got}; allowed: images, uint8 [height, width, channels]")
        if not isinstance(acts, Discrete) or acts.start != 0:
            raise UserError(
                f"game: {game!r} takes {type(acts).__name__} of {acts.shape}; allowed: discrete actions from 0 on"
            )
        if (mode := env.metadata.get("autoreset_mode")) is not SAME_STEP:
            raise UserError(f"game: {game!r} begins episodes in mode {mode}; allowed: {SAME_STEP}")


def make_env(
    game: str, num: int, *, seed: int, mode: str = "easy", levels: int = 200, start_level: int = 0
) -> ProcgenEnv | ImageEnv:
    """`num` environments of a game of Procgen, or of the id of a gymnasium environment: "id" or "module:id".

    mode, levels and start_level are Procgen's: easy or hard; how many levels there are, 0 for all; the first one.
    An environment of an id is made of single ones, one after the other, or is a vector environment of its own where
    there are no single ones.
    """
    setup = Setup(game, num, mode, levels, start_level)
    if game in GAMES:
        return ProcgenEnv(setup, seed=seed)
    return ImageEnv(_by_id(game, num), setup, seed=seed)


def go_on(env: Any, state: Mapping[str, Any] | None) -> bool:
    """Put an environment into a state; where it had none to give, say so, and leave it at new episodes."""
    if state is None:
        logs.say(
            "environments of this game cannot be saved: they begin new episodes, which a run without a stop does not"
        )
        return False
    env.set_state(state)
    return True


def _by_id(game: str, num: int) -> VectorEnv:
    module, _, name = game.rpartition(":")
    try:
        if module:
            import_module(module)
        spec = gymnasium.spec(name)
        if spec.entry_point is None:
            return gymnasium.make_vec(spec, num, vectorization_mode="vector_entry_point")
        return gymnasium.make_vec(spec, num, vectorization_mode="sync", vector_kwargs={"autoreset_mode": SAME_STEP})
    except (gymnasium.error.Error, ImportError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"game: got {game!r} ({why}); allowed: {', '.join(GAMES)}, or the id of a gymnasium environment"
        ) from error
