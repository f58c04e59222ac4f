"""Answers that can be made only when something has happened: until then their requests hold no thread.

The server (`api.server.bridge`) awaits what has to happen in its event loop. Then it asks the application again, which
goes on where it stopped. Under a server of threads, such as a test's, the request waits in its thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final, Protocol, cast, runtime_checkable

from flask import Flask, Response, request

SUPPORTED: Final = "stepfarm.later"  # in the environ of a request whose server can wait
_RESUME: Final = "stepfarm.resume"


@runtime_checkable
class Later(Protocol):
    """What an answer waits for."""

    async def happened(self) -> None:
        """Return when it has happened."""

    def close(self) -> None:
        """End it, also before it has happened: the client has gone, or the server stops. Called in a thread."""


def init_app(app: Flask) -> None:
    """Go on with a request that has waited, once it is known again who asks."""
    app.before_request(_resume)


def answer_later(awaited: Later, resume: Callable[[], Response]) -> Response:
    """Return an answer that `resume` makes, called in this request's context when `awaited` has happened."""
    if not request.environ.get(SUPPORTED):
        with closing(awaited), ThreadPoolExecutor(1, "later") as thread:  # in the caller's a loop may run already
            thread.submit(lambda: asyncio.run(awaited.happened())).result()
        return resume()
    request.environ[_RESUME] = resume
    return Response(cast("bytes", awaited), mimetype="application/octet-stream", direct_passthrough=True)


def is_later(answer: Response) -> bool:
    """True of an answer that has still to be made."""
    return isinstance(answer.response, Later)


def is_resumed() -> bool:
    """True of a request that has waited and goes on now."""
    return _RESUME in request.environ


def _resume() -> Response | None:
    resume: Callable[[], Response] | None = request.environ.pop(_RESUME, None)
    return resume() if resume else None
