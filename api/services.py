"""The composition root: what the API works with, built once and joined in one frozen value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Final, cast

from flask import current_app
from sqlalchemy import Engine

from api.background_polls import Poll
from api.kept_jobs import KeptJobs
from api.quotas import Places
from api.readiness import Readiness
from api.request_rate import RequestRate
from api.session_lookups import SessionLookups
from api.shared_lookup import SharedLookup
from api.state_lookups import StateLookups
from shared.accounts import browser_sessions
from shared.accounts.keyring import FRESH_SECONDS, Keyring
from shared.accounts.principal import Principal, Role
from shared.accounts.scope import EVERYBODYS
from shared.accounts.secret import kept_secret
from shared.db.farm import farm_id
from shared.db.sessions import Sessions, connect, sessions, transact
from shared.db.states import ImageState
from shared.media.decode import PictureReader
from shared.media.ownership import guarded
from shared.media.storage import Storage
from shared.messaging.events import Events
from shared.messaging.request_counts import RequestCounts
from shared.messaging.tickets import Tickets
from shared.models.kept_catalogue import KeptCatalogue
from shared.queue import queries
from shared.queue.explainer import Explainer
from shared.queue.versions import Version, versions
from shared.settings import EVERYBODY, Limits, Settings

EXTENSION: Final = "stepfarm"
_ROOM_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Services:
    """Everything that a use case may need."""

    settings: Settings
    engine: Engine
    sessions: Sessions
    storage: Storage
    events: Events
    tickets: Tickets
    secret: str = field(repr=False)  # signs cookies
    keyring: Keyring
    key_lookups: Poll[None]  # while streams are open: a key that is revoked ends them
    session_lookups: SessionLookups  # and so does signing out
    request_rate: RequestRate  # of each key
    explainer: Explainer  # why jobs wait
    picture_reader: PictureReader
    catalogue: KeptCatalogue
    state_lookups: StateLookups  # of jobs that are followed
    job_versions: SharedLookup[Version]  # whether polled jobs have changed
    kept_jobs: KeptJobs  # as they were polled last
    streams: Places  # for event streams
    waits: Places  # for requests that wait for a job's end: each keeps a thread
    readiness: Readiness  # the status of each part of the farm
    picture_bytes: Poll[int]  # size of all committed pictures: a sum over every image
    free_bytes: Poll[int | None]  # what the storage's disk still takes
    stopping: Event = field(default_factory=Event)  # set when the server stops: streams and waits end

    def limits(self, who: Principal) -> Limits:
        """Return the limits of admission for the caller, those of the owner among them.

        Of those with keys operators may be urgent, owners that a setting names, and owners whose own limit says so.
        """
        limits, own, names = self.settings.limits, who.limits, self.settings.urgent_owners.split(",")
        may_be_urgent = who.role.includes(Role.OPERATOR) or EVERYBODY in names if own.urgent is None else own.urgent
        urgent_owners = None if may_be_urgent else tuple(filter(None, names)) if own.urgent is None else ()
        update: dict[str, object] = {"urgent_owners": urgent_owners, "of_owner": own}
        if own.upload_mb is not None:
            update["max_uploads_mb_per_owner"] = own.upload_mb
        if own.checkpoints:
            update["first_checkpoint"] = own.checkpoints[0]
        return limits.model_copy(update=update)

    def still_knows(self, who: Principal) -> bool:
        """False within a second after their browser signed out, and a second or two after the key of `who` was revoked.

        A stream asks so for as long as it lasts. The answer waits for nothing, and has SQL asked meanwhile.
        """
        self.key_lookups.ask()
        is_signed_in = who.session is None or self.session_lookups.lasts(who.session)
        return is_signed_in and self.keyring.still_knows(who)

    def close(self) -> None:
        """Close every connection; streams and waits end at once."""
        self.stopping.set()
        for poll in (self.readiness, self.picture_bytes, self.free_bytes, self.key_lookups):
            poll.close()
        self.request_rate.close()
        self.session_lookups.close()
        self.state_lookups.close()
        self.tickets.close()
        self.events.close()
        self.explainer.close()
        self.picture_reader.close()
        self.engine.dispose()


def join(settings: Settings) -> Services:
    """Return the services of `settings`. Nothing is asked of a server yet: the API starts while they are away."""
    engine = connect(settings.database, pool_size=settings.api_threads, application="stepfarm-api")
    factory = sessions(engine)
    ours = farm_id(factory)
    secret = settings.secret_key or kept_secret(settings.home)
    keyring = Keyring(settings, factory, secret)

    def look_up(jobs: Collection[int]) -> Mapping[int, ImageState]:
        return transact(factory, partial(queries.states, whose=EVERYBODYS, job_ids=jobs))

    one_by_one = engine.execution_options(isolation_level="AUTOCOMMIT")  # no sessions: polls are quicker without

    def look_at_versions(jobs: Collection[int]) -> Mapping[int, Version]:
        return transact(one_by_one, partial(versions, job_ids=jobs))

    def look_up_sessions(digests: Collection[str]) -> Collection[str]:
        return transact(factory, partial(browser_sessions.lasting, digests=digests))

    storage, events = guarded(settings.storage, factory, ours), Events(settings.redis, ours)
    return Services(
        settings=settings,
        engine=engine,
        sessions=factory,
        storage=storage,
        events=events,
        tickets=Tickets(settings.redis, ours),
        secret=secret,
        keyring=keyring,
        key_lookups=Poll(keyring.refresh, lambda _: FRESH_SECONDS),
        session_lookups=SessionLookups(look_up_sessions),
        request_rate=RequestRate(settings.requests_per_minute, RequestCounts(settings.redis, ours).add),
        explainer=Explainer(factory, settings.redis),
        picture_reader=PictureReader(settings.limits, is_shared=lambda: keyring.is_shared),
        catalogue=KeptCatalogue(),
        state_lookups=StateLookups(look_up),
        job_versions=SharedLookup(look_at_versions),
        kept_jobs=KeptJobs(),
        streams=Places(settings.max_streams, lambda: keyring.is_shared),
        waits=Places(max(settings.api_threads // 4, 1), lambda: keyring.is_shared),
        readiness=Readiness(factory, storage, events),
        picture_bytes=Poll(lambda: transact(factory, queries.picture_bytes), lambda _: _ROOM_SECONDS),
        free_bytes=Poll(storage.free_bytes, lambda _: _ROOM_SECONDS),
    )


def services() -> Services:
    """Return the services of the application that answers now."""
    return cast("Services", current_app.extensions[EXTENSION])
