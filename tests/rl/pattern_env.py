"""A small vector environment of images of which one can be told the best policy, for the tests of learning.

Its ids are known once it is imported, which gymnasium does for "pattern_env:nas_apps/Pattern-v0".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

PATCHES = np.stack([np.eye(3)[[1, 1, 1]], np.eye(3)[[1, 1, 1]].T, np.eye(3), np.eye(3)[::-1]]).astype(np.uint8) * 255


class PatternEnv(VectorEnv):
    """The action to take is told by the orientation of a bar of three pixels, somewhere in the green channel; bars of
    other orientations are in the red and the blue one. The bars are as bright as each other and may be anywhere, so
    that only a look at neighbouring pixels tells them apart.

    An episode has `length` steps, each with a bar of its own; the right action brings 1 / length. Return of the best
    policy 1, of any that does not look 1 / actions. size: of the image. bars: whether there are bars in the red and
    the blue channel. shuffled: what is right has nothing to do with what is seen.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    autoreset_mode = AutoresetMode.SAME_STEP

    def __init__(
        self,
        num_envs: int,
        length: int = 1,
        size: int = 16,
        actions: int = 4,
        bars: bool = True,
        shuffled: bool = False,
    ) -> None:
        self.num_envs, self.length, self.size, self.shuffled = num_envs, length, size, shuffled
        self.actions, self.channels = actions, (0, 1, 2) if bars else (1,)
        self.single_observation_space = Box(0, 255, (size, size, 3), np.uint8)
        self.single_action_space = Discrete(actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rng = np.random.default_rng()
        self.right = np.zeros(num_envs, np.int64)  # the action that is paid for next
        self._clock = np.zeros(num_envs, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._clock[:] = 0
        return self._shown(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        reward = (np.asarray(actions) == self.right) / self.length
        self._clock += 1
        done = self._clock >= self.length
        self._clock[done] = 0
        return self._shown(), reward, done, np.zeros_like(done), {}

    def get_state(self) -> dict[str, Any]:
        rng = json.dumps(self._rng.bit_generator.state)
        return {"rng": rng, "right": torch.tensor(self.right), "clock": torch.tensor(self._clock)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = json.loads(state["rng"])
        self.right, self._clock = state["right"].numpy().copy(), state["clock"].numpy().copy()

    def _shown(self) -> np.ndarray:
        """A bar in each channel of each image that has one; the green one's orientation is right, unless shuffled."""
        kinds = self._rng.integers(self.actions, size=(self.num_envs, 3))
        corners = self._rng.integers(self.size - 2, size=(self.num_envs, 3, 2))
        images = np.zeros((self.num_envs, self.size, self.size, 3), np.uint8)
        for env, channel in np.ndindex(self.num_envs, 3):
            if channel in self.channels:
                top, left = corners[env, channel]
                images[env, top : top + 3, left : left + 3, channel] = PATCHES[kinds[env, channel]]
        others = self._rng.integers(self.actions, size=self.num_envs)
        self.right = others if self.shuffled else kinds[:, 1]
        return images


def _register(name: str, **kwargs: Any) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(name, vector_entry_point=PatternEnv, kwargs=kwargs)


_register("nas_apps/Pattern-v0")
_register("nas_apps/PatternLong-v0", length=4)
_register("nas_apps/PatternShuffled-v0", shuffled=True)
_register("nas_apps/Bar-v0", size=8, actions=2, bars=False)
_register("nas_apps/BarShuffled-v0", size=8, actions=2, bars=False, shuffled=True)
