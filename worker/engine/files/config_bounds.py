"""Checks of the figures that a checkpoint states about itself: strangers wrote them, and they decide which networks are
built, how long that takes and how much memory it needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from reprlib import repr as shortened
from typing import Any, Final

from shared.errors import ModelFileError
from worker.engine.sigma_table import SigmaTable

Config = dict[str, Any]
UNFIT: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors that libraries raise for a configuration that describes no network."""

LARGEST: Final = 2**20
"""Of any number in a network's configuration; the largest sensible one is a vocabulary."""

_CELL: Final = 8  # pixels of a latent cell's side
_LONGEST: Final = 8  # of any list; networks have four levels
_LONGEST_WORD: Final = 24  # that an error message repeats
_MOST: Final = {
    "layers_per_block": 8,
    "transformer_layers_per_block": 16,
    "reverse_transformer_layers_per_block": 16,
    "num_hidden_layers": 48,
    "num_trans_layer": 8,
    "num_attention_heads": 1024,
    "attention_head_dim": 1024,
    "norm_num_groups": 1024,
}
"""Counts, which start at 1. The time to build a network grows with the layers that it repeats."""


def shown(value: object) -> str:
    """Return `value` for an error message, which must not repeat arbitrary text of a file."""
    if value is None or isinstance(value, bool | int | float):
        return shortened(value)
    if isinstance(value, str):
        return value if value.isidentifier() and len(value) <= _LONGEST_WORD else "a text"
    return "a list" if isinstance(value, list | tuple) else "something else"


def native_size(cells: object) -> int:
    """Return the pixels of a side, from latent cells; for a pair, of a square of equal area. Raises ModelFileError."""
    if isinstance(cells, list) and len(cells) == 2:
        height, width = (whole("image size", side, 8, 512) for side in cells)
        return round(math.sqrt(height * width)) * _CELL
    return whole("image size", cells, 8, 512) * _CELL


def sigmas(start: object, end: object, steps: object) -> SigmaTable:
    """Return the noise table between two betas. Raises ModelFileError."""
    low, high = positive("first beta", start), positive("last beta", end)
    if not low <= high < 1:
        raise ModelFileError(f"its betas go from {low} to {high}; they should rise, and stay below 1")
    return SigmaTable.scaled_linear(low, high, whole("number of timesteps", steps, 2, 10_000))


def whole(name: str, value: object, least: int, most: int) -> int:
    """Return `value` if it is a whole number within these bounds. Raises ModelFileError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ModelFileError(f"its {name} is {shown(value)}, not a whole number from {least} to {most}")
    return value


def positive(name: str, value: object) -> float:
    """Return `value` if it is a finite number above 0. Raises ModelFileError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    raise ModelFileError(f"its {name} is {shown(value)}, not a finite number above 0")


def moderate(config: Mapping[str, Any]) -> Config:
    """Return a network's configuration if its network is built in seconds. Raises ModelFileError."""
    for name, value in config.items():
        for number in _numbers(name, value):
            most = _MOST.get(name)
            if not abs(number) <= LARGEST or (  # which holds for no NaN
                most and not 1 <= number <= most
            ):
                raise ModelFileError(f"its configuration's {shown(name)} is {shown(value)}: no such network")
    return dict(config)


def _numbers(name: str, value: object, depth: int = 0) -> Iterator[float]:
    """Yield the numbers in a value of a configuration: a scalar, a list, or a list of lists."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple) and len(value) <= _LONGEST and depth < 2:
        for item in value:
            yield from _numbers(name, item, depth + 1)
    elif not isinstance(value, str | None):
        raise ModelFileError(f"its configuration's {shown(name)} is not a number, a word or a short list")
