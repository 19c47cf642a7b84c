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
        first_epoch: that of the stage, of a search that has several.
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
        first_epoch: int = 0,
    ) -> None:
        self.stop, self.learner, self.streams, self.report = stop, learner, streams, report
        self.derive, self.exact, self.first_epoch = derive, exact, first_epoch
        self._adaptive = adaptive(stop)

    def figures(self) -> dict[str, float]:
        """Figures of the search at the end of the present epoch."""
        learner = self.learner
        arch, progress = learner.arch, learner.progress
        found = figures(arch.space, arch.expected(progress), self.derive())
        every = (learner.phase.eigenvalue_every, self.stop.every if isinstance(self.stop, EigenvalueStop) else None)
        if any(n and (self.first_epoch + progress.epoch) % n == 0 for n in every):
            found[EIGENVALUE] = dominant_eigenvalue(learner, self.streams.valid, exact=self.exact)
        return found

    def verdict(self) -> Verdict | None:
        """What the stop rule says of the search as it stands, the same on every rank."""
        runtime = self.learner.runtime
        if self._adaptive and not self._adaptive.returns(self._decays()):
            return None
        verdict: Verdict | None = runtime.gather(self._look() if runtime.leads else None)[0]
        return verdict

    def judge(self, checkpoints: Checkpoints, done: int) -> tuple[int, Verdict | None]:
        """Look at the end of an epoch; the step to go on from, and the verdict that ends the search."""
        verdict, rule, epoch = self.verdict(), self._adaptive, self.learner.progress.epoch
        if rule is None:
            return done, verdict
        if verdict is not None:
            return self._go_back(rule, verdict, checkpoints), None
        times = rule.returns(self._decays())  # each may go back as far again
        if times and epoch % rule.every == 0:
            checkpoints.keep(self.learner, self.streams, done, epoch, reach=rule.reach * times)
        return done, None

    def _go_back(self, rule: EigenvalueStop, verdict: Verdict, checkpoints: Checkpoints) -> int:
        assert rule.adapt is not None
        decays = [max(decay, min(decay * rule.adapt, rule.cap)) for decay in self._decays()]
        done = checkpoints.go_back(self.learner, self.streams, verdict.epoch)
        for group, decay in zip(self.learner.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        if self.learner.runtime.leads:
            words = "weight decay " + ", ".join(f"{decay:g}" for decay in dict.fromkeys(decays))
            message = f"epoch {verdict.at}: {verdict.reason}: back to epoch {verdict.epoch}, with {words}"
            logs.warn(self.report.folder, done, words, message)
        checkpoints.save(self.learner, self.streams, done, last=True)  # before the logs are cut, in case of a kill
        self.report.go_back(done, verdict.epoch)
        return done

    def _decays(self) -> list[float]:
        return [float(group["weight_decay"]) for group in self.learner.optimizer.param_groups]

    def _look(self) -> Verdict | None:
        if isinstance(self.stop, Never):
            every = self.learner.phase.eigenvalue_every
            others: dict[str, StopRule] = {"skip_count": SkipCount(), "rank_stability": RankStability()}
            for name, rule in (others if every is None else {**others, "eigenvalue": EigenvalueStop(every)}).items():
                self._say(name, self._ask(rule), f"variant.stop={name} would have ended the search")
            return None
        verdict = self._ask(self.stop)
        self._say("stop", None if self._adaptive else verdict, "the search ends")
        return verdict

    def _ask(self, rule: StopRule) -> Verdict | None:
        history = [entry for entry in self.report.history if entry["epoch"] >= self.first_epoch]
        last = self.first_epoch + self.learner.phase.epochs
        return ask(rule, history, self.report.space or self.learner.arch.space, last)

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
