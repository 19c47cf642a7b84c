"""The on-policy search: who acts, what is learned from, and what comes of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_apps.core.arch import Arch
from nas_apps.core.cell import Mixed
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.hypergrad import LookAhead
from nas_apps.core.learner import Learner
from nas_apps.core.learners import search_learner
from nas_apps.core.op import OpArgs, OpTable, Zero
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.schedule import Joint
from nas_apps.core.parts.wiring import Full
from nas_apps.core.phase import Logits, Phase
from nas_apps.core.progress import Progress
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Choice
from nas_apps.core.task import Optimisation, Streams
from nas_apps.core.variants import VARIANTS
from nas_apps.tasks.rl.envs import make_env
from nas_apps.tasks.rl.network import ActorCritic
from nas_apps.tasks.rl.ppo import PPOObjective
from nas_apps.tasks.rl.rollouts import Rollouts
from nas_apps.tasks.rl.settings import PPO

CPU = Runtime(torch.device("cpu"))
TINY = ("task=rl", "task.game=pattern_env:nas_apps/Bar-v0", "task.nodes=2", "search.clip=0.5", "search.batch_size=16",
        "search.network.channels=[4]", "search.network.features=8", "search.network.cells=1",
        "search.data.ppo.envs=4", "search.data.ppo.steps=8", "search.data.ppo.epochs=2")  # fmt: skip


def tiny(*overrides: str) -> Recipe:
    return load([], [*TINY, *overrides])


def begun(made: Recipe) -> tuple[Learner, Streams]:
    learner, streams = search_learner(made, CPU)
    learner.begin(Progress(0, made.search.epochs))
    return learner, streams


def ratio(learner: Learner, batch: dict[str, Tensor]) -> Tensor:
    """pi / pi_old of a batch, under the draw in force."""
    log_p = learner.objective.network(batch["observation"])[0].log_softmax(-1)
    return (log_p.gather(1, batch["action"][:, None])[:, 0] - batch["action_log_prob"]).exp()


def test_the_super_net_itself_acts() -> None:
    learner, streams = begun(tiny("variant=rl_darts"))
    calls: list[int] = []
    learner.objective.network.register_forward_hook(lambda net, args, out: calls.append(len(args[0])))
    before = streams.train.state_dict()
    first, _ = learner.pull(streams.train, use=0)
    assert calls == [4] * (8 + 1)  # a call a step, and one for the value of the last state
    streams.train.load_state_dict(before)
    with torch.no_grad():
        learner.logits[0][:, 0] += 3.0
    second, _ = learner.pull(streams.train, use=0)
    assert not torch.allclose(first["action_log_prob"], second["action_log_prob"])


ON_POLICY = {
    "rome_v1": ("variant.schedule.samples=1",),
    "rome_v2": ("variant.schedule.samples=1",),
    "p_darts": ("variant.wiring.drop=null", "variant.stages=[]"),
    "rapdarts": ("variant.wiring.drop=null", "variant.stages=[]"),
    **dict.fromkeys(("darts_2nd", "darts_es", "darts_ada"), ("search.weights.optimizer=sgd",)),
    **dict.fromkeys(("msg_das", "la_darts", "random")),  # refused, wants a measured latency, does not search
}
"""What a method needs to be one that learns on-policy."""


@pytest.mark.parametrize("variant", [name for name in VARIANTS if ON_POLICY.get(name, ()) is not None])
def test_what_learns_is_what_acted(variant: str) -> None:
    learner, streams = begun(tiny(f"variant={variant}", "search.logits.init_std=0.5", *ON_POLICY.get(variant, ())))
    for use, stream in enumerate(dict.fromkeys((streams.train, streams.valid))):  # one, where it is single-level
        for _ in range(2):  # of the same rollout, and so under the same draw
            batch, draws = learner.pull(stream, use=use, learn=use == 1)
            with learner.arch.using(draws[0]), torch.no_grad():
                assert (ratio(learner, batch) - 1).abs().max() < 1e-6


def test_under_another_draw_it_would_not_be() -> None:
    learner, streams = begun(tiny("variant=gdas", "search.logits.init_std=0.5"))
    with torch.no_grad():
        learner.objective.network.policy.weight *= 100
    batch, _ = learner.pull(streams.train, use=0)
    with learner.arch.using(learner.arch.draw(cycle=5)), torch.no_grad():
        assert (ratio(learner, batch) - 1).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ("variant=rome_v2",),
            r"^variant.schedule.samples: got 7, and an agent that learns on-policy acts under one draw",
        ),
        (("variant=msg_das",), r"^variant.relax.k: got 2 sub-graphs, and an agent that learns on-policy acts with one"),
        (("variant=p_darts",), r"^variant.wiring.drop: an agent that learns on-policy would drop other things than"),
        (("variant=p_darts", "variant.wiring.drop=null"), r"^variant.stages\[1\].wiring.drop: an agent that learns"),
        (("variant=darts", "search.epoch_steps=3"), r"^search.epoch_steps: got 3; allowed: a multiple of 4, the mini"),
        (("variant=darts", "search.batch_size=12"), r"^search.batch_size: got 12; allowed: what divides a rollout of"),
        (("variant=darts_2nd",), r"^variant.schedule: the look-ahead"),
    ],
)
def test_what_makes_no_sense_on_policy_is_refused(given: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        begun(tiny(*given))


def test_one_pass_moves_weights_and_logits() -> None:
    learner, streams = begun(tiny("variant=rl_darts"))
    before = [p.detach().clone() for p in (*learner.parameters, *learner.logits)]
    passes = []
    learner.logits[0].register_hook(lambda grad: passes.append("backward"))
    Joint()(learner, streams)
    assert passes == ["backward"]
    moved = [not torch.equal(p, old) for p, old in zip((*learner.parameters, *learner.logits), before, strict=True)]
    assert moved[-1]
    assert sum(moved) >= len(moved) - 2  # a unit that is off moves nothing


@pytest.mark.usefixtures("double")
def test_the_logits_gradient_is_that_of_the_loss_of_the_batch() -> None:
    learner, streams = begun(tiny("variant=rl_darts", "search.logits.init_std=0.3"))
    batch, draws = learner.pull(streams.train, use=0, learn=True)
    (grad,), _ = learner.arch_gradients(batch, draws)

    def loss() -> float:
        with torch.no_grad(), learner.loss(batch, learner.arch.draw(learner.progress)) as outcome:
            return float(outcome.loss)

    for row, column in ((0, 0), (1, 2), (2, 4)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                learner.logits[0][row, column] += sign * 1e-5
            ends.append(loss())
            with torch.no_grad():
                learner.logits[0][row, column] -= sign * 1e-5
        assert grad[row, column] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-9)
    assert grad.abs().max() > 1e-6


def test_a_look_ahead_learns_from_what_was_acted_under_its_draw() -> None:
    learner, streams = begun(tiny("variant=darts_2nd", "search.weights.optimizer=sgd", "search.logits.init_std=0.3"))
    pulled = [learner.pull(stream, use=use) for use, stream in enumerate((streams.train, streams.valid))]
    grads, _ = LookAhead()(learner, *pulled)
    assert (grads[0] != 0).any(-1).all()


class _Said(nn.Module):
    def __init__(self, logits: Tensor, value: Tensor) -> None:
        super().__init__()
        self.logits, self.value = nn.Parameter(logits), nn.Parameter(value)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits, self.value


@pytest.mark.usefixtures("double")
def test_the_loss_is_ppos_item_by_item() -> None:
    size, actions, s = 32, 5, PPO(clip=0.1, critic=0.7, entropy=0.03)
    said = _Said(torch.randn(size, actions), torch.randn(size, 1))
    batch = {"observation": torch.zeros(size), "action": torch.randint(actions, (size,)),
             "action_log_prob": torch.randn(size, actions).log_softmax(1)[:, 0], "state_value": torch.randn(size, 1),
             "advantage": torch.randn(size, 1), "value_target": torch.randn(size, 1)}  # fmt: skip
    advantages = batch["advantage"][:, 0].tolist()
    mean = sum(advantages) / size
    deviation = math.sqrt(sum((a - mean) ** 2 for a in advantages) / (size - 1))
    total = 0.0
    for i in range(size):
        p = said.logits[i].softmax(0).tolist()
        a = (advantages[i] - mean) / deviation
        r = p[int(batch["action"][i])] / math.exp(float(batch["action_log_prob"][i]))
        policy = -min(r * a, min(max(r, 1 - s.clip), 1 + s.clip) * a)
        v, old, target = (float(x[i, 0]) for x in (said.value.detach(), batch["state_value"], batch["value_target"]))
        held = old + min(max(v - old, -s.clip), s.clip)
        critic = max((v - target) ** 2, (held - target) ** 2)
        total += policy + s.critic * critic + s.entropy * sum(q * math.log(q) for q in p)
    outcome = PPOObjective(said, s)(batch)
    # torchrl bounds the log of the ratio, at log(1 - clip) and log(1 + clip)
    assert outcome.loss.item() == pytest.approx(total / size, rel=1e-6)
    assert torch.equal(outcome.output, said.logits)
    outcome.loss.backward()
    assert said.logits.grad is not None
    assert said.value.grad is not None


def test_advantages_are_those_of_a_loop_that_stops_at_ends() -> None:
    learner, streams = begun(tiny("variant=rl_darts", "search.data.ppo.gamma=0.9", "search.data.ppo.lam=0.8"))
    steps, envs = 6, 3
    value, after, reward = torch.randn(3, steps, envs)
    done = torch.rand(steps, envs) < 0.3
    found, target = streams.train._advantages(value, after, reward, done)
    expected, running = torch.zeros(steps, envs), torch.zeros(envs)
    for t in reversed(range(steps)):
        goes_on = (~done[t]).float()
        running = reward[t] + 0.9 * goes_on * after[t] - value[t] + 0.9 * 0.8 * goes_on * running
        expected[t] = running
    assert torch.allclose(found[..., 0], expected, atol=1e-5)
    assert torch.allclose(target[..., 0], expected + value, atol=1e-5)


def test_every_transition_is_served_once_a_pass_and_the_next_rollout_is_of_the_next_cycle() -> None:
    learner, streams = begun(tiny("variant=rl_darts"))
    cycles, batches = [], []
    for _ in range(streams.epoch + 1):
        cycles.append(streams.train.cycle)
        batches.append(learner.pull(streams.train, use=0)[0])
    assert streams.epoch == 4
    assert cycles == [0, 0, 0, 0, 1]
    for first in (0, 2):
        served = torch.cat([batch["value_target"] for batch in batches[first : first + 2]])
        assert torch.equal(served.sort(0).values, torch.cat([b["value_target"] for b in batches[:2]]).sort(0).values)
    assert not torch.equal(batches[0]["value_target"], batches[2]["value_target"])


class _Look(nn.Module):
    """A place for an operation, and what is left of the image when nobody looks at where things are."""

    def __init__(self, place: nn.Module, channels: int) -> None:
        super().__init__()
        self.place, self.features = place, channels

    def forward(self, observation: Tensor) -> Tensor:
        x = observation.permute(0, 3, 1, 2) / 255.0
        return functional.relu(self.place(x.repeat(1, 2, 1, 1))).mean((2, 3))


PLANTED: OpTable = {
    "none": lambda args: Zero(),
    "skip_connect": lambda args: nn.Identity(),
    "conv_1x1": lambda args: nn.Conv2d(args.channels, args.channels, 1),
    "conv_3x3": lambda args: nn.Conv2d(args.channels, args.channels, 3, padding=1),
}


def planted(game: str, seed: int) -> list[float]:
    """The weights of the four operations after a short search, where only one of them can tell the bars apart."""
    torch.manual_seed(seed)
    arch = Arch({"look": Choice((tuple(PLANTED),))}, {"op": Softmax()}, init_std=0.0)
    network = ActorCritic(_Look(Mixed(arch, Full()).mix("look", 0, PLANTED, OpArgs(6)), 6), 2)
    objective = PPOObjective(network, PPO(envs=32, steps=4))
    phase = Phase("search", None, None, clip=0.5, logits=Logits(lr=0.03, betas=(0.9, 0.999), weight_decay=0.0))
    adam = torch.optim.Adam(objective.parameters(), 0.02)
    learner = Learner(objective, arch, Optimisation(adam, lambda progress: None), phase, CPU)
    stream = Rollouts(objective, make_env(game, 32, seed=seed), PPO(envs=32, steps=4), 128, CPU, seed)
    for _ in range(120):
        Joint()(learner, Streams(stream, stream, stream.epoch))
    return arch.expected().weights["look"][0].tolist()


def test_the_operation_that_can_see_wins_and_does_not_where_there_is_nothing_to_see() -> None:
    seen = [planted("pattern_env:nas_apps/Bar-v0", seed) for seed in range(3)]
    assert all(weights[3] > 0.9 for weights in seen), seen
    blind = [planted("pattern_env:nas_apps/BarShuffled-v0", seed) for seed in range(3)]
    assert not any(weights[3] == max(weights) for weights in blind), blind


@pytest.mark.parametrize(("lr", "learns"), [(0.003, True), (0.0, False)])
def test_a_search_learns_to_play_and_without_steps_does_not(lr: float, learns: bool) -> None:
    made = tiny("variant=rl_darts", f"search.weights.lr={lr}", f"search.logits.lr={lr}", "search.batch_size=128",
                "search.network.channels=[16]", "search.data.ppo.envs=64", "search.data.ppo.epochs=4",
                "search.data.episodes=256")  # fmt: skip
    learner, streams = begun(made)
    for _ in range(10 * streams.epoch):
        made.variant.schedule(learner, streams)
    with learner.arch.using(learner.arch.expected()):
        figures = made.task.evaluate(learner.objective.eval(), made.search, CPU)
    assert (figures["return"] > 0.9) if learns else (abs(figures["return"] - 0.5) < 4 * figures["return_se"])


def test_a_bilevel_search_has_two_actors_on_levels_of_their_own() -> None:
    pytest.importorskip("procgen")
    made = tiny("variant=darts", "task.game=coinrun", "task.levels=7", "task.start_level=3")
    _, streams = begun(made)
    setups = [stream.env.setup for stream in (streams.train, streams.valid)]
    assert [(setup.start_level, setup.levels) for setup in setups] == [(3, 3), (6, 4)]
    with pytest.raises(UserError, match=r"^task.levels: got 1, and a bilevel search"):
        begun(tiny("variant=darts", "task.game=coinrun", "task.levels=1"))
