"""The character error rate of transcripts, by edit distance.

What an attention decoder says while it is shown the true text is scored nowhere here: such figures are far too good,
and are called accuracies elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Figures:
    """What hypotheses have wrong: counts over all of them. characters: of the references; wrong: sentences with errors.

    >>> cer(["abcd"], ["abxd"]).rate
    0.25
    """

    characters: int
    insertions: int
    deletions: int
    substitutions: int
    sentences: int
    wrong: int

    @property
    def errors(self) -> int:
        """Insertions, deletions and substitutions."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """The character error rate, 1 for as many errors as there are characters. Where there are none: 0 without an
        error, infinite with one."""
        if self.characters:
            return self.errors / self.characters
        return inf if self.errors else 0.0


def cer(references: Sequence[str], hypotheses: Sequence[str]) -> Figures:
    """The errors of hypotheses, each against its reference; blanks count on neither side, and `<unk>` is one character.

    >>> cer(["a b c", "de"], ["abxc", "d"])
    Figures(characters=5, insertions=1, deletions=1, substitutions=0, sentences=2, wrong=2)
    """
    pairs = [(_characters(r), _characters(h)) for r, h in zip(references, hypotheses, strict=True)]
    found = [edits(*pair) for pair in pairs]
    insertions, deletions, substitutions = (sum(kind) for kind in zip((0, 0, 0), *found, strict=True))
    characters, wrong = sum(len(r) for r, _ in pairs), sum(any(edit) for edit in found)
    return Figures(characters, insertions, deletions, substitutions, len(pairs), wrong)


def edits(reference: Sequence[object], hypothesis: Sequence[object]) -> tuple[int, int, int]:
    """The least number of insertions, deletions and substitutions, of equally many those with fewest substitutions.

    >>> edits("abc", "xabd")
    (1, 0, 1)
    """
    # One number to minimise: an edit costs `whole`, and a substitution 1 more, of which there are less than `whole`.
    whole = len(reference) + len(hypothesis) + 1
    row = [whole * i for i in range(len(hypothesis) + 1)]
    for true in reference:
        diagonal, row[0] = row[0], row[0] + whole
        for i, said in enumerate(hypothesis, 1):
            swapped = diagonal + (0 if true == said else whole + 1)
            diagonal, row[i] = row[i], min(row[i] + whole, row[i - 1] + whole, swapped)
    errors, substitutions = divmod(row[-1], whole)
    longer = len(hypothesis) - len(reference)  # insertions less deletions
    moved = errors - substitutions
    return (moved + longer) // 2, (moved - longer) // 2, substitutions


def _characters(text: str) -> str:
    return "".join(text.split()).replace("<unk>", "\ufffd")
