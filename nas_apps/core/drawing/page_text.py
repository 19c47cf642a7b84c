"""Figures as a reader wants them: 1,930,618; 98.3 %; 12.4 s; 312 M."""

from __future__ import annotations

import math
import re

SHARES = re.compile(r"(^|[_/ ])(accuracy|acc|top1|top5|top_1|top_5|cer|wer|per|error)([_/ ]|$)")
BIG = re.compile(r"(^|[_/ ])(macs|flops|params|parameters)([_/ ]|$)")
UNITS = {"_ms": "ms", "_seconds": "s", "_s": "s", "_mb": "MB", "_gb": "GB", "_db": "dB", "_percent": "%"}
NAMES = {
    "params": "Parameters",
    "macs": "MACs",
    "flops": "FLOPs",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "cer": "CER",
    "wer": "WER",
}
BETTER = (
    (True, re.compile(r"accuracy|acc|top_?[15]|psnr|ssim|return|reward")),
    (False, re.compile(r"loss|error|cer|wer")),
)


def figure(name: str, value: object) -> str:
    """A value as text, in the unit that its name speaks of.

    >>> figure("accuracy", 0.9832), figure("params", 1930618.0), figure("latency_ms", 1.2345)
    ('98.3 %', '1,930,618', '1.234 ms')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if SHARES.search(name) and 0 <= value <= 1.5:
        return f"{100 * value:.1f} %" if value != 1 else "100 %"
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    if unit == "s":
        return seconds(float(value))
    return f"{plain(value)} {unit}".rstrip()


def plain(value: float) -> str:
    """A number with its thousands apart, or four significant digits.

    >>> plain(12345.678), plain(0.123456), plain(30.0)
    ('12,346', '0.1235', '30')
    """
    if value == int(value) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def short(name: str, value: object) -> str:
    """A figure for a headline: large costs rounded to three digits.

    >>> short("macs", 312412160), short("accuracy", 0.5)
    ('312 M', '50.0 %')
    """
    if BIG.search(name) and isinstance(value, int | float) and 1e5 <= abs(value) < 1e15:
        power = next(p for p in (12, 9, 6, 3) if abs(value) >= 0.9995 * 10**p)
        scaled = value / 10**power
        digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
        return f"{scaled:.{digits}f} {dict(zip((12, 9, 6, 3), 'TGMk', strict=True))[power]}"
    return figure(name, value)


def seconds(value: float) -> str:
    """A length of time.

    >>> seconds(12.41), seconds(200), seconds(7500)
    ('12.4 s', '3 min 20 s', '2 h 05 min')
    """
    if value < 59.95:
        return f"{value:.1f} s"
    if value < 3599.5:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def title(name: str) -> str:
    """A name as a heading: without its unit, with spaces.

    >>> title("accuracy_one_hot"), title("latency_ms"), title("macs")
    ('Accuracy, one-hot', 'Latency', 'MACs')
    """
    end = next((end for end in UNITS if name.endswith(end) and len(name) > len(end)), "")
    words = NAMES.get(name) or name.removesuffix(end).replace("_one_hot", ", one-hot").replace("_", " ")
    return words[:1].upper() + words[1:]


def higher_is_better(name: str) -> bool | None:
    """Which way a metric should go, by its name; None when the name does not say."""
    return next((up for up, names in BETTER if names.search(name)), None)
