"""The composition root: what the API works with, built once and joined in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event
from typing import Final, cast

from flask import current_app
from sqlalchemy import Engine

from shared.database import Sessions, connect, sessions
from shared.events import Events
from shared.settings import Settings
from shared.storage import Storage
from shared.tickets import Tickets, celery_app

EXTENSION: Final = "stepfarm"


@dataclass(frozen=True)
class Services:
    """Everything that a use case may need."""

    settings: Settings
    engine: Engine
    sessions: Sessions
    storage: Storage
    events: Events
    tickets: Tickets
    streams: BoundedSemaphore  # event streams that may be open at once: each keeps a thread
    waits: BoundedSemaphore  # requests that may wait for a job's end at once
    stopping: Event = field(default_factory=Event)  # set when the server stops: who waits for long lets go

    def close(self) -> None:
        """Let go of every connection; streams and waits end at once."""
        self.stopping.set()
        self.tickets.close()
        self.events.close()
        self.engine.dispose()


def join(settings: Settings) -> Services:
    """Return the services of `settings`. Nothing is asked of a server yet: the API starts while they are away."""
    engine = connect(settings.database, pool_size=settings.api_threads, application="stepfarm-api")
    return Services(
        settings=settings,
        engine=engine,
        sessions=sessions(engine),
        storage=Storage(settings.storage),
        events=Events(settings.redis),
        tickets=Tickets(celery_app(settings.redis)),
        streams=BoundedSemaphore(min(settings.max_streams, settings.api_threads // 2)),
        waits=BoundedSemaphore(max(settings.api_threads // 4, 1)),
    )


def services() -> Services:
    """Return the services of the application that answers now."""
    return cast("Services", current_app.extensions[EXTENSION])
