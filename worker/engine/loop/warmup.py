"""Calls that are made while a card is idle, so that pictures find its kernels prepared for every row count."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from weakref import ref

import torch

from shared.prompts.chunks import EMPTY
from worker.engine.answers.answer import answer
from worker.engine.answers.calls import Calls
from worker.engine.answers.denoising import subject
from worker.engine.architectures.weights import Weights
from worker.engine.cuda_errors import is_fatal, is_out_of_memory
from worker.engine.devices import release_memory
from worker.engine.requests import Denoise, Embed, Request, Term, ToPixels

Within = Callable[[], AbstractContextManager[object]]
"""Makes a block for a call, by which memory meters know that the call belongs to no picture."""

_Make = Callable[[Weights], Request]


@dataclass(frozen=True, eq=False)
class _Due:
    """One call that is still to be made, unless its checkpoint leaves before."""

    kind: Hashable  # of checkpoint
    weights: ref[Weights]
    make: _Make
    within: Within


class WarmUp:
    """The calls that are still to be warmed up: each kind of checkpoint once, at its native size, in all row counts.

    `calls` are shared with the pictures: neither tries a size that had no room for the other.
    """

    def __init__(self, row_counts: Iterable[int], calls: Calls) -> None:
        self._row_counts = tuple(row_counts)
        self._calls = calls.without_halves()
        self._due: deque[_Due] = deque()
        self._known: set[Hashable] = set()
        self._kind: Hashable = None  # of the call that was next

    def add(self, weights: Weights, within: Within) -> None:
        """Add the calls of checkpoints such as `weights`, unless they were made; it may leave memory meanwhile."""
        if not self._row_counts:
            return
        self._forget_gone()
        kind = repr(weights.unet.config), weights.dtype
        if kind in self._known:
            return
        self._known.add(kind)
        makes: list[_Make] = [_embed, *(partial(_denoise, rows) for rows in self._row_counts)]
        if weights.vae is not None:
            makes.insert(2, _decode)  # what a first picture needs comes first
        self._due.extend(_Due(kind, ref(weights), make, within) for make in makes)

    def next(self) -> tuple[Request, Within] | None:
        """Return the next call with its block, or None if no call is left."""
        self._forget_gone()
        if not self._due:
            return None
        due = self._due.popleft()
        self._kind = due.kind
        weights = due.weights()
        return (due.make(weights), due.within) if weights is not None else self.next()

    def make(self, request: Request) -> None:
        """Make a call, unless one as large had no room lately. If it is not made, the further calls of its checkpoint
        are dropped, because they are larger.

        Raises only errors that leave the card unusable.
        """
        is_small = not isinstance(request, Denoise) or len(request.terms) <= self._calls.most_rows(subject(request))
        if not is_small or not self._is_made(request):
            self._due = deque(due for due in self._due if due.kind != self._kind)

    def _is_made(self, request: Request) -> bool:
        try:
            answer([request], is_exact=False, calls=self._calls)
        except Exception as error:
            if is_fatal(error):
                raise
            is_full = is_out_of_memory(error)
        else:
            return True
        if is_full:
            release_memory()
        return False

    def _forget_gone(self) -> None:
        gone = {due.kind for due in self._due if due.weights() is None}
        self._known -= gone
        self._due = deque(due for due in self._due if due.kind not in gone)


def _embed(weights: Weights) -> Request:
    return Embed(weights, (EMPTY,))


@torch.inference_mode()
def _denoise(rows: int, weights: Weights) -> Request:
    latent, on = weights.latent, weights.device.torch
    cells = weights.native_size // latent.cell
    extra = torch.zeros(latent.mask_channels, cells, cells, device=on) if weights.takes_mask else None
    blank = replace(weights.architecture.blank(weights.unet), extra=extra)
    x = torch.zeros(latent.channels, cells, cells, device=on)
    return Denoise(weights, x, 1.0, (Term(1 / rows, blank),) * rows, 1, 1)


@torch.inference_mode()
def _decode(weights: Weights) -> Request:
    cells = weights.native_size // weights.latent.cell
    return ToPixels(weights, torch.zeros(weights.latent.channels, cells, cells, device=weights.device.torch))
