"""One synthetic speaker: a program of its own that reads a job and says its texts.

espeak-ng's library is under the GPL, so it is loaded in this process and in no other; nothing but the standard library
is imported, and the program is run by its path, once for each speaker, since the library's state leaks from one text to
the next. Reads JSON from the standard input; writes, for each text, the number of samples (int32) and the samples
(int16), all little-endian. What went wrong is one line on the standard error, with status 1.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from collections.abc import Mapping
from typing import Any

RATE = 22050
"""Samples a second that espeak-ng makes."""

_SYNCHRONOUS, _UTF8, _CHARACTERS = 2, 1, 1
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Mistake(Exception):
    """What the process ends with status 1 for."""


class Voice:
    """espeak-ng, set to one voice."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._library = library = ctypes.CDLL(job["library"])
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        if (rate := library.espeak_Initialize(_SYNCHRONOUS, 0, job["data"].encode(), 0)) != RATE:
            raise Mistake(f"espeak-ng starts with {rate} samples a second, not {RATE}")
        self._heard: list[bytes] = []
        self._callback = _Callback(self._hear)  # kept: the library holds no reference to it
        library.espeak_SetSynthCallback(self._callback)
        if library.espeak_SetVoiceByName(job["voice"].encode()):
            raise Mistake(f"espeak-ng has no voice {job['voice']!r}")
        for name, number in _PARAMETERS.items():
            library.espeak_SetParameter(number, job[name], 0)

    def _hear(self, samples: Any, number: int, events: object) -> int:
        if samples and number > 0:
            self._heard.append(ctypes.string_at(samples, 2 * number))
        return 0

    def phonemes(self, text: str) -> str:
        """How a text is read; a language the voice falls back to is named in it, in brackets."""
        place, found = ctypes.c_char_p(text.encode()), b""
        while place.value is not None:  # a clause at a time
            found += self._library.espeak_TextToPhonemes(ctypes.byref(place), _UTF8, 0) or b""
        return found.decode()

    def say(self, text: str, seed: int) -> bytes:
        """The samples of a text."""
        phonemes = self.phonemes(text)
        if not phonemes.strip() or "(en)" in phonemes:
            raise Mistake(f"espeak-ng does not read {text!r} as Mandarin but as {phonemes!r}")
        self._library.espeak_ng_SetRandSeed(seed)
        self._heard.clear()
        encoded = text.encode()
        failed = self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        if failed or self._library.espeak_Synchronize() or not self._heard:
            raise Mistake(f"espeak-ng cannot say {text!r}")
        return b"".join(self._heard)


def main() -> int:
    """Say the texts of the job."""
    job = json.load(sys.stdin)
    try:
        voice = Voice(job)
        for number, text in enumerate(job["texts"]):
            samples = voice.say(text, job["seed"] + number)
            sys.stdout.buffer.write(struct.pack("<i", len(samples) // 2) + samples)
    except (OSError, AttributeError, Mistake) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
