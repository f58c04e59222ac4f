"""Names that somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_LONGEST: Final = 80  # characters that are compared, more than any name has
_CUTOFF: Final = 0.66  # one letter in three may differ: what is less alike would mislead


def nearest(text: str, names: Iterable[str], most: int = 3) -> list[str]:
    """Return the names most like `text`, best first, whatever their case; none if nothing is alike."""
    by_folded = {name.casefold(): name for name in names}
    close = get_close_matches(text[:_LONGEST].casefold(), by_folded, n=most, cutoff=_CUTOFF)
    return [by_folded[name] for name in close]
