"""Environment steps that an agent lives through and learns from, in a second of one core or of a GPU.

    OMP_NUM_THREADS=1 python benchmarks/rl_throughput.py --device cpu --threads 1 --repeats 3

Our PPO, as a final training drives it, beside Stable-Baselines3's on the same game of Procgen, with the same network
(IMPALA-CNN, channels 16, 32, 32), rollouts, passes, minibatches and rate. The agents take turns, a rollout and what is
learned from it each, so that a machine that is busy for a while is busy for all of them; every ratio is that of two
turns of the same round. Seconds are those that the process had of the processors, and on CUDA those of the clock.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter, process_time
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.folder import device_name
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner, train_learner
from nas_apps.core.parts.schedule import Schedule, WeightsOnly
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime, start
from nas_apps.core.task import Streams
from nas_apps.tasks.rl.quiet import silence

silence()  # before Stable-Baselines3 looks for gym
try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize

    from nas_apps.tasks.rl.envs import make_env
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"rl_throughput: needs {missing.name}, which is not installed: pip install stable-baselines3"
    ) from None

OURS, THEIRS = "ours", "Stable-Baselines3"
ACTING, ENVIRONMENT, BATCHES, LEARNING = PARTS = ("acting", "environment", "batches", "learning")
"""What the time goes to. batches: rewards on their scale, advantages, choosing minibatches; of Rainbow the replay."""
MIDDLE = Progress(1, 2)
IMPALA = ("train.network.output=last_node", "train.network.channels=[16,32,32]")
SUPERNETS = {
    "standard, classic, 4 nodes, 16-16-16": ("standard", "classic", 4, 16),
    "impala, micro, 4 nodes, 16-16-16": ("impala", "micro", 4, 16),
    "standard, classic, 1 node, 16-16-16": ("standard", "classic", 1, 16),
    "standard, classic, 4 nodes, 4-4-4": ("standard", "classic", 4, 4),
    "standard, micro, 2 nodes, 4-4-4": ("standard", "micro", 2, 4),
}
"""Skeleton, space, nodes of a cell and channels of the super-nets that are measured."""


class Clock:
    """Seconds of each part of the turns: those in which no other part runs inside it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.taken = device, Counter[str]()
        self._inside: list[str] = []
        self._since = 0.0

    def now(self) -> float:
        """This process's seconds of the processors; of the clock on CUDA, when all that was asked for is done."""
        if self.device.type != "cuda":
            return process_time()
        torch.cuda.synchronize(self.device)
        return perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time inside is of this part."""
        self._turn()
        self._inside.append(name)
        yield
        self._turn()
        self._inside.pop()

    def watch(self, owner: object, method: str, name: str) -> None:
        """Time inside a method of one object is of this part from now on."""
        called = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return called(*args, **kwargs)

        setattr(owner, method, timed)

    def _turn(self) -> None:
        now = self.now()
        if self._inside:
            self.taken[self._inside[-1]] += now - self._since
        self._since = now


class Timed:
    """A stream whose batches are timed."""

    def __init__(self, stream: Any, clock: Clock) -> None:
        self._stream, self._clock = stream, clock

    @property
    def cycle(self) -> int:
        return self._stream.cycle

    def __next__(self) -> Any:
        with self._clock.part(BATCHES):
            return next(self._stream)


@dataclass(frozen=True)
class Agent:
    """One that is measured. turn: a rollout, and what is learned from it. steps: of all environments in a turn. clock:
    of the parts of its turns."""

    turn: Callable[[], object]
    steps: int
    params: int
    clock: Clock


class ImpalaCNN(BaseFeaturesExtractor):
    """IMPALA-CNN (arXiv:1802.01561) as one writes it for Stable-Baselines3: images `[B, C, H, W]` of 0 to 1."""

    def __init__(self, observation_space: Any, widths: tuple[int, ...] = (16, 32, 32), features: int = 256) -> None:
        super().__init__(observation_space, features)
        before, size = observation_space.shape[:2]
        layers: list[nn.Module] = []
        for after in widths:
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(after), Residual(after)]
            before, size = after, -(-size // 2)
        layers += [nn.Flatten(), nn.ReLU(), nn.Linear(before * size * size, features), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, observations: Tensor) -> Tensor:
        features: Tensor = self.layers(observations)
        return features


class Residual(nn.Module):
    """relu, conv, relu, conv, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x.relu()).relu())
        return x + y


class ChannelsFirst(nn.Module):
    """Images copied as most of torch has them in memory, `[B, C, H, W]` row by row."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


class Games(VecEnv):
    """One of our vector environments as Stable-Baselines3 has them; only what its PPO asks for is answered."""

    def __init__(self, env: Any) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        return self.env.reset()[0]

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
        observations, reward, terminated, truncated, _ = self.env.step(self._actions)
        return observations, reward, terminated | truncated, [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"{attr_name}: nothing of these games can be set")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(f"{method_name}: these games have no methods of their own")


def recipe(phase: str, game: str, rollout: tuple[int, int, int], *overrides: str) -> Recipe:
    """A recipe whose phase learns by PPO, with the task's own settings of it but for the sizes of a rollout: how many
    environments, the steps of each, and the minibatches."""
    envs, steps, minibatches = rollout
    sizes = f"data.ppo.envs={envs}", f"data.ppo.steps={steps}", f"batch_size={envs * steps // minibatches}", "clip=0.5"
    return load([], ["task=rl", f"task.game={game}", *(f"{phase}.{size}" for size in sizes), *overrides])


def impala(made: Recipe, runtime: Runtime, *, stem: nn.Module | None = None) -> Agent:
    """The final training of IMPALA-CNN by PPO; a turn is a rollout. stem: what images go through first."""
    learner, streams = train_learner(made, made.task.find("impala"), runtime)
    learner.objective.get_submodule("network.encoder").stem = stem or nn.Identity()
    ppo = made.train.data.ppo
    return driven(WeightsOnly(), learner, streams, turn=streams.epoch, steps=ppo.envs * ppo.steps)


def rainbow(made: Recipe, runtime: Runtime) -> Agent:
    """The final training of IMPALA-CNN by Rainbow; a turn is 4 of its steps."""
    learner, streams = train_learner(made, made.task.find("impala"), runtime)
    steps = 4 * made.train.batch_size / made.train.data.rainbow.inserts
    return driven(WeightsOnly(), learner, streams, turn=4, steps=int(steps))


def super_net(made: Recipe, runtime: Runtime) -> Agent:
    """A search by the method of a recipe; a turn is a rollout."""
    learner, streams = search_learner(made, runtime)
    ppo = made.search.data.ppo
    return driven(made.variant.schedule, learner, streams, turn=streams.epoch, steps=ppo.envs * ppo.steps)


def driven(schedule: Schedule, learner: Learner, streams: Streams, *, turn: int, steps: int) -> Agent:
    """An agent of ours, whose turn is so many steps of a schedule."""
    clock = Clock(learner.runtime.device)
    clock.watch(streams.train.env, "step", ENVIRONMENT)  # type: ignore[attr-defined]
    for method in {"act", "value"} & set(dir(learner.objective)):
        clock.watch(learner.objective, method, ACTING)
    timed = streams._replace(train=Timed(streams.train, clock))

    def take() -> None:
        for _ in range(turn):
            learner.begin(MIDDLE)
            schedule(learner, timed)

    return Agent(take, steps, sum(p.numel() for p in (*learner.parameters, *learner.logits)), clock)


def stable_baselines(made: Recipe, runtime: Runtime) -> Agent:
    """Stable-Baselines3's PPO with the settings of a recipe; it transposes images and divides them by 255 itself."""
    train, ppo = made.train, made.train.data.ppo
    games = Games(make_env(made.task.game, ppo.envs, seed=0))
    model = PPO(
        "CnnPolicy", VecNormalize(games, norm_obs=False, gamma=ppo.gamma), learning_rate=train.weights.lr,
        n_steps=ppo.steps, batch_size=train.batch_size, n_epochs=ppo.epochs, gamma=ppo.gamma, gae_lambda=ppo.lam,
        clip_range=ppo.clip, clip_range_vf=ppo.clip, ent_coef=ppo.entropy, vf_coef=ppo.critic, max_grad_norm=train.clip,
        policy_kwargs={"features_extractor_class": ImpalaCNN, "net_arch": []}, seed=0, device=runtime.device,
    )  # fmt: skip
    clock, steps = Clock(runtime.device), ppo.envs * ppo.steps
    clock.watch(model, "collect_rollouts", BATCHES)
    clock.watch(games.env, "step", ENVIRONMENT)
    for method in ("forward", "predict_values"):
        clock.watch(model.policy, method, ACTING)
    params = sum(p.numel() for p in model.policy.parameters())
    return Agent(lambda: model.learn(steps, reset_num_timesteps=False), steps, params, clock)


def seconds(agents: Mapping[str, Agent], *, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """The time of `repeats` turns of each agent, and that of the clock on the wall, after one that does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in agents}
    for turn in range(-1, repeats):
        for name, agent in agents.items():
            if turn == 0:
                agent.clock.taken.clear()
            begun = agent.clock.now(), perf_counter()
            with agent.clock.part(LEARNING):
                agent.turn()
            if turn >= 0:
                taken[name].append((agent.clock.now() - begun[0], perf_counter() - begun[1]))
    return taken


def table(agents: Mapping[str, Agent], taken: Mapping[str, list[tuple[float, float]]], base: str) -> str:
    """Markdown, a row for each agent: medians and, in brackets, the least and the most; ratios are to `base`'s turn of
    the same round."""
    on_cpu = agents[base].clock.device.type == "cpu"
    per = ["env-steps/core-s", "env-steps/s"] if on_cpu else ["env-steps/s"]
    rows = [["agent", "parameters", *per, f"relative to {base}", *PARTS]]
    rows.append(["---"] * len(rows[0]))
    for name, agent in agents.items():
        rates = [[agent.steps / turn[which] for turn in taken[name]] for which in range(len(per))]
        bases = [agents[base].steps / turn[0] for turn in taken[base]]
        ratios = [rate / other for rate, other in zip(rates[0], bases, strict=True)]
        spent = agent.clock.taken
        cells = [name, f"{agent.params:,}", *(_spread(rate, 1) for rate in rates), _spread(ratios, 2)]
        rows.append([*cells, *(f"{100 * spent[part] / spent.total():.1f} %" for part in PARTS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def beside_ours(game: str, rollout: tuple[int, int, int], runtime: Runtime) -> dict[str, Agent]:
    """PPO with images that are not as fast to work on, Rainbow, and the searches of some super-nets."""
    given = ["task=rl", "task.algorithm=rainbow", f"task.game={game}", "train.epoch_steps=1000", "train.batch_size=256"]
    replay = (f"train.data.rainbow.{size}" for size in ("envs=16", "replay=4096", "warmup=1024"))
    agents = {
        "ours, channels first": impala(recipe("train", game, rollout, *IMPALA), runtime, stem=ChannelsFirst()),
        "ours, Rainbow": rainbow(load([], [*given, *IMPALA, *replay]), runtime),
    }
    for name, (skeleton, space, nodes, width) in SUPERNETS.items():
        net = f"task.skeleton={skeleton}", f"task.space={space}", f"task.nodes={nodes}"
        widths = f"search.network.channels={[width] * 3}"
        agents[f"super-net: {name}"] = super_net(
            recipe("search", game, rollout, "variant=rl_darts", *net, widths), runtime
        )
    return agents


def main(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="Ours: auto, fp32 or bf16.")] = "fp32",
    game: Annotated[str, typer.Option(help="Of Procgen; easy, 200 levels.")] = "coinrun",
    envs: Annotated[int, typer.Option(help="Environments.", min=1)] = 32,
    steps: Annotated[int, typer.Option(help="Of each in a rollout.", min=1)] = 64,
    minibatches: Annotated[int, typer.Option(help="Of a rollout.", min=1)] = 8,
    repeats: Annotated[int, typer.Option(help="Turns of each agent that are timed.", min=1)] = 3,
    threads: Annotated[int | None, typer.Option(help="Threads on the CPU; torch's own number when not given.")] = None,
    others: Annotated[bool, typer.Option(help="Agents of ours in the place of Stable-Baselines3.")] = False,
) -> None:
    """Print a table of environment steps per second, agent by agent, and where their time goes."""
    if threads is not None:
        torch.set_num_threads(threads)
    rollout = envs, steps, minibatches
    try:
        with start(device, precision) as runtime:
            made = recipe("train", game, rollout, *IMPALA)
            agents = {OURS: impala(made, runtime)}
            agents |= beside_ours(game, rollout, runtime) if others else {THEIRS: stable_baselines(made, runtime)}
            packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchrl", "stable-baselines3"))
            typer.echo(
                f"{device_name(runtime.device)}, {packages}; ours {'bf16' if runtime.bf16 else 'fp32'}; {game}, easy, "
                f"200 levels; {envs} envs x {steps} steps, {made.train.data.ppo.epochs} epochs x {minibatches} "
                f"minibatches; {repeats} turns\n"
            )
            typer.echo(table(agents, seconds(agents, repeats=repeats), OURS if others else THEIRS))
    except UserError as error:
        raise SystemExit(f"rl_throughput: {error}") from None


if __name__ == "__main__":
    typer.run(main)
