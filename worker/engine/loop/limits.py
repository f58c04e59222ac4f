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
_VAE_PIXELS: Final = 512 * 512  # from here on a VAE's attention, which grows with the square, outweighs the rest
_STEP_SECONDS: Final[dict[Kind, float]] = {"cpu": 0.02, "cuda": 0.0002}  # a cell of Stable Diffusion 1
_CHUNK_SECONDS: Final[dict[Kind, float]] = {"cpu": 5.0, "cuda": 0.5}  # of its text encoder
_MEGAPIXEL_SECONDS: Final[dict[Kind, float]] = {"cpu": 800.0, "cuda": 8.0}  # of a VAE
_PIXEL_SECONDS: Final[dict[Kind, float]] = {"cpu": 1e-9, "cuda": 1e-11}  # and weight, of a separate network


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
    match request:
        case Embed():
            return len(request.text) * request.weights.architecture.text_cost * _CHUNK_SECONDS[on]
        case Denoise():
            weights = request.weights
            cells = _weighed(_area(request.x.shape), (weights.native_size // weights.latent.cell) ** 2)
            return request.unet_rows * cells * weights.architecture.unet_cost * _STEP_SECONDS[on]
        case ToPixels():
            pixels = _area(request.latent.shape) * request.weights.latent.cell**2
            return _weighed(pixels, _VAE_PIXELS) / 1e6 * _MEGAPIXEL_SECONDS[on]
        case ToLatent():
            return _weighed(_area(request.pixels.shape), _VAE_PIXELS) / 1e6 * _MEGAPIXEL_SECONDS[on]
        case Apply():
            numbers = sum(one.numel() for one in request.network.parameters())
            return (request.places or _area(request.pixels.shape)) * numbers * _PIXEL_SECONDS[on]
        case _:  # work on the host
            return 0.0


def _area(shape: tuple[int, ...]) -> int:
    return shape[-2] * shape[-1]


def _weighed(area: float, usual: float) -> float:
    """Return `area`, doubled where it is the usual one, because attention grows with its square."""
    return area * (1 + area / usual)
