"""Numbers, times and sizes in words: the one place that chooses their units."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("bytes", "KB", "MB", "GB", "TB", "PB")
_MOMENT_SECONDS: Final = 2.0  # no estimate is exact enough to name less


def counted(number: int, noun: str) -> str:
    """`3, "image"` -> `3 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def data_size(size: float) -> str:
    """`1536` (bytes) -> `1.5 KB`, in powers of 1024."""
    power = 0
    while size >= 1023.5 and power < len(_UNITS) - 1:  # 1023.5 would be rounded to 1024 of the smaller unit
        size, power = size / 1024, power + 1
    return f"{size:,.0f} {_UNITS[power]}" if power == 0 or size >= 99.95 else f"{size:.1f} {_UNITS[power]}"


def duration(seconds: float) -> str:
    """`80` -> `1 min 20 s`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{counted(whole // 86400, 'day')} {whole % 86400 // 3600} h"


def age(seconds: float) -> str:
    """`247` -> `4 min`: how long ago something was, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def estimate(seconds: float) -> str:
    """`247` -> `about 4 min`: as exactly as an estimate can be."""
    if seconds < _MOMENT_SECONDS:
        return "a moment"
    if seconds < 20:
        return f"about {seconds:.0f} s"
    if seconds < 57.5:
        return f"about {5 * round(seconds / 5)} s"
    if seconds < 3570:
        return f"about {max(1, round(seconds / 60))} min"
    hours = seconds / 3600
    return f"about {round(hours, 1):g} h" if hours < 10 else f"about {hours:.0f} h"
