"""A request that waits for a job's end without a thread; if it submitted the job, that goes when its client does.

Other systems' APIs answer with pictures instead of the address of a job. What the farm's own API does with a job that
nobody fetches (it is rendered and kept) would have those clients, who try again, fill the farm with pictures that
nobody ever sees.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import Final, Self

import structlog

from api.http import sse
from api.services import Services
from api.use_cases import jobs
from shared.accounts.principal import Principal
from shared.db.states import ImageState
from shared.errors import REVOKED, FarmError, Unauthorized, Unavailable
from shared.messaging.events import Event, PreviewChanged, Progress, Subscription

log = structlog.get_logger(__name__)

TURN_SECONDS: Final = 0.5


class Watch:
    """A watch over a job. It holds one of the owner's places for event streams until it is closed."""

    def __init__(self, services: Services, who: Principal, seconds: float) -> None:
        """Take a place. Raises Unavailable if too many requests wait."""
        self.seconds = seconds
        self.job_id = 0
        self._services = services
        self._who = who
        self._cancels = False
        self._state: ImageState | None = ImageState.QUEUED  # None: the job was deleted
        self._subscription = Subscription()
        self._held = ExitStack()
        if not services.streams.take(who.owner):
            raise Unavailable("Too many requests wait for pictures: try again later.")
        self._held.callback(services.streams.give, who.owner)

    @classmethod
    def follow(cls, services: Services, who: Principal, job_id: int, seconds: float = math.inf) -> Self:
        """Return the watch over a job that goes on without it. Raises Unavailable if too many requests wait."""
        watch = cls(services, who, seconds)
        watch._begin(job_id)
        return watch

    @classmethod
    def submit(
        cls,
        services: Services,
        who: Principal,
        given: object,
        idempotency_key: str | None = None,
        *,
        door: str | None = None,
    ) -> Self:
        """Return the watch over a new job, submitted as `api.use_cases.jobs.submit` does, which is cancelled with it.

        A job with an idempotency key is not: the client that sent it can come back for it. Raises as that does, and
        Unavailable, with nothing recorded, if too many requests wait.
        """
        watch = cls(services, who, services.settings.door_seconds)
        try:
            watch._begin(jobs.submit(services, who, given, idempotency_key, door=door).job.id)
        except BaseException:
            watch.close()
            raise
        watch._cancels = idempotency_key is None
        return watch

    def _begin(self, job_id: int) -> None:
        """Subscribe to the job; its state is looked up afterwards, so that no change falls between the two."""
        self.job_id = job_id
        self._subscription = self._held.enter_context(self._services.events.subscribe(job_id))

    @property
    def has_ended(self) -> bool:
        """True where the job was seen to have ended, or to have been deleted."""
        return self._state is None or self._state.is_final

    @property
    def is_stopped(self) -> bool:
        """True where the server stops before the job has ended."""
        return self._services.stopping.is_set() and not self.has_ended

    async def events(self) -> AsyncIterator[Event | None]:
        """Yield what happens to the job until it has ended, the time is over or the server stops; None now and then.

        Events are hints: the job's state is looked up as well, also while Redis is away. Raises Unauthorized once the
        key of who watches has been revoked.
        """
        began, looked = time.monotonic(), 0.0
        while (left := began + self.seconds - time.monotonic()) > 0 and not self._services.stopping.is_set():
            if not self._services.still_knows(self._who):
                raise Unauthorized(REVOKED)
            if time.monotonic() - looked > sse.LOOK_SECONDS:
                looked = time.monotonic()
                with suppress(Unavailable):
                    self._state = await asyncio.wrap_future(self._services.state_lookups.state(self.job_id))
            if self.has_ended:
                return
            received = await sse.next_event(self._subscription, min(TURN_SECONDS, left))
            if received and not isinstance(received.event, (Progress, PreviewChanged)):
                looked = 0.0
            yield received.event if received else None

    async def happened(self) -> None:
        """Return when the job has ended, the time is over, the server stops or the key was revoked.

        Of a key that was revoked the request hears when it goes on, because it shows the key again then.
        """
        with suppress(Unauthorized):
            async for _ in self.events():
                pass

    def close(self) -> None:
        """Give the place back, and cancel a submitted job that has not ended. May be called again."""
        self._held.close()
        if self._cancels and not self.has_ended:
            self._cancels = False
            with suppress(FarmError):  # it has ended meanwhile, or the database is away
                jobs.cancel(self._services, self._who, self.job_id)
                log.info("nobody waits for a job any more: it is cancelled", job=self.job_id)
