"""The card's answers to requests. Rows of many pictures share a call of a network here; no other package sees a batch.

Each function takes requests that may share a call and returns an answer for each, in order. The answer to a request
that failed is its error. Only the engine's thread calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from worker.engine.answers.calls import Calls
from worker.engine.answers.denoising import denoise
from worker.engine.answers.embedding import embed
from worker.engine.answers.pixels import apply, to_latent, to_pixels
from worker.engine.requests import Apply, Denoise, Embed, ToLatent, ToPixels


def answer(requests: Sequence[Any], *, is_exact: bool, calls: Calls | None = None) -> Sequence[Any]:
    """Return the answers to requests of one kind that may share a call, made as `calls` makes calls."""
    kind = type(requests[0])
    if kind is Embed:
        return embed(requests, is_exact=is_exact, calls=calls)
    if kind is Denoise:
        return denoise(requests, is_exact=is_exact, calls=calls)
    if kind not in _ANSWERS:
        raise TypeError(f"not a request: {requests[0]!r}")
    return _ANSWERS[kind](requests, calls)


_ANSWERS: Final[dict[type, Callable[[Sequence[Any], Calls | None], Sequence[Any]]]] = {
    ToPixels: to_pixels,
    ToLatent: to_latent,
    Apply: apply,
}
