"""What every task is held to, for tasks of ours and of others.

`check_task("yours", {...})` raises an AssertionError that says which law was broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nas_apps.core.arch import Arch, one_hot
from nas_apps.core.cell import Fixed, Mixed
from nas_apps.core.config import Recipe, build
from nas_apps.core.inherit import take
from nas_apps.core.learner import Learner, gradients
from nas_apps.core.parts.derive import Random
from nas_apps.core.parts.relax import Softmax
from nas_apps.core.parts.wiring import Full
from nas_apps.core.price import describe
from nas_apps.core.runtime import Runtime
from nas_apps.core.task import Batch, Stream, Streams, canonical


def check_task(name: str, settings: Mapping[str, Any]) -> None:
    """Hold the task called `name` to the laws, at the sizes in `settings` (a recipe without its task's name).

    >>> check_task("toy", {"task": {"points": 24}, "search": {"batch_size": 6}, "train": {"batch_size": 6}})
    """
    recipe = build({**settings, "task": {"name": name, **settings.get("task", {})}})
    learner, streams = _learner(recipe)
    _check_space(recipe)
    _check_objective(recipe, learner, streams)
    with learner.arch.using(learner.arch.expected()):  # where data come from acting, it is acted under a draw
        for stream in (streams.train, streams.valid):
            _check_stream(stream)
        batch = next(streams.train)
    _check_fill(recipe, learner, batch)
    _check_final(recipe)


def _cpu() -> Runtime:
    return Runtime(torch.device("cpu"))


def _learner(recipe: Recipe) -> tuple[Learner, Streams]:
    space = recipe.task.choices()
    arch = Arch(space, {choice.kind: Softmax() for choice in space.values()}, init_std=0.5)
    objective = recipe.task.build(Mixed(arch, Full()), recipe.search)
    streams = recipe.task.streams(objective, recipe.search, _cpu(), seed=0, halves=True)
    return Learner(objective, arch, recipe.task.optimisation(objective, recipe.search), recipe.search, _cpu()), streams


def _check_space(recipe: Recipe) -> None:
    plain, edged = recipe.task.choices(), recipe.task.choices(edges=1)
    assert plain, "the space is empty"
    assert {n: c for n, c in edged.items() if c.kind != "edge"} == plain, "edges change the other choices"


def _check_objective(recipe: Recipe, learner: Learner, streams: Streams) -> None:
    learner.begin(learner.progress)
    batch, (draw,) = learner.pull(streams.train, use=0)
    with learner.loss(batch, draw) as outcome:
        assert outcome.loss.shape == (), f"the loss is not a scalar: {tuple(outcome.loss.shape)}"
        assert outcome.loss.isfinite(), "the loss is not finite"
        assert int(outcome.weight) > 0, "an outcome's weight is the number of its items"
        grads = gradients(outcome.loss, learner.logits, create_graph=recipe.task.twice_differentiable)
        assert all((grad != 0).any(-1).all() for grad in grads), "a row of logits gets no gradient"
        if recipe.task.twice_differentiable:
            second = gradients(sum((g.square().sum() for g in grads), torch.zeros(())), learner.logits)
            assert all(grad.isfinite().all() for grad in second), "the second derivative is not finite"
    with learner.arch.using(learner.arch.expected()):
        figures = recipe.task.evaluate(learner.objective.eval(), recipe.search, _cpu())
    assert recipe.task.goal[0] in figures, f"evaluate does not answer the goal's {recipe.task.goal[0]!r}"


def _check_stream(stream: Stream) -> None:
    next(stream)
    state, cycle = stream.state_dict(), stream.cycle
    first = [next(stream) for _ in range(3)]
    assert stream.cycle >= cycle, "a stream's cycle falls"
    stream.load_state_dict(state)
    assert stream.cycle == cycle, "a stream's cycle is not in its state"
    again = [next(stream) for _ in range(3)]
    assert _equal(first, again), "a stream taken up again serves other batches"


def _check_fill(recipe: Recipe, learner: Learner, batch: Batch) -> None:
    space = recipe.task.choices()
    for seed in range(3):
        genotype = canonical(recipe.task, Random()(space, {}, torch.Generator().manual_seed(seed)))
        fixed = recipe.task.build(Fixed(space, genotype), recipe.search)
        taken = take(learner.objective.state_dict(), fixed)
        assert taken.missing is None, f"the super-net has no weights for {taken.missing}"
        learner.objective.eval(), fixed.eval()
        with torch.no_grad(), learner.arch.using(one_hot(space, genotype)):
            expected, found = learner.objective(batch).loss, fixed(batch).loss
        assert torch.equal(expected, found), "the super-net at a cell's one-hot draw is not the network of the cell"


def _check_final(recipe: Recipe) -> None:
    space = recipe.task.choices()
    genotype = canonical(recipe.task, Random()(space, {}, torch.Generator().manual_seed(0)))
    objective = recipe.task.build(Fixed(space, genotype), recipe.train)
    streams = recipe.task.streams(objective, recipe.train, _cpu(), seed=0, halves=False)
    assert objective(next(streams.train)).loss.isfinite(), "the final network's loss is not finite"
    assert describe(recipe.task, genotype, recipe.train)["params"] > 0, "the part whose costs count has none"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
