"""Pictures as events: previews while they are rendered, then each when it is complete."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final

from api.compat.openai import errors
from api.compat.openai.answer import Completed, PartialImage, Rendered
from api.compat.openai.failures import failure
from api.http.sse import HEARTBEAT_SECONDS, in_thread
from api.http.watch import Watch
from shared.db.states import ImageState
from shared.errors import FarmError
from shared.messaging.events import Event, ImageChanged, PreviewChanged, Progress

_STILL_HERE: Final = b": the job goes on\n\n"


class PictureEvents:
    """The events of one request. Sent from an event loop; what asks servers is done in threads."""

    def __init__(self, watch: Watch, first: Rendered) -> None:
        self._watch = watch
        self._now = first
        self._done: dict[int, float] = {}  # which share of an image's steps, by index
        self._previews: Counter[int] = Counter()  # that were sent of each image
        self._complete: set[int] = set()  # the images that were sent

    def close(self) -> None:
        """End the watch: a job that has not ended is cancelled. May be called again."""
        self._watch.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the same to a server of threads, such as a test's."""
        return in_thread(aiter(self))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        wrote = time.monotonic()
        yield _STILL_HERE  # who reads knows at once that the request was accepted
        try:
            async for event in self._watch.events():
                if make := self._due(event):
                    for part in await asyncio.to_thread(make):
                        wrote = time.monotonic()
                        yield part
                if time.monotonic() - wrote > HEARTBEAT_SECONDS:
                    wrote = time.monotonic()
                    yield _STILL_HERE
            for part in await asyncio.to_thread(self._rest):
                yield part
        except FarmError as error:
            yield _error(errors.error(error.status, str(error)))

    def _due(self, event: Event | None) -> Callable[[], list[bytes]] | None:
        """Return what makes events of an event of the job, in a thread; None: it means nothing to the client."""
        match event:
            case Progress():
                self._done[event.index] = event.step / max(event.steps, 1)
            case PreviewChanged() if self._is_due(event.index):
                return partial(self._preview, event.index)
            case ImageChanged(state=ImageState.SUCCEEDED):
                return self._pictures
        return None

    def _is_due(self, index: int) -> bool:
        """True if the image is far enough for its next preview: they are spread over its steps."""
        sent, most = self._previews[index], self._now.wanted.partial_images or 0
        return sent < most and self._done.get(index, 0.0) >= (sent + 1) / (most + 1)

    def _preview(self, index: int) -> list[bytes]:
        found = self._now.preview(index)
        if found is None:
            return []
        number = self._previews[index]
        self._previews[index] += 1
        return [_written(self._now.partial(index, number, found))]

    def _pictures(self) -> list[bytes]:
        """Return the events of the images that are complete now and were not before."""
        self._now = self._now.again()
        new = [image for image in self._now.succeeded if image.index not in self._complete]
        self._complete |= {image.index for image in new}
        return [_written(self._now.completed(image)) for image in new]

    def _rest(self) -> list[bytes]:
        """Return the last events: pictures, or why there are none."""
        rest = self._pictures()
        failed = None if self._complete else failure(self._now.job, self._watch)
        return rest if failed is None else [_error(errors.error(failed.status, failed.message, code=failed.code))]


def _written(event: PartialImage | Completed) -> bytes:
    return f"event: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


def _error(body: dict[str, Any]) -> bytes:
    return f"event: error\ndata: {json.dumps(body)}\n\n".encode()
