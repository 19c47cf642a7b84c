"""Character error rates."""

from __future__ import annotations

import random
from math import inf

import pytest

from nas_apps.tasks.asr.cer import cer, edits


def alignments(reference: str, hypothesis: str) -> set[tuple[int, int, int]]:
    """(insertions, deletions, substitutions) of every way from one string to the other."""
    if not reference or not hypothesis:
        return {(len(hypothesis), len(reference), 0)}
    swapped = reference[0] != hypothesis[0]
    return {
        *((i, d, s + swapped) for i, d, s in alignments(reference[1:], hypothesis[1:])),
        *((i + 1, d, s) for i, d, s in alignments(reference, hypothesis[1:])),
        *((i, d + 1, s) for i, d, s in alignments(reference[1:], hypothesis)),
    }


def texts(rng: random.Random, number: int, longest: int) -> list[str]:
    return ["".join(rng.choices("天地人和大", k=rng.randint(0, longest))) for _ in range(number)]


def test_edits_are_the_best_of_all_alignments() -> None:
    rng = random.Random(0)
    for reference, hypothesis in zip(texts(rng, 60, 5), texts(rng, 60, 5), strict=True):
        best = min(alignments(reference, hypothesis), key=lambda found: (sum(found), found[2]))
        assert edits(reference, hypothesis) == best


def test_errors_equal_an_independent_count() -> None:
    editdistance = pytest.importorskip("editdistance")
    rng = random.Random(1)
    references, hypotheses = texts(rng, 80, 40), texts(rng, 80, 40)
    figures = cer(references, hypotheses)
    counts = [editdistance.eval(*pair) for pair in zip(references, hypotheses, strict=True)]
    assert figures.errors == sum(counts)
    assert figures.rate == sum(counts) / sum(map(len, references))
    assert (figures.sentences, figures.wrong) == (80, sum(map(bool, counts)))


def test_each_kind_of_error_is_counted_as_what_it_is() -> None:
    figures = cer(["天地人和", "天地", "天"], ["天地大和", "天地人人", ""])
    assert (figures.insertions, figures.deletions, figures.substitutions) == (2, 1, 1)


def test_blanks_count_on_neither_side() -> None:
    assert cer(["天 地\u3000人"], ["天地 人 "]).rate == 0


def test_an_unknown_is_one_character() -> None:
    assert cer(["天地人"], ["天<unk>人"]).substitutions == cer(["天地人"], ["天<unk>人"]).errors == 1


def test_the_rate_without_a_character_is_zero_or_infinite() -> None:
    assert cer(["", ""], ["", ""]).rate == 0
    assert cer([""], ["天"]).rate == inf
    assert cer([], []).rate == 0
    assert cer(["", "天"], ["地", "天"]).rate == 1


def test_transcripts_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        cer(["天", "地"], ["天"])
