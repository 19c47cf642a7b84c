"""What looks at a search at the end of each epoch: figures of its state, its stop rule, and warnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from nas_apps.core import logs
from nas_apps.core.checkpoint import Checkpoints
from nas_apps.core.curvature import dominant_eigenvalue
from nas_apps.core.diagnosis import figures
from nas_apps.core.genotype import Genotype
from nas_apps.core.learner import Learner
from nas_apps.core.parts.stop import (
    EIGENVALUE,
    EigenvalueStop,
    History,
    Never,
    RankStability,
    SkipCount,
    StopRule,
    Verdict,
)
from nas_apps.core.report import Report
from nas_apps.core.space import Space
from nas_apps.core.task import Streams


@final
class Watch:
    """Looks at a search, and may end it or send it back. It holds no state: all it goes by is in the logs.

    Args:
        stop: the rule that is obeyed. Under `never`, the others are asked, and what they say is a warning.
        derive: the genotype at this moment.
        exact: whether the loss has a second derivative.
    """

    def __init__(
        self,
        stop: StopRule,
        learner: Learner,
        streams: Streams,
        report: Report,
        *,
        derive: Callable[[], Genotype],
        exact: bool,
    ) -> None:
        self.stop, self.learner, self.streams, self.report = stop, learner, streams, report
        self.derive, self.exact = derive, exact
        self._adaptive = adaptive(stop)

    @property
    def adapts(self) -> bool:
        """Whether the search is sent back, and never ended."""
        return self._adaptive is not None

    def figures(self) -> dict[str, float]:
        """Figures of the search at the end of the present epoch."""
        learner = self.learner
        arch, progress = learner.arch, learner.progress
        found = figures(arch.space, arch.expected(progress), self.derive())
        every = (learner.phase.eigenvalue_every, self.stop.every if isinstance(self.stop, EigenvalueStop) else None)
        if any(n and progress.epoch % n == 0 for n in every):
            found[EIGENVALUE] = dominant_eigenvalue(learner, self.streams.valid, exact=self.exact)
        return found

    def verdict(self) -> Verdict | None:
        """What the stop rule says of the search as it stands, the same on every rank."""
        runtime = self.learner.runtime
        if self._adaptive and not any(0 < decay < self._adaptive.cap for decay in self._decays()):
            return None
        verdict: Verdict | None = runtime.gather(self._judge() if runtime.leads else None)[0]
        return verdict

    def keep(self, checkpoints: Checkpoints, done: int) -> None:
        """Keep the state of this epoch, if the search may be sent back to it."""
        epoch = self.learner.progress.epoch
        if self._adaptive and epoch % self._adaptive.every == 0:
            checkpoints.keep(self.learner, self.streams, done, epoch, reach=self._adaptive.reach)

    def go_back(self, checkpoints: Checkpoints, verdict: Verdict) -> int:
        """Go back to the epoch of a verdict with a stronger weight decay; the step that the search goes on from."""
        rule, learner = self._adaptive, self.learner
        assert rule is not None
        assert rule.adapt is not None
        decays = [max(decay, min(decay * rule.adapt, rule.cap)) for decay in self._decays()]
        done = checkpoints.go_back(learner, self.streams, verdict.epoch)
        for group, decay in zip(learner.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        if learner.runtime.leads:
            words = ", ".join(f"{decay:g}" for decay in dict.fromkeys(decays))
            message = f"epoch {verdict.at}: {verdict.reason}: back to epoch {verdict.epoch}, with weight decay {words}"
            logs.warn(self.report.folder, done, f"weight decay {words}", message)
        checkpoints.save(
            learner, self.streams, done, last=True
        )  # before the logs are cut: a kill between loses nothing
        return done

    def _decays(self) -> list[float]:
        return [float(group["weight_decay"]) for group in self.learner.optimizer.param_groups]

    def _judge(self) -> Verdict | None:
        if isinstance(self.stop, Never):
            every = self.learner.phase.eigenvalue_every
            others: dict[str, StopRule] = {"skip_count": SkipCount(), "rank_stability": RankStability()}
            for name, rule in (others if every is None else {**others, "eigenvalue": EigenvalueStop(every)}).items():
                self._say(name, self._ask(rule), f"variant.stop={name} would have ended the search")
            return None
        verdict = self._ask(self.stop)
        self._say("stop", None if self.adapts else verdict, "the search ends")
        return verdict

    def _ask(self, rule: StopRule) -> Verdict | None:
        return ask(rule, self.report.history, self.learner.arch.space, self.learner.phase.epochs)

    def _say(self, about: str, verdict: Verdict | None, what: str) -> None:
        if verdict is not None:
            message = f"epoch {verdict.at}: {verdict.reason}: {what} with the cell of epoch {verdict.epoch}"
            logs.warn(self.report.folder, self.report.history[-1]["step"], about, message)


def ask(stop: StopRule, history: History, space: Space, epochs: int) -> Verdict | None:
    """What a rule says at the end of an epoch that is not the last of `epochs`."""
    return stop(history, space) if history and history[-1]["epoch"] + 1 < epochs else None


def adaptive(stop: StopRule) -> EigenvalueStop | None:
    """The rule, if it sends a search back instead of ending it."""
    return stop if isinstance(stop, EigenvalueStop) and stop.adapt is not None else None
