"""The files that show how a picture was made: three pictures in WebP, and the figures and tokens in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shared.media.arrays import Pixels
from shared.media.making import Making, PromptPart, Pull
from shared.media.storage import Kind
from worker.encode import encoded

SIDE: Final = 256  # pixels of the longer side of each picture
_START_SIDE: Final = 512
_GAP: Final = 4
_CAPTION: Final = 18
_LETTERS: Final = 12
_QUALITY: Final = 85
_GROUND: Final = (24, 24, 27)
_INK: Final = (212, 212, 216)
_MIDDLE: Final = 128  # the grey of no difference


def files(making: Making) -> Iterator[tuple[Kind, bytes]]:
    """Yield each file with its kind, what says how to read the others last."""
    yield "noise", encoded(_fitted(making.start, _START_SIDE, is_cells=True), "WEBP", quality=_QUALITY)
    if making.stages:
        yield "latents", _stages(making)
    if making.pull:
        yield "guidance", _pull(making.pull)
    yield "intermediates", json.dumps(_figures(making), ensure_ascii=False).encode()


def gain(pull: Pull) -> float:
    """Return the factor at which the largest difference of a pull fills the range of colours."""
    return round(max(1.0, (_MIDDLE - 1) / max(1, int(np.abs(_difference(pull)).max()))), 1)


def _stages(making: Making) -> bytes:
    """Return the latents in one row, and below each what was expected of it."""
    latents = [_fitted(stage.latent, SIDE, is_cells=True) for stage in making.stages]
    expected = [_fitted(stage.expected, SIDE) for stage in making.stages]
    return _sheet([latents, expected], [f"{stage.step}/{stage.steps}" for stage in making.stages])


def _pull(pull: Pull) -> bytes:
    """Return the picture with the prompt, the one without, and their difference around grey."""
    shown = (_MIDDLE + _difference(pull) * gain(pull)).clip(0, 255).astype(np.uint8)
    return _sheet([[_fitted(pixels, SIDE) for pixels in (pull.prompted, pull.unprompted, shown)]], [])


def _difference(pull: Pull) -> np.ndarray:
    return pull.prompted.astype(np.int16) - pull.unprompted.astype(np.int16)


def _fitted(pixels: Pixels, side: int, *, is_cells: bool = False) -> Image.Image:
    """Return a picture with a longer side of `side` pixels; the cells of a latent stay square."""
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if is_cells else Image.Resampling.LANCZOS)


def _sheet(rows: Sequence[Sequence[Image.Image]], captions: Sequence[str]) -> bytes:
    """Return rows of pictures, each column above its caption."""
    every = [image for row in rows for image in row]
    width, height = max(image.width for image in every), max(image.height for image in every)
    columns, foot = len(rows[0]), _CAPTION if captions else 0
    size = (columns * (width + _GAP) - _GAP, len(rows) * (height + _GAP) - _GAP + foot)
    sheet = Image.new("RGB", size, _GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    for down, row in enumerate(rows):
        for across, image in enumerate(row):
            sheet.paste(image, (across * (width + _GAP), down * (height + _GAP)))
    for across, caption in enumerate(captions):
        middle = (across * (width + _GAP) + width / 2, size[1] - _CAPTION / 2)
        draw.text(middle, caption, fill=_INK, font=font, anchor="mm")
    return encoded(sheet, "WEBP", quality=_QUALITY, method=4)


def _figures(making: Making) -> dict[str, object]:
    """Return what the pictures show, in figures, and the tokens."""
    pull = making.pull
    return {
        "start": [making.start.shape[1], making.start.shape[0]],
        "steps": [
            {"step": one.step, "steps": one.steps, "sigma": round(one.sigma, 4), "second_pass": one.is_second_pass}
            for one in making.stages
        ],
        "guidance": pull and {"step": pull.step, "sigma": round(pull.sigma, 4), "gain": gain(pull)},
        "prompt": _parts(making.prompt),
        "negative_prompt": _parts(making.negative_prompt),
    }


def _parts(parts: Sequence[PromptPart]) -> list[dict[str, object]]:
    return [
        {"weight": part.weight, "chunks": [[token._asdict() for token in chunk] for chunk in part.chunks]}
        for part in parts
    ]
