"""Reads pictures that people send: any bytes come in, and a plain PNG or a reason comes out.

No decoder runs in this process: `shared.media.decoder` runs in a child with limits. So does
`shared.media.control_preview`, which shows what control nets would be given.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from queue import Empty, LifoQueue
from typing import Final
from urllib.parse import unquote_to_bytes

from shared.confined.process import Confined
from shared.confined.process import Limits as Bounds
from shared.errors import FieldError, Refused, TooLarge, Unreadable
from shared.media.control_question import ControlQuestion
from shared.media.decoder import Answer, Question, Wish
from shared.media.fair_limit import FairLimit, Share
from shared.settings import Limits

_ALL: Final = Share(at_once=2, most=8)  # each active one takes a processor, each waiting one a thread
_OF_ONE: Final = Share(at_once=1, most=4)  # if owners share the farm
# Apart from those, so that previews keep nobody from sending a picture or a job. One at a time takes up to 1.3 GB.
_PREVIEWS: Final = Share(at_once=1, most=6)
_PREVIEWS_OF_ONE: Final = Share(at_once=1, most=3)
_TRIES: Final = 2  # the machine may have been short of memory when a decoder was ended
_PATIENCE_SECONDS: Final = 30.0
_BUSY: Final = "Too many pictures are being read; try again."
_BUSY_PREVIEWS: Final = "Too many control pictures are being prepared; try again."

_CPU_SECONDS: Final = 20  # the largest of the slowest format takes about six
_SECONDS: Final = 90.0
_BYTES_A_PIXEL: Final = 24  # the picture decoded, turned, converted and encoded, all in memory
_BYTES_BESIDE: Final = 2**28
_BYTES_A_CONTROL_PIXEL: Final = 80  # gradients of a picture, and what is compared to thin its edges
_PREPARED: Final = "an undamaged picture, or a smaller one"
_DATA_URL: Final = re.compile(r"\s*data:[^,]{0,200};\s*base64\s*,", re.ASCII | re.IGNORECASE)
_BLANKS: Final = b" \t\n\f\r"


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored: a PNG (grey, RGB or RGBA, 8 bits) without metadata."""

    png: bytes
    width: int
    height: int

    @cached_property
    def sha256(self) -> str:
        """The hash of the PNG's bytes, which names the picture."""
        return sha256(self.png).hexdigest()


class PictureReader:
    """Reads pictures for many threads, some at a time and, if owners share the farm, one of each owner."""

    def __init__(self, limits: Limits, *, is_shared: Callable[[], bool] = bool) -> None:
        self._limits = limits
        decoded = _BYTES_A_PIXEL * limits.max_upload_pixels
        controlled = decoded + _BYTES_A_CONTROL_PIXEL * limits.max_pixels
        self._decoders = _Children(
            "shared.media.decoder",
            _bounds(decoded, limits.max_upload_pixels),
            FairLimit(_ALL, lambda: _OF_ONE if is_shared() else _ALL, _PATIENCE_SECONDS, _BUSY),
            _ALL.at_once,
        )
        self._previewers = _Children(
            "shared.media.control_preview",
            _bounds(controlled, limits.max_pixels),
            FairLimit(
                _PREVIEWS,
                lambda: _PREVIEWS_OF_ONE if is_shared() else _PREVIEWS,
                _PATIENCE_SECONDS,
                _BUSY_PREVIEWS,
            ),
            _PREVIEWS.at_once,
        )

    def read(self, data: bytes, field: str, owner: str) -> Picture:
        """Return the picture in the bytes of a file, upright; of an animation the first one.

        Raises Refused that names `field`, TooLarge, and Unavailable if too many wait or the wait takes too long.
        """
        answer = self._ask("picture", data, field, owner)
        return Picture(answer.data, answer.width, answer.height)

    def thumbnail(self, data: bytes, field: str, owner: str) -> bytes:
        """Return the picture in the bytes of a file as a small WebP without metadata. Raises as `read` does."""
        return self._ask("thumbnail", data, field, owner).data

    def read_url(self, url: str, field: str, owner: str) -> Picture:
        """Return the picture in a data URL, as `read` does. Blanks and missing padding are accepted."""
        head = _DATA_URL.match(url)
        if not head:
            raise self._refused(field, "is a data URL without base64")
        try:
            letters = unquote_to_bytes(url[head.end() :]).translate(None, _BLANKS)
            data = base64.b64decode(letters.rstrip(b"=") + b"=" * (-len(letters.rstrip(b"=")) % 4), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise self._refused(field, "is a data URL whose base64 is damaged") from None
        return self.read(data, field, owner)

    def text(self, data: bytes, field: str, owner: str) -> str:
        """Return the text in a picture's file; empty if it has none. Raises as `read` does."""
        return self._ask("text", data, field, owner).data.decode()

    def control(self, question: ControlQuestion, field: str, owner: str) -> bytes:
        """Return the picture that a control net would be given, as a PNG. Raises as `read`, except for TooLarge."""
        try:
            answer = self._previewers.answer(question.packed(), owner)
        except Unreadable as error:
            answer = Answer(refused=str(error))
        if answer.refused:
            message = f"cannot be prepared: {answer.refused}"
            raise Refused(f"The picture {message}.", (FieldError(field, message, _PREPARED),))
        return answer.data

    def close(self) -> None:
        """End the decoding processes; a busy one ends with this process."""
        self._decoders.close()
        self._previewers.close()

    def _ask(self, wish: Wish, data: bytes, field: str, owner: str) -> Answer:
        if len(data) > self._limits.max_upload_bytes:
            raise TooLarge("The file is too large.", (self._error(field, f"is {len(data):,} bytes large"),))
        question = Question(wish, self._limits.max_upload_pixels, data).packed()
        try:
            answer = self._decoders.answer(question, owner)
        except Unreadable as error:
            raise self._refused(field, f"cannot be decoded: {error}") from None
        if answer.refused:
            raise self._refused(field, answer.refused)
        return answer

    def _refused(self, field: str, message: str) -> Refused:
        return Refused(f"The picture {message}.", (self._error(field, message),))

    def _error(self, field: str, message: str) -> FieldError:
        megabytes, megapixels = self._limits.max_upload_mb, self._limits.max_upload_megapixels
        accepted = f"a PNG, JPEG, WebP, BMP or GIF of at most {megabytes} MB and {megapixels} megapixels"
        return FieldError(field, message, accepted)


class _Children:
    """Confined processes of one module for many threads, as many as `limit` lets be active."""

    def __init__(self, module: str, bounds: Bounds, limit: FairLimit, at_once: int) -> None:
        self.limit = limit
        self.idle: LifoQueue[Confined] = LifoQueue()  # the last one first, so that the others start only if needed
        for _ in range(at_once):
            self.idle.put(Confined(module, bounds))

    def answer(self, question: bytes, owner: str) -> Answer:
        """Return a child's answer. Raises Unreadable, and Unavailable if too many wait or the wait takes too long."""
        with self.limit.held(owner):
            child = self.idle.get()
            try:
                return _asked(child, question)
            finally:
                self.idle.put(child)

    def close(self) -> None:
        with suppress(Empty):
            while True:
                self.idle.get_nowait().close()


def _bounds(memory_bytes: int, pixels: int) -> Bounds:
    """Return what a child may take that answers with a picture of so many pixels."""
    return Bounds(
        memory_bytes=_BYTES_BESIDE + memory_bytes,
        cpu_seconds=_CPU_SECONDS,
        seconds=_SECONDS,
        answer_bytes=2**20 + 5 * pixels,  # RGBA that cannot be compressed
    )


def _asked(child: Confined, question: bytes) -> Answer:
    """Return the child's answer; a file that ends the child is tried twice. Raises Unreadable."""
    for _ in range(_TRIES - 1):
        try:
            return Answer.unpacked(child.ask(question))
        except Unreadable as error:
            if error.limit:
                raise
    return Answer.unpacked(child.ask(question))
