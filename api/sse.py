"""A job's events as a stream (server-sent events): changes as they happen, and its end.

What is sent are hints: Redis may lose some, so the stream looks into PostgreSQL by itself now and then, and without
Redis it lives off that. However many streams are open, Redis sees one subscription a process.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from api import use_cases
from api.services import Services
from shared.errors import NotFound, Unavailable
from shared.events import JobChanged, Progress, Received, Subscription
from shared.states import FINAL

HEARTBEAT_SECONDS: Final = 5  # who has gone is found by writing, and holds a thread until then
LOOK_SECONDS: Final = 3
_TURN_SECONDS: Final = 0.5  # how soon a stopping server's streams end
_FIRST_ID: Final = "0-0"
_ID: Final = re.compile(r"\d{1,19}-\d{1,19}")


def event_id(header: str | None) -> str | None:
    """Return the id of a Last-Event-ID header; None where it holds none of ours."""
    return header if header and _ID.fullmatch(header) else None


def stream(services: Services, owner: str, job_id: int, after: str | None) -> Iterator[str]:
    """Yield the job's state, then its events, those after the id `after` first, until it ends or the server stops."""
    last_id = after or _FIRST_ID
    with suppress(NotFound, Unavailable), services.events.subscribe(job_id) as subscription:  # deleted; no database
        job = _look(services, owner, job_id)  # after subscribing: nothing falls between the two
        yield _written("job", last_id, asdict(job))
        for received in services.events.replay(job_id, after) if after else ():
            last_id = received.id
            yield _sent(received)
        yield from _follow(services, owner, job, subscription, last_id)


def _follow(services: Services, owner: str, job: JobChanged, subscription: Subscription, last_id: str) -> Iterator[str]:
    looked = wrote = time.monotonic()
    while job.state not in FINAL and not services.stopping.is_set():
        received = subscription.get(_TURN_SECONDS)
        now = time.monotonic()
        if received:
            last_id, wrote = received.id, now
            yield _sent(received)
        is_news = received is not None and not isinstance(received.event, Progress)
        if is_news or now - looked > LOOK_SECONDS:
            before, job, looked = job, _look(services, owner, job.job), now
            if job != before:
                yield _written("job", last_id, asdict(job))
        if now - wrote > HEARTBEAT_SECONDS:
            wrote = now
            yield ": still here\n\n"
    if job.state in FINAL:
        yield _written("end", last_id, asdict(job))


def _look(services: Services, owner: str, job_id: int) -> JobChanged:
    return JobChanged(job_id, use_cases.state(services, owner, job_id))


def _sent(received: Received) -> str:
    return _written(received.event.kind, received.id, asdict(received.event))


def _written(kind: str, identifier: str, data: dict[str, object]) -> str:
    return f"event: {kind}\nid: {identifier}\ndata: {json.dumps(data)}\n\n"
