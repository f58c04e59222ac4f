"""Splits a prompt into its AND parts, without comments and tags. `editing` and `attention` read each part."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from shared.prompts.attention import bounded
from shared.prompts.extra_networks import without, without_comments

MOST_PARTS: Final = 16  # each is a row of every denoising call
_AND: Final = re.compile(r"\bAND\b")
_WEIGHT: Final = re.compile(r"\s*([-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+))")


class Part(NamedTuple):
    """One of the prompts that AND joins, and its weight in the sum."""

    text: str
    weight: float = 1.0


def read(prompt: str, *, is_negative: bool = False) -> tuple[Part, ...]:
    """Return the AND parts of a prompt, each with the weight at its end (`a cat :1.2`), also where it is the only one.

    In a negative prompt AND is a word and a weight is text.
    """
    plain = without(without_comments(prompt))
    if is_negative:
        return (Part(plain),)
    return tuple(_weighed(part) for part in _AND.split(plain))


def _weighed(part: str) -> Part:
    text, colon, end = part.rstrip().rpartition(":")
    weight = _WEIGHT.fullmatch(end) if colon else None
    return Part(text.rstrip(), bounded(float(weight[1]))) if weight else Part(part.rstrip())
