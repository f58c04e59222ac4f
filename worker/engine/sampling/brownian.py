"""Noise of samplers that solve a stochastic equation: increments of one Brownian motion over sigma for each picture.

An increment depends on the picture's seed and on its two sigmas, not on earlier queries: more steps refine a picture
and do not change it. A query takes milliseconds: draw ahead, off the engine's thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec, module_from_spec
from typing import Any, Final

import torch
import torchsde
from torch import Tensor
from torchsde._brownian import brownian_interval

from shared.params.fields import NoiseSource
from worker.engine.sampling.philox import normals

Span = tuple[float, float]  # two sigmas

_DIGITS: Final = 6  # to which the tree rounds its times
_TOLERANCE: Final = 1e-6  # the same as torchsde takes it
_POOL: Final = 24  # words of entropy, torchsde's default: other sizes give other noise
_KEPT: Final = 64  # intervals whose increments are cached; with fewer, most are drawn twice


def bounds(sigmas: Sequence[float]) -> Span:
    """Return the lowest sigma above 0 and the highest: between them lies the motion of a picture with this schedule."""
    return min(sigma for sigma in sigmas if sigma > 0), max(sigmas)


def draws(
    shape: Sequence[int], seed: int, span: Span, queries: Sequence[Span], *, source: NoiseSource = "CPU"
) -> Tensor:
    """Return unit noise [queries, *shape], float32, on the host, for each (sigma, next sigma) within `span`.

    The motion is torchsde's tree: its increment over the whole span is drawn with the first word of numpy's
    SeedSequence over the picture's own `seed`, that of each half with a word that the sequence spawns for it. `source`
    turns such a word into normals. The sign is that of a motion along rising sigma, reversed for a falling one.
    """
    low, high = (round(sigma, _DIGITS) for sigma in span)
    if not queries or low >= high:
        return torch.zeros(len(queries), *shape)
    tree = _intervals(source)(
        low, high, size=tuple(shape), dtype=torch.float32, device="cpu", entropy=seed, tol=_TOLERANCE, pool_size=_POOL,
        halfway_tree=True, cache_size=_KEPT,
    )  # fmt: skip
    return torch.stack([_increment(tree, query, (low, high)) for query in queries])


def _increment(tree: Any, query: Span, span: Span) -> Tensor:  # noqa: ANN401 - torchsde is untyped
    """Return the motion's increment over `query`, cut to `span`, at unit variance; 0 where the two ends are one."""
    start, end = (round(min(max(sigma, span[0]), span[1]), _DIGITS) for sigma in query)
    increment: Tensor = tree(min(start, end), max(start, end))
    return increment * (math.copysign(1, end - start) / math.sqrt(abs(end - start))) if start != end else increment


@cache
def _intervals(source: NoiseSource) -> type:
    """Return torchsde's interval tree; for another source than torch's, of a copy of its module that draws from it."""
    if source == "CPU":
        return torchsde.BrownianInterval  # type: ignore[no-any-return]
    spec = find_spec(brownian_interval.__name__)
    if spec is None or spec.loader is None:
        raise ImportError(f"{brownian_interval.__name__} cannot be loaded twice")
    copy: Any = module_from_spec(spec)
    spec.loader.exec_module(copy)
    copy._randn = _philox  # noqa: SLF001 - the one place where it draws
    return copy.BrownianInterval  # type: ignore[no-any-return]


def _philox(size: Sequence[int], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    return torch.from_numpy(normals(int(seed), 0, tuple(size))).to(device, dtype)
