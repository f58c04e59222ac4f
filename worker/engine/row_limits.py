"""How many rows one call of a layer may hold so that each row has the same bits however many share the call.

Which kernel computes a call, and how its threads share it, depends on how many rows it holds, and kernels round
differently: by a millionth, which two dozen steps at strong guidance can make visible. How many rows are safe depends
on the processor, on PyTorch, on the threads and on the layer's shape. So it is measured on the processor at hand: every
count of rows is compared with the fewest, bit by bit, before it is used for the first time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]  # rows [rows, ...] -> rows
Fewest = Literal[1, 2]

SECONDS: Final = 2.0  # a process spends on measuring
_PAUSE_AFTER_SECONDS: Final = 0.1  # of measuring at a time; it then pauses for as long as it took
_MOST_CALLS: Final = 1_000  # of a layer whose shapes are remembered as safe in one call


class RowLimit(NamedTuple):
    """The calls of one shape: every count of rows up to `rows` gives a row the same bits."""

    rows: int
    is_final: bool = False  # one row more gives other bits
    is_lone_alike: bool | None = None  # whether a row alone has the bits that it has in a pair; None: not measured


_UNMEASURED: Final[dict[Fewest, RowLimit]] = {1: RowLimit(1, is_lone_alike=True), 2: RowLimit(2)}


class RowLimits:
    """The limits of this processor's calls, by shape; measures more of them while there is time for it.

    For one thread at a time: the engine's.
    """

    def __init__(
        self,
        known: Mapping[str, RowLimit] | None = None,
        on_measured: Callable[[str, RowLimit], object] = lambda _shape, _limit: None,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`known` was measured before; `on_measured` is called with each shape and its new limit."""
        self._known = dict(known or {})
        self._on_measured = on_measured
        self._seconds = seconds
        self._clock = clock
        self._not_before = -math.inf  # the clock's time of the next measurement

    @property
    def known(self) -> dict[str, RowLimit]:
        """The limit of each measured shape."""
        return dict(self._known)

    def layer(self, text: str, fewest: Fewest) -> Layer:
        """Return the calls of a layer. Together with the rows, `text` decides on its kernel."""
        return Layer(self, text, fewest)

    def limit(self, layer: Layer, kernel: Kernel, rows: Tensor) -> tuple[RowLimit, bool]:
        """Return the limit for calls of `layer` with rows like `rows`, and whether it will not change any more.

        Measures first, if there is time.
        """
        shape = f"{layer.text} {_joined(rows.shape)} {_joined(rows.stride())} {str(rows.dtype).removeprefix('torch.')}"
        limit = self._known.get(shape, _UNMEASURED[layer.fewest])
        if not _covers(limit, len(rows)) and self._seconds > 0 and self._clock() >= self._not_before:
            limit = self._measured(shape, kernel, rows, layer.fewest)
        return limit, self._seconds <= 0 or _covers(limit, len(rows))

    def _measured(self, shape: str, kernel: Kernel, rows: Tensor, fewest: Fewest) -> RowLimit:
        """Measure calls of `shape` with up to as many rows as `rows`; return the limit that is known then."""
        started = self._clock()
        before = self._known.get(shape, _UNMEASURED[fewest])
        limit = measure(
            kernel,
            rows,
            before,
            fewest,
            is_late=lambda: self._clock() - started > min(_PAUSE_AFTER_SECONDS, self._seconds),
        )
        if limit != before:
            self._known[shape] = limit
            self._on_measured(shape, limit)
        elapsed = self._clock() - started
        self._seconds -= elapsed
        self._not_before = started + 2 * elapsed
        return limit


class Layer:
    """The calls of one layer. Together with the rows' shape and strides, `text` decides on its kernel."""

    def __init__(self, row_limits: RowLimits, text: str, fewest: Fewest) -> None:
        """`fewest`: the count of rows whose bits are the right ones."""
        self.text = text
        self.fewest = fewest
        self._row_limits = row_limits
        self._safe_calls: set[object] = set()  # that one call may hold, looked up here to be quick

    def answer(self, kernel: Kernel, rows: Tensor) -> Tensor:
        """Return the result of `kernel` for `rows`, each with the bits that it has in a call of the fewest.

        If the fewest are two, and a row alone would come out differently, it is computed beside a copy of itself. As
        long as a limit is not measured, calls hold the fewest rows.
        """
        call = rows.shape, rows.stride()
        if call in self._safe_calls:
            return kernel(rows)
        limit, is_settled = self._row_limits.limit(self, kernel, rows)
        if is_settled and fits(limit, len(rows)):
            if len(self._safe_calls) >= _MOST_CALLS:
                self._safe_calls.clear()
            self._safe_calls.add(call)
        return within_limit(kernel, rows, limit)


def fits(limit: RowLimit, count: int) -> bool:
    """Return whether one call may hold so many rows as they are."""
    return count <= limit.rows and (count > 1 or bool(limit.is_lone_alike))


def within_limit(kernel: Kernel, rows: Tensor, limit: RowLimit) -> Tensor:
    """Return the result of `kernel` for `rows`, in calls of as many rows as `limit` allows."""
    if not len(rows) or fits(limit, len(rows)):
        return kernel(rows)
    if len(rows) == 1:
        return kernel(torch.cat([rows, rows]))[:1]
    parts = rows.tensor_split(math.ceil(len(rows) / limit.rows))
    return torch.cat([within_limit(kernel, part, limit) for part in parts])


def measure(
    kernel: Kernel, rows: Tensor, before: RowLimit, fewest: Fewest, is_late: Callable[[], bool] = lambda: False
) -> RowLimit:
    """Return the limit after rows like `rows` were computed in calls of ever more of them; at least `before`.

    Stops at the count of `rows`, or when it `is_late`. Compares a row alone, and both places of a pair, too. The rows
    are noise: given rows may be equal or all zero, and would then prove nothing.
    """
    drawn = _like(rows, max(len(rows), 2))
    if drawn is None:
        return before
    expected = within_limit(kernel, drawn, _UNMEASURED[fewest])
    if torch.equal(expected[0], expected[1]):
        return before  # a layer of zeros, which gives all rows the same
    lone = before.is_lone_alike
    if lone is None:
        if not torch.equal(kernel(drawn[:2].flip(0)), expected[:2].flip(0)):
            return RowLimit(1, is_final=True, is_lone_alike=True)
        lone = torch.equal(kernel(drawn[:1]), expected[:1])
    proved = before.rows
    while proved < len(rows) and not is_late():
        if not torch.equal(kernel(drawn[: proved + 1]), expected[: proved + 1]):
            return RowLimit(proved, is_final=True, is_lone_alike=lone)
        proved += 1
    return RowLimit(proved, before.is_final, lone)


def _covers(limit: RowLimit, count: int) -> bool:
    """Return whether nothing is left to measure for a call of so many rows."""
    return (limit.is_final or count <= limit.rows) and limit.is_lone_alike is not None


def _like(rows: Tensor, count: int) -> Tensor | None:
    """Return rows of noise, laid out in memory as `rows` are; None if those share memory among themselves."""
    sizes, strides = rows.shape[1:], rows.stride()[1:]
    if any(size > 1 and stride == 0 for size, stride in zip(sizes, strides, strict=True)):
        return None
    extent = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    step = max(extent, rows.stride(0))
    drawn = torch.empty_strided((count, *sizes), (step, *strides), dtype=rows.dtype)
    return drawn.normal_(generator=torch.Generator().manual_seed(count))


def _joined(sizes: tuple[int, ...]) -> str:
    """Return a row's sizes or strides as text."""
    return "x".join(map(str, sizes[1:])) or "1"
