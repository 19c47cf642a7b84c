"""The loop, of a search and of a final training alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.learner import Learner
from nas_apps.core.parts.schedule import Schedule
from nas_apps.core.progress import Progress
from nas_apps.core.report import Report
from nas_apps.core.task import Streams


def run(
    learner: Learner,
    schedule: Schedule,
    streams: Streams,
    *,
    report: Report,
    checkpoints: Checkpoints,
    evaluate: Callable[[], Mapping[str, float]],
) -> None:
    """Take every step from the last checkpoint to the end of the phase.

    Args:
        schedule: one step.
        evaluate: figures at the end of an epoch.
    """
    phase = learner.phase
    epoch_steps = phase.epoch_steps or streams.epoch
    steps = phase.epochs * epoch_steps
    start = checkpoints.restore(learner, streams)
    report.begin(start, steps)
    for step in range(start, steps):
        epoch, done = step // epoch_steps, step + 1
        learner.begin(Progress(epoch, phase.epochs))
        report.step(done, epoch, schedule(learner, streams))
        if done % epoch_steps == 0 or checkpoints.due(done) or done == steps:
            learner.settle()
        if done % epoch_steps == 0:
            due = (epoch + 1) % phase.evaluate_every == 0 or done == steps
            report.epoch(done, epoch, learner.arch, evaluate() if due else {})
        checkpoints.save(learner, streams, done, last=done == steps)
    report.end()
