"""The loop, of a search and of a final training alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.learner import Learner
from nas_apps.core.parts.schedule import Schedule
from nas_apps.core.parts.stop import Verdict
from nas_apps.core.progress import Span
from nas_apps.core.report import Report
from nas_apps.core.task import Streams
from nas_apps.core.watch import Watch


def run(
    learner: Learner,
    schedule: Schedule,
    streams: Streams,
    report: Report,
    checkpoints: Checkpoints,
    *,
    evaluate: Callable[[], Mapping[str, float]],
    watch: Watch | None = None,
    span: Span | None = None,
) -> tuple[int, Verdict | None]:
    """Take every step from the last checkpoint to the end; the steps taken, and what ended it early.

    `evaluate` gives figures at the end of an epoch, `watch` looks at a search and may end it or send it back, `span` is
    the epochs to take, all of the phase where not given.
    """
    phase = learner.phase
    epoch_steps = phase.epoch_steps or streams.epoch
    span = span or Span(0, phase.epochs)
    steps = span.last * epoch_steps
    done = checkpoints.restore(learner, streams) or span.first * epoch_steps
    report.begin(done, steps)
    verdict = watch.verdict() if watch else None
    while done < steps and verdict is None:
        epoch, done = done // epoch_steps, done + 1
        learner.begin(span.at(epoch), span.rates(epoch))
        report.step(done, epoch, schedule(learner, streams))
        ends = done % epoch_steps == 0
        if ends or checkpoints.due(done):
            learner.settle()
        if ends:
            figures = watch.figures() if watch else {}
            if (epoch + 1) % phase.evaluate_every == 0 or done == steps:
                figures |= {f"evaluation/{name}": value for name, value in evaluate().items()}
            report.epoch(done, epoch, learner, figures)
            if watch:
                done, verdict = watch.judge(checkpoints, done)
        checkpoints.save(learner, streams, done, last=done == steps or verdict is not None)
    report.end()
    return done, verdict
