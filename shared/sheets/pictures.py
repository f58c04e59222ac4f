"""The pictures of cells, scaled down one at a time: no decoder runs in this process (`shared.media.decoder`)."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from PIL import Image

from shared.confined.process import Confined
from shared.confined.process import Limits as Bounds
from shared.errors import Unreadable
from shared.media.decoder import Answer, Question
from shared.sheets.drawing import MAX_CELL, Empty
from shared.sheets.drawing import Cell as Drawn

_CPU_SECONDS: Final = 20
_SECONDS: Final = 90.0
_BYTES_A_PIXEL: Final = 16  # decoded, converted and scaled down
_BYTES_BESIDE: Final = 2**26
_ANSWER_BYTES: Final = 2**16 + 3 * MAX_CELL**2


class CellPictures:
    """Scales pictures of at most `most_pixels` down, in a confined process that lives as long as the block."""

    def __init__(self, most_pixels: int) -> None:
        self._most_pixels = most_pixels
        memory = _BYTES_BESIDE + _BYTES_A_PIXEL * most_pixels
        bounds = Bounds(memory, _CPU_SECONDS, _SECONDS, answer_bytes=_ANSWER_BYTES)
        self._decoder = Confined("shared.media.decoder", bounds)

    def fitted(self, data: bytes, width: int, height: int) -> Drawn:
        """Return the picture in the bytes of a file, no larger than this; or that it cannot be read."""
        question = Question("fitted", self._most_pixels, data, (width, height))
        try:
            answer = Answer.unpacked(self._decoder.ask(question.packed()))
        except Unreadable as error:
            answer = Answer(refused=str(error))
        if answer.refused:
            return Empty("unreadable", answer.refused)
        return Image.frombytes("RGB", (answer.width, answer.height), answer.data)

    def close(self) -> None:
        """End the process."""
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
