"""A prediction as events: its pictures when they are there, then how it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

from api.compat.replicate.prediction import PredictionBody
from api.http.sse import HEARTBEAT_SECONDS, in_thread
from api.http.watch import Watch
from api.services import Services
from api.use_cases import jobs
from shared.accounts.principal import Principal
from shared.db.states import ImageState
from shared.errors import FarmError
from shared.messaging.events import ImageChanged

_STILL_HERE: Final = b": the prediction goes on\n\n"


class PredictionEvents:
    """The events of a prediction. Sent from an event loop; what asks servers is done in threads."""

    def __init__(self, services: Services, who: Principal, watch: Watch, root: str) -> None:
        self._services = services
        self._who = who
        self._watch = watch
        self._root = root
        self._sent = 0

    def close(self) -> None:
        """End the watch; the job goes on. May be called again."""
        self._watch.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the same to a server of threads, such as a test's."""
        return in_thread(aiter(self))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        wrote = time.monotonic()
        yield _STILL_HERE
        try:
            async for event in self._watch.events():
                if isinstance(event, ImageChanged) and event.state == ImageState.SUCCEEDED:
                    for part in self._new(await asyncio.to_thread(self._prediction)):
                        wrote = time.monotonic()
                        yield part
                if time.monotonic() - wrote > HEARTBEAT_SECONDS:
                    wrote = time.monotonic()
                    yield _STILL_HERE
            found = await asyncio.to_thread(self._prediction)
        except FarmError as error:
            yield _written("error", str(error), "error")
            return
        for part in self._new(found):
            yield part
        if found.error is not None:
            yield _written("error", found.error, "error")
        yield _written("done", json.dumps({"reason": "canceled"} if found.status == "canceled" else {}), "done")

    def _prediction(self) -> PredictionBody:
        return PredictionBody.from_job(jobs.job(self._services, self._who, self._watch.job_id), self._root)

    def _new(self, found: PredictionBody) -> Iterator[bytes]:
        """Yield the pictures that were not sent."""
        for link in (found.output or [])[self._sent :]:
            self._sent += 1
            yield _written("output", link, f"{self._sent}:0")


def _written(kind: str, data: str, identifier: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {kind}\nid: {identifier}\n{lines}\n".encode()
