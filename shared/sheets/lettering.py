"""Lines of text on a sheet, in a font that has Latin and Chinese letters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

from PIL import ImageFont

_FONT: Final = ("pylopdf_fonts_zh_cn", "NotoSansSC-Regular.otf")  # deploy/decisions/0046
_LONGEST: Final = 4000  # letters of a text that are looked at
_MORE: Final = "…"
# Words with the blanks before them; Chinese and its neighbours may be parted after each letter.
_WORDS: Final = re.compile(r"\s*(?:[\u2e80-\uffef]|[^\s\u2e80-\uffef]+)")


@dataclass(frozen=True)
class Letters:
    """Letters of one size, in pixels."""

    size: int

    @property
    def line(self) -> int:
        """The height of a line."""
        return round(self.size * 1.45)

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        return _font(self.size)

    def width(self, text: str) -> int:
        return round(self.font.getlength(text))

    def lines(self, text: str, width: int, most: int) -> list[str]:
        """Return `text` in lines of at most `width` pixels, the last of `most` with an ellipsis if there is more."""
        lines: list[str] = []
        filled: float = width
        for word in _WORDS.findall(_plain(text[:_LONGEST])):
            needed = _word_width(self.size, word)
            if filled + needed <= width:
                lines[-1] += word
                filled += needed
            elif len(lines) < most:
                lines.append(word.lstrip())
                filled = _word_width(self.size, lines[-1])
            else:
                lines[-1] += _MORE
                break
        else:
            if lines and len(text) > _LONGEST:
                lines[-1] += _MORE
        return [self._shortened(line, width) for line in lines]

    def _shortened(self, line: str, width: int) -> str:
        """Return a line that is too wide, as one word may be, without its end."""
        if self.width(line) <= width:
            return line
        low, high = 0, len(line)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.width(line[:middle] + _MORE) <= width else (low, middle - 1)
        return line[:low] + _MORE


@lru_cache(2**14)
def _word_width(size: int, word: str) -> float:
    return _font(size).getlength(word)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    package, name = _FONT
    return ImageFont.truetype(str(files(package) / name), size, layout_engine=ImageFont.Layout.BASIC)


def _plain(text: str) -> str:
    """Return `text` on one line, without what has no letter."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
