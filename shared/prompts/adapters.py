"""Adapters that a prompt asks for by tags: `<lora:ink:0.8>`, `<lora:ink:te=0:unet=0.5>`, `<hypernet:haze:0.6>`.

A weight may change on the way: `<lora:ink:0@0,1@0.5>` rises from 0 to 1 until the middle of the pass. Between two
points it changes evenly; before the first one and after the last one it stays. A place up to 1 is a share of the pass,
and one above 1 is a step.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from shared.prompts.extra_networks import Network, networks

Kind = Literal["lora", "hypernet"]

LARGEST_WEIGHT: Final = 10.0
_KINDS: Final[dict[str, Kind]] = {"lora": "lora", "lyco": "lora", "hypernet": "hypernet"}
_ARGUMENTS: Final[dict[Kind, tuple[str, ...]]] = {"lora": ("te", "unet", "dyn"), "hypernet": ("unet",)}
"""The arguments behind the name, in order."""
_FORMS: Final[dict[Kind, str]] = {
    "lora": "<lora:name:0.8> or <lora:name:te=1:unet=0.8>",
    "hypernet": "<hypernet:name:0.8>",
}
_MOST_POINTS: Final = 64
_MOST_DIGITS: Final = 40
_LARGEST_RANK: Final = 2**16


class BadTag(ValueError):
    """A tag asks for no adapter; the message says why, and `accepted` what would be right."""

    def __init__(self, message: str, accepted: str) -> None:
        super().__init__(message)
        self.accepted = accepted


class Weight(NamedTuple):
    """The weight of an adapter over a pass: points of a place and the weight there, by rising places."""

    points: tuple[tuple[float, float], ...]

    @property
    def start(self) -> float:
        """The weight at the beginning of the pass."""
        return self.at(0.0, steps=1)

    @property
    def is_constant(self) -> bool:
        return len(self.points) == 1

    def at(self, share: float, *, steps: int) -> float:
        """Return the weight after this share of a pass of `steps`."""
        points = [(place / steps if place > 1 else place, weight) for place, weight in self.points]
        if share <= points[0][0]:
            return points[0][1]
        for (before, weight), (after, other) in pairwise(points):
            if share < after:
                return weight + (other - weight) * (share - before) / (after - before)
        return points[-1][1]


class Use(NamedTuple):
    """One tag: an adapter, and its weights in the text encoders and in the U-Net."""

    kind: Kind
    name: str
    text_encoder: Weight
    unet: Weight
    rank: int | None = None  # how many of the ranks of its file are used; None: all

    @property
    def key(self) -> str:
        """What the adapter is called in a model set."""
        return f"{self.kind}:{self.name}"


def used(prompt: str) -> tuple[Use, ...]:
    """Return the adapters that `prompt` asks for, in its order. Raises BadTag for a tag that asks for none."""
    return tuple(map(_use, networks(prompt)))


def _use(tag: Network) -> Use:
    kind = _KINDS.get(tag.kind.casefold())
    if kind is None:
        raise BadTag(f"has a tag <{tag.kind[:20]}:…>, which means nothing here", "tags such as <lora:name:0.8>")
    name, form = tag.name.strip(), _FORMS[kind]
    given = dict(zip(_ARGUMENTS[kind], tag.arguments[1:], strict=False)) | dict(tag.options)
    if not name or len(tag.arguments) - 1 > len(_ARGUMENTS[kind]) or not given.keys() <= {*_ARGUMENTS[kind]}:
        raise BadTag(f"has a tag that cannot be read: {_shown(tag)}", form)
    try:
        text_encoder = _weight(given.get("te", "1"))
        unet = _weight(given["unet"]) if "unet" in given else text_encoder
        return Use(kind, name, text_encoder, unet, _rank(given["dyn"]) if "dyn" in given else None)
    except ValueError as error:
        raise BadTag(f"has a tag that cannot be read: {_shown(tag)} ({error})", form) from None


def _weight(text: str) -> Weight:
    """Return the weight that a text means. Raises ValueError."""
    texts = text.split(",", _MOST_POINTS)
    if len(texts) > _MOST_POINTS:
        raise ValueError(f"at most {_MOST_POINTS} weights")
    points = list(map(_point, texts))
    places = [place for place, _ in points]
    if len(points) > 1 and any(after <= before for before, after in pairwise(places)):
        raise ValueError("the places of its weights must rise")
    return Weight(tuple(points))


def _point(text: str) -> tuple[float, float]:
    weight, _, place = text.partition("@")
    found = _number(weight), _number(place) if place else 0.0
    if abs(found[0]) > LARGEST_WEIGHT:
        raise ValueError(f"a weight is from -{LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}")
    if found[1] < 0:
        raise ValueError("a place is a share from 0 to 1, or a step")
    return found[1], found[0]


def _number(text: str) -> float:
    try:
        number = float(text) if len(text) <= _MOST_DIGITS else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]!r} is not a number")
    return number


def _rank(text: str) -> int:
    number = _number(text)
    if number != int(number) or not 1 <= number <= _LARGEST_RANK:
        raise ValueError(f"dyn is a whole number from 1 to {_LARGEST_RANK}")
    return int(number)


def _shown(tag: Network) -> str:
    inside = ":".join((*tag.arguments, *(f"{name}={value}" for name, value in tag.options)))
    return f"<{tag.kind[:20]}:{inside[:40]}>"
