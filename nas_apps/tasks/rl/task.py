"""Reinforcement learning from images: the encoder of an unmodified agent is searched with the agent's own loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError, require
from nas_apps.core.genotype import Genotype
from nas_apps.core.phase import Phase
from nas_apps.core.progress import Progress, Ramp
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.core.space import Space
from nas_apps.core.task import Optimisation, Streams
from nas_apps.tasks.rl import export
from nas_apps.tasks.rl.envs import make_env
from nas_apps.tasks.rl.episodes import play_shared
from nas_apps.tasks.rl.network import ActorCritic, DuelingC51, Network, build_encoder
from nas_apps.tasks.rl.ppo import PPOObjective
from nas_apps.tasks.rl.procgen_env import GAMES, Setup
from nas_apps.tasks.rl.quiet import require_replay
from nas_apps.tasks.rl.returns import RANGES, normalised
from nas_apps.tasks.rl.rollouts import Rollouts, check_rollout
from nas_apps.tasks.rl.settings import Acting, Weights
from nas_apps.tasks.rl.spaces import RLSpace, find, space

require("gymnasium", "torchrl", extra="rl")

EVALUATION = 7  # seeds of evaluations: the same levels and actions for every method and seed
UNSEEN = 10_000_000  # levels to test on, after those that are learned from


@dataclass(frozen=True)
class RLTask:
    """An agent that learns to play from images; a super-net or a stacked cell is its encoder.

    The default search is single-level, as in arXiv:2106.02229: weights and architecture learn from the same rollouts.
    A bilevel one has two actors, each with half of the levels.
    """

    game: str = "starpilot"
    """One of Procgen's 16 games, or a gymnasium id ("module:Name-v0") of an environment with images."""
    mode: str = "easy"
    """Of Procgen: easy or hard."""
    levels: int = 200
    """Of Procgen: how many levels are learned from; 0 for all there are."""
    start_level: int = 0
    """Of Procgen: the first of them."""
    algorithm: Literal["ppo", "rainbow"] = "ppo"
    space: str = "micro"
    skeleton: Literal["standard", "impala"] | None = None
    """"standard" has reduction and normal cells; "impala" has normal cells in place of residual blocks. That of the
    paper's networks with this space when not given."""
    nodes: int = 4
    distinct: bool = False
    """Whether the two cells of an impala stack are two kinds of cell."""

    network: ClassVar[type] = Network
    weights: ClassVar[type] = Weights
    batches: ClassVar[type] = Acting
    goal: ClassVar[tuple[str, Literal["max", "min"]]] = ("return", "max")
    twice_differentiable: ClassVar[bool] = True
    classifies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for first, count in (self._seen(), self._unseen()):
            Setup(self.game, 1, self.mode, count, first)
        self._space()

    @property
    def on_policy(self) -> bool:
        return self.algorithm == "ppo"

    def choices(self, *, edges: int = 0) -> Space:
        return self._space().choices(edges=edges)

    def build(self, fill: Fill, phase: Phase) -> nn.Module:
        size, actions = self._look()
        acting: Acting = phase.data

        def encoder() -> nn.Module:
            return build_encoder(fill, self._space(), phase.network, size)

        if self.algorithm == "ppo":
            return PPOObjective(ActorCritic(encoder(), actions), acting.ppo)
        from nas_apps.tasks.rl.rainbow import RainbowObjective

        require_replay()
        network, target = (
            DuelingC51(encoder(), actions, acting.rainbow.atoms, acting.rainbow.hidden) for _ in range(2)
        )
        return RainbowObjective(network, target, fill.delayed(), acting.rainbow)

    def optimisation(self, objective: nn.Module, phase: Phase) -> Optimisation:
        s, parameters = phase.weights, [p for p in objective.parameters() if p.requires_grad]
        if s.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, s.lr, s.momentum)
        else:
            kind = torch.optim.Adam if s.optimizer == "adam" else torch.optim.RMSprop
            optimizer = kind(parameters, s.lr, eps=s.eps)
        rate = Ramp(s.lr, 0.0 if s.schedule == "linear" else s.lr)

        def set_rates(progress: Progress) -> None:
            optimizer.param_groups[0]["lr"] = rate(progress)

        return Optimisation(optimizer, set_rates)

    def streams(self, objective: nn.Module, phase: Phase, runtime: Runtime, *, seed: int, halves: bool) -> Streams:
        if halves and self.levels == 1 and self.game in GAMES:
            raise UserError("task.levels: got 1, and a bilevel search learns from two halves; allowed: 2 and more, 0")
        half = self.levels // 2
        parts = ((self.start_level, half), (self.start_level + half, self.levels - half))
        train = self._stream(objective, phase, runtime, mix(seed, 0), parts[0] if halves else self._seen(), first=True)
        valid = self._stream(objective, phase, runtime, mix(seed, 1), parts[1], first=False) if halves else train
        return Streams(train, valid, train.epoch if self.on_policy else phase.epoch_steps)

    def evaluate(self, objective: nn.Module, phase: Phase, runtime: Runtime) -> dict[str, float]:
        """Raw returns, as means over episodes with their standard errors; of a search on its own levels, of a final
        training on levels it has not seen, where there are such, and as `train_return` on its own.

        A policy of PPO is sampled, one of Rainbow greedy, as in arXiv:2106.02229's code.
        """
        seen = self._play(objective, phase, runtime, self._seen())
        if phase.name == "search" or self._unseen() == self._seen() or self.game not in GAMES:
            return seen
        unseen = self._play(objective, phase, runtime, self._unseen())
        return {**unseen, **{f"train_{name}": value for name, value in seen.items()}}

    def example(self, objective: nn.Module, phase: Phase) -> tuple[nn.Module, tuple[object, ...]]:
        return objective.get_submodule("network"), (torch.zeros(1, *self._look()[0], dtype=torch.uint8),)

    def data_facts(self) -> str:
        (height, width, channels), actions = self._look()
        seen = f"observations of {height} x {width} x {channels}, {actions} actions"
        if self.game not in GAMES:
            return f"{self.game}: {seen}"
        last = self.start_level + self.levels - 1
        levels = f"levels {self.start_level} to {last} to learn from, others to test on"
        levels = levels if self.levels else "all levels"
        return f"{self.game} (Procgen, {self.mode}): {levels}, {seen}"

    def find(self, name: str) -> Genotype:
        return find(name, self._space())

    def look_up(self, genotype: Genotype, table: Path) -> dict[str, float]:
        raise UserError(f"{table}: task rl has no tables of known results")

    def export(self, objective: nn.Module, genotype: Genotype, phase: Phase, folder: Path) -> None:
        """Write model.safetensors and model.json, which `nas_apps.tasks.rl.export` rebuilds the network from."""
        about: dict[str, Any] = {"game": self.game, "mode": self.mode}
        if not self.on_policy:
            about |= {"low": phase.data.rainbow.low, "high": phase.data.rainbow.high}
        export.write(objective.network, genotype, self._space(), phase.network, folder, about=about)

    def load(self, folder: Path) -> nn.Module:
        """The network of an agent: see `nas_apps.tasks.rl.export`."""
        return export.load_policy(folder).eval()

    def _seen(self) -> tuple[int, int]:
        """The first of the levels that are learned from, and how many they are."""
        return self.start_level, self.levels

    def _unseen(self) -> tuple[int, int]:
        return (self.start_level + self.levels, UNSEEN) if self.levels else self._seen()

    def _space(self) -> RLSpace:
        return space(self.space, self.skeleton, self.nodes, distinct=self.distinct)

    def _look(self) -> tuple[tuple[int, int, int], int]:
        """Height, width and channels of observations; the number of actions."""
        return _look(self.game, self.mode)

    def _env(self, number: int, *, seed: int, levels: tuple[int, int]) -> Any:
        first, count = levels
        return make_env(self.game, number, seed=seed % 2**31, mode=self.mode, levels=count, start_level=first)

    def _stream(
        self, objective: nn.Module, phase: Phase, runtime: Runtime, seed: int, levels: tuple[int, int], *, first: bool
    ) -> Any:
        acting: Acting = phase.data
        settings = acting.ppo if self.on_policy else acting.rainbow
        for name, number in ((f"data.{self.algorithm}.envs", settings.envs), ("batch_size", phase.batch_size)):
            if number % runtime.world:
                raise UserError(
                    f"{phase.name}.{name}: got {number}; allowed: a multiple of the {runtime.world} processes"
                )
        seed = mix(seed, runtime.rank)
        env = self._env(settings.envs // runtime.world, seed=mix(seed, 2), levels=levels)
        if self.on_policy:
            check_rollout(phase)
            return Rollouts(objective, env, acting.ppo, phase.batch_size // runtime.world, runtime, seed)
        from nas_apps.tasks.rl.replay import Replay

        if phase.epoch_steps is None:
            raise UserError(
                f"{phase.name}.epoch_steps: not given; allowed with rainbow, which has no end of its data: 1 and more"
            )
        frames = int(phase.epochs * phase.epoch_steps * phase.batch_size / acting.rainbow.inserts)
        scale = RANGES["hard"][self.game][1] if self.game in RANGES["hard"] else 1.0
        return Replay(
            objective,
            env,
            acting.rainbow,
            runtime,
            batch_size=phase.batch_size,
            seed=seed,
            frames=frames,
            scale=scale,
            catches_up=first,
        )

    def _play(self, objective: nn.Module, phase: Phase, runtime: Runtime, levels: tuple[int, int]) -> dict[str, float]:
        rngs = torch.Generator(runtime.device).manual_seed(mix(EVALUATION, runtime.rank)), torch.Generator()

        def act(observation: Tensor) -> Tensor:
            if self.on_policy:
                return objective.act(observation, rngs[0])[0]
            return objective.act(observation, torch.zeros(len(observation)), rngs[1])

        returns = play_shared(act, partial(self._env, levels=levels), phase.data.episodes, runtime, seed=EVALUATION)
        figures = {"return": float(returns.mean()), "return_se": float(returns.std() / len(returns) ** 0.5)}
        worth = normalised(self.game, self.mode, figures["return"])
        return figures if worth is None else {**figures, "normalised": worth}


@lru_cache(maxsize=4)
def _look(game: str, mode: str) -> tuple[tuple[int, int, int], int]:
    try:
        env = make_env(game, 1, seed=0, mode=mode)
    except UserError as error:
        raise UserError(f"task.{error}") from None
    size, actions = env.single_observation_space.shape, int(env.single_action_space.n)
    env.close()
    return size, actions
