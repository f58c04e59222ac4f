"""Rows of a call that come out the same to the last bit, however many share it: measured, on the processor at hand.

Which kernel computes a call, and where its threads share it out, depends on how many rows it holds, and kernels round
differently: a millionth, which two dozen steps at strong guidance can make a visible difference of. How many rows a
call may hold is a matter of the processor, of PyTorch, of the threads and of the layer's shape. So it is measured:
every count of rows is compared with the fewest, bit by bit, before it is used for the first time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor

from shared import portions as files
from shared.portions import Portion, Processor

Kernel = Callable[[Tensor], Tensor]  # rows [rows, ...] -> rows
Fewest = Literal[1, 2]

SECONDS: Final = 2.0  # of measuring, for a process
_HOLD_SECONDS: Final = 0.1  # of measuring at a time, and then none for as long as that took
_MOST_CALLS: Final = 1_000  # of a layer, whose shapes are remembered as those of one call
_FEWEST: Final[dict[Fewest, Portion]] = {1: Portion(1, is_lone_alike=True), 2: Portion(2)}  # what is known of any shape


class Portions:
    """What is known of calls on this processor, and what finds out more while there is time for it.

    For one thread at a time: the engine's.
    """

    def __init__(
        self,
        processor: Processor | None = None,
        file: Path | None = None,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """With a `processor` and a `file`, what was found is kept there, and what was found before is known."""
        self._file = file
        self._seconds = seconds
        self._clock = clock
        self._again = -math.inf  # not before then
        self._known: dict[str, Portion] = {}
        if processor and file:
            self._known = _opened(processor, file)

    @property
    def known(self) -> dict[str, Portion]:
        """What is known of each shape."""
        return dict(self._known)

    def layer(self, text: str, fewest: Fewest) -> Layer:
        """Return the calls of a layer; of which `text` tells all that decides on its kernel, beside the rows."""
        return Layer(self, text, fewest)

    def of(self, layer: Layer, kernel: Kernel, rows: Tensor) -> tuple[Portion, bool]:
        """Return what is known of calls of `layer` with rows like `rows`, and whether that is the last word on it.

        More is found out first, if there is time.
        """
        shape = f"{layer.text} {_text(rows.shape)} {_text(rows.stride())} {str(rows.dtype).removeprefix('torch.')}"
        portion = self._known.get(shape, _FEWEST[layer.fewest])
        if not _settles(portion, len(rows)) and self._may_measure():
            portion = self._measured(shape, kernel, rows, layer.fewest)
        return portion, self._seconds <= 0 or _settles(portion, len(rows))

    def _may_measure(self) -> bool:
        return self._seconds > 0 and self._clock() >= self._again

    def _measured(self, shape: str, kernel: Kernel, rows: Tensor, fewest: Fewest) -> Portion:
        """Find out more about `shape`, for counts up to that of `rows`; return what is known now."""
        begun = self._clock()
        before = self._known.get(shape, _FEWEST[fewest])
        found = measure(
            kernel, rows, before, fewest, is_late=lambda: self._clock() - begun > min(_HOLD_SECONDS, self._seconds)
        )
        if found != before:
            self._known[shape] = found
            if self._file:
                files.add(self._file, shape, found)
        took = self._clock() - begun
        self._seconds -= took
        self._again = begun + 2 * took
        return found


class Layer:
    """One layer's calls. Its `text` tells all that decides on the kernel beside the shape and layout of the rows."""

    def __init__(self, portions: Portions, text: str, fewest: Fewest) -> None:
        """`fewest`: the count of rows whose bits are the right ones."""
        self.text = text
        self.fewest = fewest
        self._portions = portions
        self._whole: set[object] = set()  # what is known to fit into one call, to be quick about it

    def answer(self, kernel: Kernel, rows: Tensor) -> Tensor:
        """Return what `kernel` makes of `rows`, each with the bits that it has among the fewest that share a call.

        Of two, a row alone is computed beside itself where it would come out differently. What is not known goes in
        portions of the fewest.
        """
        call = rows.shape, rows.stride()
        if call in self._whole:
            return kernel(rows)
        portion, is_settled = self._portions.of(self, kernel, rows)
        if is_settled and fits(portion, len(rows)):
            self._remember(call)
        return in_portions(kernel, rows, portion)

    def _remember(self, call: object) -> None:
        if len(self._whole) >= _MOST_CALLS:
            self._whole.clear()
        self._whole.add(call)


def fits(portion: Portion, count: int) -> bool:
    """Return whether so many rows fit into one call as they are."""
    return count <= portion.rows and (count > 1 or bool(portion.is_lone_alike))


def in_portions(kernel: Kernel, rows: Tensor, portion: Portion) -> Tensor:
    """Return what `kernel` makes of `rows`, in calls of as many as `portion` allows."""
    if not len(rows) or fits(portion, len(rows)):
        return kernel(rows)
    if len(rows) == 1:
        return kernel(torch.cat([rows, rows]))[:1]
    parts = rows.tensor_split(math.ceil(len(rows) / portion.rows))
    return torch.cat([in_portions(kernel, part, portion) for part in parts])


def measure(
    kernel: Kernel, rows: Tensor, before: Portion, fewest: Fewest, is_late: Callable[[], bool] = lambda: False
) -> Portion:
    """Return what more is known than `before` when rows like `rows` were computed in calls of ever more of them.

    Counts up to that of `rows`, or until it `is_late`. What a row alone, and each place in a pair, gives is compared
    too. The rows are drawn: those at hand may be equal, or all zero, and then prove nothing.
    """
    drawn = _like(rows, max(len(rows), 2))
    if drawn is None:
        return before
    expected = in_portions(kernel, drawn, _FEWEST[fewest])
    if torch.equal(expected[0], expected[1]):
        return before  # a layer of zeros: it tells nothing apart
    lone = before.is_lone_alike
    if lone is None:
        if not torch.equal(kernel(drawn[:2].flip(0)), expected[:2].flip(0)):
            return Portion(1, is_final=True, is_lone_alike=True)
        lone = torch.equal(kernel(drawn[:1]), expected[:1])
    proved = before.rows
    while proved < len(rows) and not is_late():
        if not torch.equal(kernel(drawn[: proved + 1]), expected[: proved + 1]):
            return Portion(proved, is_final=True, is_lone_alike=lone)
        proved += 1
    return Portion(proved, before.is_final, lone)


def _settles(portion: Portion, count: int) -> bool:
    """Whether nothing is left to find out for a call of so many rows."""
    return (portion.is_final or count <= portion.rows) and portion.is_lone_alike is not None


def _like(rows: Tensor, count: int) -> Tensor | None:
    """So many rows of noise, laid out in memory as `rows` are; None where those share memory among themselves."""
    sizes, strides = rows.shape[1:], rows.stride()[1:]
    if any(size > 1 and stride == 0 for size, stride in zip(sizes, strides, strict=True)):
        return None
    extent = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    step = max(extent, rows.stride(0))
    drawn = torch.empty_strided((count, *sizes), (step, *strides), dtype=rows.dtype)
    return drawn.normal_(generator=torch.Generator().manual_seed(count))


def _text(sizes: tuple[int, ...]) -> str:
    """A row's sizes or strides in words."""
    return "x".join(map(str, sizes[1:])) or "1"


def _opened(processor: Processor, file: Path) -> dict[str, Portion]:
    """What `file` holds, after it was put in order where lines are damaged, superfluous, or missing."""
    found = files.read(file)
    if found.processor != processor or found.lines != 1 + len(found.portions):
        files.write(file, processor, found.portions)
    return found.portions
