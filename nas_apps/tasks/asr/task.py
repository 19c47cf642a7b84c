"""Speech recognition: the encoder of ESPnet's attention and CTC model is searched with that model's own loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from nas_apps.core.bounds import COUNT, SHARE, bounded
from nas_apps.core.cache import default_cache
from nas_apps.core.cell import Fill
from nas_apps.core.errors import UserError
from nas_apps.core.genotype import Genotype
from nas_apps.core.phase import Phase
from nas_apps.core.runtime import Runtime
from nas_apps.core.seeds import mix
from nas_apps.core.space import Space
from nas_apps.core.tagged import Tagged
from nas_apps.core.task import Optimisation, Streams
from nas_apps.tasks.asr import export
from nas_apps.tasks.asr.batches import Batches, Speech, evaluation_batches
from nas_apps.tasks.asr.cer import cer
from nas_apps.tasks.asr.decode import Decoding, beam_search, ctc_greedy
from nas_apps.tasks.asr.digits import DigitStrings
from nas_apps.tasks.asr.encoder import CellEncoder, Network
from nas_apps.tasks.asr.features import Mels
from nas_apps.tasks.asr.model import Model, build_model
from nas_apps.tasks.asr.objective import AUGMENT, SpeechObjective
from nas_apps.tasks.asr.optimisation import Weights, optimisation
from nas_apps.tasks.asr.spaces import OPS, ASRSpace, find
from nas_apps.tasks.asr.speech import MINI, Source
from nas_apps.tasks.asr.synth import Mini

FRAMES = 1250  # 10 s of speech: the utterance that costs are told of


@dataclass(frozen=True)
class Recogniser:
    """The settings of a network. encoder: what is searched. model: what is around it."""

    encoder: Network = Network()
    model: Model = Model()

    def deeper(self, times: float) -> Recogniser:
        """As many times the cells of the encoder."""
        return replace(self, encoder=self.encoder.deeper(times))

    def sizes(self) -> Iterator[list[Recogniser]]:
        """Those of the encoder, whose width the decoder shares."""
        for row in self.encoder.sizes():
            yield [replace(self, encoder=encoder) for encoder in row]


@dataclass(frozen=True)
class Decoded:
    """What an evaluation decodes. most: utterances of each part, from all over it; all of them when not given.
    augment_logits: whether the architecture learns from masked features too."""

    most: int | None = None
    augment_logits: bool = False

    def __post_init__(self) -> None:
        bounded(self, COUNT, "most")


@dataclass(frozen=True)
class ASRTask:
    """Characters from speech, by attention and CTC, without a language model."""

    data: str = MINI
    """"mini", a small corpus that is spoken here; a folder of the Free Spoken Digit Dataset; a corpus as published."""
    subset: str = "M"
    """Of WenetSpeech: which training set."""
    skip_faulty: bool = False
    """Leave out utterances whose audio is at fault, and say so."""
    space: Literal["cell", "module"] = "cell"
    nodes: int = 4
    keep: int = 1
    """Edges into each node of a derived cell."""
    ops: tuple[str, ...] = OPS
    train_share: float = 0.5
    """Share of the training speech that the weights learn from in a bilevel search; no speaker is in both parts."""
    cache: str | None = None
    """Where features and generated corpora are kept; the user's own cache folder when not given."""
    mels: Mels = Mels()
    mini: Mini = field(default_factory=Mini)
    digits: DigitStrings = field(default_factory=DigitStrings)
    decoding: Decoding = Decoding()

    network: ClassVar[type] = Recogniser
    weights: ClassVar[type] = Weights
    batches: ClassVar[type] = Decoded
    goal: ClassVar[tuple[str, Literal["max", "min"]]] = ("cer", "min")
    twice_differentiable: ClassVar[bool] = False
    classifies: ClassVar[bool] = True
    on_policy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        bounded(self, SHARE, "train_share")
        self._space()

    def choices(self, *, edges: int = 0) -> Space:
        return self._space().choices(edges=edges)

    def build(self, fill: Fill, phase: Phase) -> SpeechObjective:
        settings: Recogniser = phase.network
        source = self.source()
        encoder = CellEncoder(fill, self._space(), settings.encoder, self.mels.bins)
        statistics = source.statistics if settings.model.normalize == "global" else None
        return SpeechObjective(build_model(encoder, source.tokens.list, settings.model, statistics))

    def optimisation(self, objective: nn.Module, phase: Phase) -> Optimisation:
        return optimisation(objective, phase.weights)

    def streams(self, objective: nn.Module, phase: Phase, runtime: Runtime, *, seed: int, halves: bool) -> Streams:
        if phase.drop_path:
            raise UserError(
                f"{phase.name}.drop_path: an operation here carries its residual: an utterance would be lost with it; "
                "allowed: 0"
            )
        source = self.source()
        parts = source.train(self.train_share, split=halves)
        later = self._held_out(phase)  # audio at fault and a beam too wide are told of before anything runs
        self.decoding.check(len(source.tokens))
        if runtime.leads:
            source.say_faults(dict(zip(("train", "train, the architecture's half"), parts, strict=False)) | later)
        seed = mix(seed, phase.name == "train")
        train = Batches(parts[0], phase.batch_size, runtime, seed=seed)
        if not halves:
            return Streams(train, train, train.epoch)
        valid = Batches(parts[1], phase.batch_size, runtime, seed=seed, use="valid")
        return Streams(train, valid if phase.data.augment_logits else Tagged(valid, **{AUGMENT: False}), train.epoch)

    def evaluate(self, objective: nn.Module, phase: Phase, runtime: Runtime) -> dict[str, float]:
        """Character error rates by beam search (`cer`) and on CTC's best path (`cer_ctc_greedy`), with the loss and
        the decoder's accuracy while it is shown the text. In a search, which never reads the dev and test sets, of the
        architecture's half of the training set; of a final training on the test set, and as `dev_...` on the dev set.
        """
        return self.figures(objective, phase, runtime)

    def figures(
        self, objective: nn.Module, phase: Phase, runtime: Runtime, heard: Mapping[str, Mapping[str, str]] | None = None
    ) -> dict[str, float]:
        """The same; heard: what a beam search elsewhere heard, by part and utterance, in place of that here."""
        of = {"dev": "dev_"} if phase.name == "train" else {}
        return {
            f"{of.get(part, '')}{name}": value
            for part, speech in self._held_out(phase).items()
            for name, value in self._decoded(objective, phase, runtime, speech, heard and heard[part]).items()
        }

    def example(self, objective: nn.Module, phase: Phase) -> tuple[nn.Module, tuple[object, ...]]:
        """The encoder: the rest is the same whatever is searched."""
        inputs = torch.zeros(1, FRAMES, self.mels.bins), torch.tensor([FRAMES])
        return objective.get_submodule("network.encoder"), inputs

    def data_facts(self) -> str:
        corpus = self.source().corpus
        counts = ", ".join(f"{len(getattr(corpus, part)):,} {part}" for part in ("train", "dev", "test"))
        dropped = "".join(f"; left out: {number} {reason}" for reason, number in corpus.dropped.items())
        return f"{self.data}: {counts} utterances, {len(self.source().tokens):,} tokens{dropped}"

    def find(self, name: str) -> Genotype:
        return find(name, self._space())

    def look_up(self, genotype: Genotype, table: Path) -> dict[str, float]:
        raise UserError(f"{table}: task asr has no tables of known results")

    def export(self, objective: nn.Module, genotype: Genotype, phase: Phase, folder: Path) -> None:
        """Write what ESPnet's own decoding takes: config.yaml and model.pth."""
        export.write(folder, objective.network, self.espnet_config(genotype, phase))

    def espnet_config(self, genotype: Genotype, phase: Phase) -> dict[str, Any]:
        """The part of ESPnet's config.yaml that says what the model of a phase is."""
        source, settings = self.source(), phase.network
        return export.model_config(
            genotype,
            settings.encoder,
            settings.model,
            tokens=source.tokens.list,
            frontend=self.mels.conf(source.corpus.sample_rate),
            statistics=source.statistics.absolute() if settings.model.normalize == "global" else None,
        )

    def load(self, folder: Path) -> Any:
        """The trained recogniser, as ESPnet's own decoding."""
        return export.load(folder)

    def _space(self) -> ASRSpace:
        return ASRSpace(self.space, self.nodes, self.keep, self.ops)

    def source(self) -> Source:
        """The data, read or made once in this process."""
        cache = default_cache() if self.cache is None else Path(self.cache)
        return _source(Source(self.data, cache, self.mels, self.mini, self.digits, self.subset, self.skip_faulty))

    def _held_out(self, phase: Phase) -> dict[str, Speech]:
        """What is decoded, by its part."""
        source, most = self.source(), phase.data.most
        if phase.name == "search":
            return {"the part of train that is decoded": source.held_out(self.train_share, most)}
        return {part: source.heard(part, most) for part in ("test", "dev")}

    def _decoded(
        self, objective: nn.Module, phase: Phase, runtime: Runtime, speech: Speech, known: Mapping[str, str] | None
    ) -> dict[str, float]:
        source, network = self.source(), objective.network
        sums = {"loss": 0.0, "ctc_loss": 0.0, "attention_loss": 0.0, "accuracy": 0.0}
        said: list[tuple[str, str, str]] = []  # what was said, what the beam search heard, and what CTC did
        objective.eval()
        for batch, utterances in evaluation_batches(speech, phase.batch_size, runtime):
            with torch.no_grad():
                outcome = objective(batch)
            for name, value in {"loss": outcome.loss, **outcome.stats}.items():
                sums[name] += float(value) * len(utterances)
            speeches, lengths = batch["speech"], batch["speech_lengths"]
            if known is None:
                found = beam_search(network, [f[:n] for f, n in zip(speeches, lengths, strict=True)], self.decoding)
                heard = [source.tokens.decode(one) for one in found]
            else:
                heard = [known.get(utterance.id, "") for utterance in utterances]
            greedy = [source.tokens.decode(one) for one in ctc_greedy(network, speeches, lengths)]
            said += [(u.text, h, g) for u, h, g in zip(utterances, heard, greedy, strict=True)]
        heard_by_all = [one for mine in runtime.gather(said) for one in mine]
        totals = runtime.gather(sums)
        lost = [(u.text, "", "") for found in speech.left_out.values() for u in found]  # nothing is said of them
        pairs = heard_by_all + lost
        figures, paths = (cer([r for r, *_ in pairs], [pair[k] for pair in pairs]) for k in (1, 2))
        return {
            "cer": figures.rate,
            "insertions": figures.insertions,
            "deletions": figures.deletions,
            "substitutions": figures.substitutions,
            "cer_ctc_greedy": paths.rate,
            **{name: sum(total[name] for total in totals) / len(heard_by_all) for name in sums},
        }


@lru_cache(maxsize=4)
def _source(source: Source) -> Source:
    """The one that keeps what it has read."""
    return source
