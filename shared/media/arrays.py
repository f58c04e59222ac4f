"""Pictures as arrays of bytes: flattened, brought to a size, cut."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.params.fields import ResizeMode

Pixels = NDArray[np.uint8]  # [height, width, 3], red, green, blue
Mask = NDArray[np.uint8]  # [height, width]

OPAQUE: Final = 255
THRESHOLD: Final = 128  # a mask is set above it
_LANCZOS: Final = Image.Resampling.LANCZOS


def flattened(picture: Image.Image) -> Pixels:
    """Return any picture as bytes [h, w, 3], on white if it is transparent."""
    layers = Image.new("RGBA", picture.size, "white")
    layers.alpha_composite(_of_bytes(picture).convert("RGBA"))
    return np.asarray(layers.convert("RGB"))


def split(picture: Image.Image) -> tuple[Pixels, Mask | None]:
    """Return any picture as bytes [h, w, 3], and its alpha [h, w]; None if it is opaque everywhere."""
    layers = np.asarray(_of_bytes(picture).convert("RGBA"))
    alpha = layers[:, :, 3]
    return np.ascontiguousarray(layers[:, :, :3]), None if alpha.min() == OPAQUE else np.ascontiguousarray(alpha)


def mask(picture: Image.Image) -> Mask:
    """Return 255 where `picture` is set, else 0 [h, w]: by its alpha if that is not set everywhere, else by brightness.

    Programs that write an opaque picture set its alpha everywhere, and do not mean a mask.
    """
    picture = _of_bytes(picture)
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    strength = alpha if alpha.min() <= THRESHOLD else np.asarray(picture.convert("L"))
    return rounded(strength)


def rounded(strength: NDArray[np.uint8]) -> Mask:
    """Return `strength` as 255 above the threshold, else 0."""
    return np.where(strength > THRESHOLD, OPAQUE, 0).astype(np.uint8)


def resized(pixels: NDArray[np.uint8], width: int, height: int, mode: ResizeMode = "resize") -> NDArray[np.uint8]:
    """Return a picture [h, w, 3] or a mask [h, w] at another size.

    `crop` covers the size and cuts off the rest, the same on both sides; `fill` fits into it and repeats the outermost
    pixels up to the borders; any other mode stretches the picture to the size.
    """
    if mode not in {"crop", "fill"}:
        return _stretched(pixels, width, height)
    inner_width, inner_height = _inner(pixels.shape[1], pixels.shape[0], width, height, covers=mode == "crop")
    inner = _stretched(pixels, inner_width, inner_height)
    return _centred(inner, width, height)


def cut(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return the middle of a picture [h, w, 3] or a mask [h, w] that is not smaller than this size."""
    left, top = (pixels.shape[1] - width) // 2, (pixels.shape[0] - height) // 2
    return pixels[top : top + height, left : left + width]


def enlarged(pixels: Pixels, width: int, height: int, *, is_nearest: bool) -> Pixels:
    """Return `pixels` at a larger size, smoothly by Lanczos or in blocks."""
    method = Image.Resampling.NEAREST if is_nearest else _LANCZOS
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def _of_bytes(picture: Image.Image) -> Image.Image:
    """Return `picture` with a byte a channel: Pillow would cut off 16 bits instead of scaling them."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))


def _stretched(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), _LANCZOS))


def _inner(width: int, height: int, into_width: int, into_height: int, *, covers: bool) -> tuple[int, int]:
    """Return the size with the same proportions that covers another size, or fits into it."""
    is_wider = width * into_height > into_width * height
    if is_wider == covers:
        return max(1, width * into_height // height), into_height
    return into_width, max(1, height * into_width // width)


def _centred(inner: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return `inner` in the middle of another size: cut if it is larger, its edges repeated if it is smaller."""
    inside = cut(inner, min(width, inner.shape[1]), min(height, inner.shape[0]))
    short_x, short_y = width - inside.shape[1], height - inside.shape[0]
    borders = ((short_y // 2, short_y - short_y // 2), (short_x // 2, short_x - short_x // 2))
    return np.pad(inside, (*borders, *((0, 0) for _ in inside.shape[2:])), mode="edge")
