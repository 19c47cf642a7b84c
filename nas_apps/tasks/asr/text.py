"""Characters as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

BLANK, UNKNOWN, ENDS = "<blank>", "<unk>", "<sos/eos>"

_Ids = list[int]


@dataclass(frozen=True)
class Tokens:
    """The symbols a model knows, in ESPnet's order: blank, unknown, characters, start and end.

    >>> Tokens.of(["上海", "上下"]).list
    ('<blank>', '<unk>', '上', '下', '海', '<sos/eos>')
    """

    list: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Tokens:
        """The characters of training texts, the most frequent first. Unlike in ESPnet, where the first met goes first,
        characters of one frequency are in the order of their code points: the order of the texts is of no effect."""
        counts = Counter[str]()
        for text in texts:
            counts.update(text)
        characters = sorted(counts, key=lambda character: (-counts[character], character))
        return cls((BLANK, UNKNOWN, *characters, ENDS))

    def __len__(self) -> int:
        return len(self.list)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.list)}

    def encode(self, text: str) -> _Ids:
        """The numbers of a text's characters; those that training did not have are all `<unk>`."""
        return [self._ids.get(character, 1) for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of numbers, without blanks, starts and ends; an unknown is `<unk>`, as ESPnet writes it."""
        silent = (0, len(self.list) - 1)
        return "".join(self.list[number] for number in ids if number not in silent)

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """The characters that training did not have, and how often they occur."""
        return Counter(character for text in texts for character in text if character not in self._ids)

    def notice(self, part: str, texts: Sequence[str]) -> str | None:
        """What to tell a user whose `part` has characters that no model trained here can say; None where it has not."""
        unknown = self.unknown(texts)
        if not unknown:
            return None
        some = " ".join(character for character, _ in unknown.most_common(5))
        return (
            f"{part}: {unknown.total()} of {sum(map(len, texts))} characters do not occur in training ({len(unknown)} "
            f"different ones: {some}{' ...' if len(unknown) > 5 else ''}) and count as errors"
        )
