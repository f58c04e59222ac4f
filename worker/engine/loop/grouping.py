"""The plan of a turn: which requests share a call, which calls are made, and in which order. Pure functions."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Sequence
from itertools import zip_longest

from worker.engine.loop.runs import Ask
from worker.engine.requests import Apply, Denoise, Embed, Request

Call = list[Ask]


def plan(
    waiting: Sequence[Ask],
    row_budget: int,
    *,
    ladder: Sequence[int] = (),
    most_rows: Callable[[Denoise], int] = lambda _: sys.maxsize,
) -> tuple[list[Call], list[Ask]]:
    """Return the calls of this turn, in order, and the requests that wait for another turn.

    Every group of requests that may share a call gets one call, so that several checkpoints or sizes are served in
    turn. In a group urgent runs come first, then those that have waited longest. Contexts come first: they let runs
    join. Calls of the VAE and of networks on pixels are long: each holds one picture, and at most one stands between
    two denoising calls. A denoising call has a row count of `ladder` if possible, and `most_rows` at most.
    """
    groups: dict[Hashable, Call] = {}
    for ask in sorted(waiting, key=lambda ask: not ask.run.is_urgent):
        groups.setdefault(shared_by(ask), []).append(ask)
    contexts = [_filled(group, row_budget) for group in groups.values() if isinstance(group[0].request, Embed)]
    denoising = [
        _stepped(_filled(group, row_budget, most_rows(request)), ladder)
        for group in groups.values()
        if isinstance(request := group[0].request, Denoise)
    ]
    pixels = [group for group in groups.values() if not isinstance(group[0].request, Embed | Denoise)]
    between = pixels[: max(1, len(denoising))]
    calls = [*contexts, *(call for pair in zip_longest(denoising, between) for call in pair if call)]
    taken = {ask for call in calls for ask in call}
    return calls, [ask for ask in waiting if ask not in taken]


def shared_by(ask: Ask) -> Hashable:
    """Return a key that is equal for all requests that may share a call with this one.

    Two views of a checkpoint, say with different VAEs, have one U-Net and meet in its calls.
    """
    request = ask.request
    company = ask.run if ask.run.is_exact else None
    if isinstance(request, Denoise):
        weights = request.weights
        network = weights.unet, weights.prediction, weights.tiling
        return Denoise, network, request.x.shape, request.terms[0].conditioning.form, tokens(request), company
    if isinstance(request, Embed):
        encoders = tuple(encoder.network for encoder in request.weights.text_encoders)
        return Embed, request.weights.architecture, encoders, company
    if isinstance(request, Apply) and request.answer_key is not None:
        return Apply, request.network, request.answer_key
    return ask


def tokens(request: Denoise) -> int:
    """Return the length that the contexts of `request` are padded to."""
    return max(term.conditioning.tokens for term in request.terms)


def cost(request: Request) -> int:
    """Return how much of the row budget `request` takes: its rows and those of its control nets, each for several if
    the picture is above native.
    """
    if isinstance(request, Embed):
        return len(request.text)
    if not isinstance(request, Denoise):
        return 1
    area = request.x.shape[-2] * request.x.shape[-1] * request.weights.latent.cell**2
    return math.ceil(request.unet_rows) * max(1, round(area / request.weights.native_size**2))


def _rows(ask: Ask) -> int:
    return len(ask.request.terms) if isinstance(ask.request, Denoise) else 1


def _filled(group: Call, row_budget: int, most_rows: int = sys.maxsize) -> Call:
    """Return as many of `group` as the budget and `most_rows` hold, and one in any case."""
    call: Call = []
    left, rows = row_budget, most_rows
    for ask in group:
        needed = cost(ask.request)
        if not call or (needed <= left and _rows(ask) <= rows):
            call.append(ask)
            left -= needed
            rows -= _rows(ask)
    return call


def _stepped(call: Call, ladder: Sequence[int]) -> Call:
    """Return the part of `call` with the most rows that are a step of `ladder`, its first request in any case.

    Returns all of it if there is no such part: the answer then splits its rows.
    """
    rows = [_rows(ask) for ask in call]
    if not ladder or sum(rows) in ladder:
        return call
    sums = _sums(rows)
    steps = [step for step in ladder if step >= rows[0] and sums[1] >> (step - rows[0]) & 1]
    return _taken(call, rows, sums, max(steps)) if steps else call


def _sums(rows: Sequence[int]) -> list[int]:
    """Return the possible sums of the counts from each place on, as bits of a number: bit 6 is set if 6 is one."""
    sums = [1]
    for count in reversed(rows):
        sums.append(sums[-1] | sums[-1] << count)
    return sums[::-1]


def _taken(call: Call, rows: Sequence[int], sums: Sequence[int], left: int) -> Call:
    """Return requests with `left` rows together; if there is a choice, those that have waited longest."""
    part: Call = []
    for ask, count, behind in zip(call, rows, sums[1:], strict=True):
        if left >= count and behind >> (left - count) & 1:
            part.append(ask)
            left -= count
    return part
