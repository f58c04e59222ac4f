"""How near an enlarged picture comes to the scene as the generator draws it at that size."""

from collections.abc import Callable, Iterator

import numpy as np
from diffusers.models import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image

from tools.demo_adapters import compact
from tools.demo_checkpoint.measures import Row

Picture = NDArray[np.uint8]
SEED = 7502  # of scenes that the upscaler was not trained with


def rows(enlarge: Callable[[Picture], Picture], vae: AutoencoderKL, count: int) -> Iterator[Row]:
    """Lanczos and `enlarge`, on scenes as they are drawn and as the VAE gives them back."""
    pairs = [compact.pair(SEED, index, vae) for index in range(count)]
    wanted = np.stack([large for large, _ in pairs])
    for number, source in enumerate(("as drawn", "as the VAE gives them back")):
        plain, own = (np.stack([way(small[number]) for _, small in pairs]) for way in (lanczos, enlarge))
        ratios = psnr(plain, wanted), psnr(own, wanted)
        value = f"{ratios[0]:.1f} dB, {ratios[1]:.1f} dB"
        yield Row(f"PSNR of scenes {source}, by Lanczos and by the upscaler", "rises", value, ratios[1] > ratios[0])
        errors = slope_error(plain, wanted), slope_error(own, wanted)
        value = f"{errors[0]:.2f}, {errors[1]:.2f} of 255"
        yield Row(f"error of slopes of scenes {source}, by both", "falls", value, errors[1] < errors[0])


def lanczos(picture: Picture) -> Picture:
    """The picture at four times its size."""
    height, width = (compact.SCALE * side for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def psnr(found: Picture, wanted: Picture) -> float:
    """The peak signal-to-noise ratio in decibels, of one picture or of many together."""
    error = np.square(found.astype(np.float32) - wanted).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def slope_error(found: Picture, wanted: Picture) -> float:
    """The mean absolute error of the differences between neighbours, of 0..255: what is lost or invented at edges."""
    error = found.astype(np.float32) - wanted
    return float((np.abs(np.diff(error, axis=-3)).mean() + np.abs(np.diff(error, axis=-2)).mean()) / 2)
