"""A picture as the characters with which a terminal shows it."""

from __future__ import annotations

import math
from base64 import standard_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import Final

import numpy as np
from PIL import Image

_CHUNK: Final = 4096  # bytes of base64 in one command, by kitty's protocol
_HEIGHT: Final = 6  # pixels in a band of sixels
_BLOCK: Final = (1, 2)  # pixels in a cell that shows half blocks
_LARGE: Final = 1024  # pixels that no terminal has more of for one of several pictures
_SMALL: Final = 256  # pixels of the longer side up to which a picture is enlarged
_LEVELS: Final = (0, 95, 135, 175, 215, 255)  # of the colour cube of 256 colours


@dataclass(frozen=True)
class Place:
    """The room for a picture: cells, and pixels in one of them."""

    columns: int
    rows: int
    cell: tuple[int, int]

    def around(self, picture: Image.Image) -> Place:
        """Return the cells that the picture takes when it fills this place in its own proportions."""
        width, height = self.columns * self.cell[0], self.rows * self.cell[1]
        most = max(1.0, _SMALL / max(picture.size))
        scale = min(width / picture.width, height / picture.height, most)
        columns = math.ceil(picture.width * scale / self.cell[0])
        rows = math.ceil(picture.height * scale / self.cell[1])
        return Place(max(1, columns), max(1, rows), self.cell)

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.columns * self.cell[0], self.rows * self.cell[1]


def together(files: Sequence[bytes]) -> Image.Image:
    """Return pictures as one, side by side in as many rows as columns."""
    pictures = [Image.open(BytesIO(file)).convert("RGB") for file in files]
    for picture in pictures:
        picture.thumbnail((_LARGE, _LARGE))
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = max(one.width for one in pictures), max(one.height for one in pictures)
    whole = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % columns * width, number // columns * height))
    return whole


def kitty(picture: Image.Image, place: Place) -> str:
    """Return a picture by kitty's graphics protocol: a PNG in pieces."""
    file = BytesIO()
    place = place.around(picture)
    _fitted(picture, place.pixels).save(file, "PNG")
    data = standard_b64encode(file.getvalue()).decode()
    pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    first = f"a=T,f=100,q=2,c={place.columns},r={place.rows},"
    commands = (
        f"\x1b_G{first if number == 0 else ''}m={int(number < len(pieces) - 1)};{piece}\x1b\\"
        for number, piece in enumerate(pieces)
    )
    return "".join(commands) + "\n"


def sixel(picture: Image.Image, place: Place) -> str:
    """Return a picture as sixels of at most 256 colours."""
    small = _fitted(picture, place.around(picture).pixels).quantize(256)
    palette = np.array(small.getpalette(), np.uint16).reshape(-1, 3) * 100 // 255
    colours = "".join(f"#{number};2;{red};{green};{blue}" for number, (red, green, blue) in enumerate(palette))
    pixels = np.asarray(small)
    bands = (pixels[top : top + _HEIGHT] for top in range(0, small.height, _HEIGHT))
    return f'\x1bP0;1q"1;1;{small.width};{small.height}{colours}{"-".join(map(_band, bands))}\x1b\\\n'


def _band(rows: np.ndarray) -> str:
    """Return six rows [rows, width] of numbers of colours: each colour over the others, from the left again."""
    bits = (1 << np.arange(len(rows), dtype=np.uint8))[:, None]
    return "$".join(f"#{colour}{_repeated(((rows == colour) * bits).sum(0) + 63)}" for colour in np.unique(rows))


def _repeated(codes: np.ndarray) -> str:
    """Return characters by their codes, those that repeat as their number."""
    runs = ((chr(code), len(list(run))) for code, run in groupby(codes.tolist()))
    return "".join(f"!{length}{char}" if length > 3 else char * length for char, length in runs)


def blocks(picture: Image.Image, place: Place, *, true_colours: bool) -> str:
    """Return a picture as half blocks: a cell shows two pixels, one above the other, by its two colours."""
    colour = _true if true_colours else _of_256
    fitted = Place(place.columns, place.rows, _BLOCK).around(picture)
    pixels = np.asarray(picture.resize(fitted.pixels, Image.Resampling.LANCZOS)).tolist()
    return "".join(_line(upper, lower, colour) for upper, lower in zip(pixels[::2], pixels[1::2], strict=True))


def _line(upper: list[list[int]], lower: list[list[int]], colour: Callable[[Sequence[int]], str]) -> str:
    cells = ((colour(above), colour(below)) for above, below in zip(upper, lower, strict=True))
    runs = (f"\x1b[38;{above};48;{below}m{'▀' * len(list(run))}" for (above, below), run in groupby(cells))
    return f"{''.join(runs)}\x1b[0m\n"


def _true(pixel: Sequence[int]) -> str:
    return "2;" + ";".join(map(str, pixel))


def _of_256(pixel: Sequence[int]) -> str:
    """Return the nearest colour of the cube of 256 colours."""
    red, green, blue = (min(range(6), key=lambda level: abs(_LEVELS[level] - value)) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture as large as fits into a size, in its own proportions."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    wanted = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(wanted, Image.Resampling.LANCZOS)
