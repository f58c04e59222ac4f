"""Time limits after which a load, a call or work on the host counts as a hang; they grow with its size.

They are ten times as long as slow hardware took: a worker that is ended by mistake loses its pictures, while one that
hangs costs only minutes. `FARM_HANG_FACTOR` multiplies them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from worker.engine.requests import Apply, Denoise, Embed, Request, ToLatent, ToPixels

Kind = Literal["cpu", "cuda"]

PROOF_SECONDS: Final = 300.0  # a driver that starts, and CUDA's libraries from a cold disk

_LOAD_SECONDS: Final = 300.0  # a disk that spins up, and the libraries' import
_LOAD_BYTES_A_SECOND: Final = 5e6  # a busy network's disk
_CALL_SECONDS: Final = 60.0  # the first call of a kind prepares kernels
_HOST_SECONDS: Final = 600.0  # the largest pictures, on a host that has much else to do
_NATIVE_CELLS: Final = 64 * 64  # from here on attention, which grows with the square, outweighs the rest
_CELL_PIXELS: Final = 64  # of the cells that these rates count
_CELLS_A_SECOND: Final[dict[Kind, dict[str, float]]] = {
    "cpu": {"denoise": 50.0, "pixels": 20.0},
    "cuda": {"denoise": 5_000.0, "pixels": 2_000.0},
}
_CHUNK_SECONDS: Final[dict[Kind, float]] = {"cpu": 5.0, "cuda": 0.5}


def load_seconds(size_bytes: int) -> float:
    """Return the limit for loading a model file of this size."""
    return _LOAD_SECONDS + size_bytes / _LOAD_BYTES_A_SECOND


def call_seconds(work_seconds: float) -> float:
    """Return the limit for a call, given the seconds for it and for the calls that the card does before it."""
    return _CALL_SECONDS + work_seconds


def host_seconds(work_seconds: float) -> float:
    """Return the limit for work on the host, given the seconds for the calls that the card does before it."""
    return _HOST_SECONDS + work_seconds


def work_seconds(requests: Iterable[Request], on: Kind) -> float:
    """Return how many seconds the answers to `requests` may take, by rows and cells."""
    return sum(_seconds(request, on) for request in requests)


def _seconds(request: Request, on: Kind) -> float:
    rates = _CELLS_A_SECOND[on]
    match request:
        case Embed():
            return len(request.text) * _CHUNK_SECONDS[on]
        case Denoise():
            return len(request.terms) * _weighed(_area(request.x.shape)) / rates["denoise"]
        case ToPixels():
            return _weighed(_area(request.latent.shape)) / rates["pixels"]
        case ToLatent() | Apply():
            return _weighed(_area(request.pixels.shape) / _CELL_PIXELS) / rates["pixels"]
        case _:  # work on the host
            return 0.0


def _area(shape: tuple[int, ...]) -> int:
    return shape[-2] * shape[-1]


def _weighed(cells: float) -> float:
    return cells * (1 + cells / _NATIVE_CELLS)
