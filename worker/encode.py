"""Pictures as files that carry their parameters, in three formats; thumbnails and previews in WebP."""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shared.infotext import files
from shared.params.fields import FileFormat

Pixels = NDArray[np.uint8]  # [height, width, 3], or 4 with alpha

THUMBNAIL_SIDE: Final = 256
QUALITY: Final = 95  # of JPEG, with colours at full resolution, and of WebP: no difference that people see
_PNG_LEVEL: Final = 2  # a few percent larger than level 6 and several times faster: cards outrun level 6


def picture(
    pixels: Pixels, parameters: str, form: FileFormat, postprocessing: str = "", *, quality: int = QUALITY
) -> bytes:
    """Return `pixels` [h, w, 3 or 4] as a file of the format `form` that carries texts where the ecosystem reads them.

    `postprocessing` says what was done to a picture that was made before. Only PNG has room for both texts, and no use
    for a quality.
    """
    image = Image.fromarray(pixels)
    if form != "png":
        parameters = parameters or postprocessing
    if form == "jpeg":
        image = _on_white(image)
        return encoded(image, "JPEG", quality=quality, subsampling=0, **files.jpeg(parameters))
    if form == "webp":
        return encoded(image, "WEBP", quality=quality, method=4, exif=files.exif(parameters))
    info = PngInfo()
    for chunk, words in ((files.CHUNK, parameters), (files.POSTPROCESSING, postprocessing)):
        if words:
            add = info.add_text if words.isascii() else info.add_itxt  # tEXt is Latin-1, but often read as UTF-8
            add(chunk, words)
    return encoded(image, "PNG", compress_level=_PNG_LEVEL, pnginfo=info)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    layers = Image.new("RGBA", image.size, "white")
    layers.alpha_composite(image)
    return layers.convert("RGB")


def thumbnail(pixels: Pixels) -> bytes:
    """Return `pixels` as WebP, at most THUMBNAIL_SIDE pixels a side, never enlarged."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return encoded(image, "WEBP", quality=85, method=2)


def preview(pixels: Pixels) -> bytes:
    """Return a small unfinished picture as WebP; the page enlarges it."""
    return encoded(Image.fromarray(pixels), "WEBP", quality=75, method=0)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """Return an image as a file, by Pillow's options."""
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
