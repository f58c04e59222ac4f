"""Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): normals that depend only on
a seed, a call and a place. Counted like a CUDA card of unlimited width.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

_ROUNDS: Final = 10
_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)  # added to the two halves of the key each round
_WORD: Final = 2**32
_LOW: Final = np.uint64(_WORD - 1)
_BITS: Final = np.uint64(32)

Words = NDArray[np.uint64]  # 32 bits each


def normals(seed: int, call: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return unit normals for draw `call`, from 0, of `seed`: 64 bits of it count.

    Box and Muller's formula over the first two of the four words that each place's counter gives.
    """
    radius, angle, _, _ = philox(seed, call, math.prod(shape))
    uniform = (radius + 0.5) / _WORD
    values: NDArray[np.float64] = np.sqrt(-2 * np.log(uniform)) * np.sin((angle + 0.5) * (2 * math.pi / _WORD))
    return values.astype(np.float32).reshape(shape)


def philox(seed: int, call: int, places: int) -> tuple[Words, Words, Words, Words]:
    """Return four words for each of `places` counters (call, 0, place, 0) under the key `seed`."""
    zeros = np.zeros(places, np.uint64)
    first, second, third, fourth = zeros + np.uint64(call % _WORD), zeros, np.arange(places, dtype=np.uint64), zeros
    low_key, high_key = seed % _WORD, seed // _WORD % _WORD
    for _ in range(_ROUNDS):
        one, other = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]  # 64 bits: high word and low word
        first = (other >> _BITS) ^ second ^ np.uint64(low_key)
        third = (one >> _BITS) ^ fourth ^ np.uint64(high_key)
        second, fourth = other & _LOW, one & _LOW
        low_key, high_key = (low_key + _WEYL[0]) % _WORD, (high_key + _WEYL[1]) % _WORD
    return first, second, third, fourth
