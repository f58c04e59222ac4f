"""The life of one worker process: it registers, sends heartbeats, brings its card up, takes tickets, drains, leaves."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from shared.db import revisions
from shared.db import sessions as database
from shared.db.farm import FarmId, farm_id
from shared.db.sessions import Sessions, transact
from shared.db.states import WorkerState
from shared.errors import CARD_UNUSABLE, CardError, Unavailable, explain
from shared.media.ownership import guarded
from shared.messaging.events import Events
from shared.messaging.tickets import Tickets, forget
from shared.queue import reaper, workers
from shared.settings import Settings
from worker.context import Worker
from worker.dispatch import consumer, storage_writer
from worker.dispatch.claimer import Claimer
from worker.dispatch.creep import Creep
from worker.dispatch.heartbeat import Heartbeat
from worker.dispatch.poller import Poller
from worker.dispatch.prefetcher import Prefetcher
from worker.dispatch.slots import Slots
from worker.periodic import Periodic
from worker.progress.reporter import Reporter
from worker.render.scanner import Scanner
from worker.renderer import Card, MakeCard
from worker.supervisor import child
from worker.supervisor.gpus import Address
from worker.supervisor.launch import Launch
from worker.supervisor.self_watchdog import SECONDS as WATCHDOG_SECONDS
from worker.supervisor.self_watchdog import SelfWatchdog
from worker.supervisor.signals import Shutdown
from worker.supervisor.status_pipe import StatusWriter
from worker.supervisor.watchdog import Stage, Watchdog, suspects

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 1.0
UNUSABLE_SECONDS = 120.0  # until a card that cannot be used is tried again, by the next process
_START_SECONDS = 900.0  # to import the libraries from a cold disk and start the driver; longer is a hang


def _engine_card(
    card: Address, settings: Settings, sessions: Sessions, on_change: Callable[[], object], watchdog: Watchdog
) -> Card:
    try:
        from worker.render.engine_card import EngineCard  # noqa: PLC0415 - torch: the heartbeats have begun
    except (ImportError, OSError) as error:  # a missing CUDA library is an OSError
        raise CardError(f"PyTorch cannot be imported: {error}") from error

    return EngineCard(card, settings, sessions, on_change, watchdog)


def run_worker(launch: Launch, make_card: MakeCard = _engine_card) -> int:
    """Be one worker until a signal ends it; return the exit status."""
    application = f"farm worker {launch.card.name}"
    engine = database.connect(launch.settings.database, pool_size=16, application=application, plans_once=True)
    sessions = database.sessions(engine)
    farm = farm_id(sessions)
    worker_id = _register(launch, sessions, farm)
    launch.status.registered(worker_id)
    watchdog = Watchdog(launch.status.busy, launch.settings.hang_factor)
    process = _WorkerProcess(_worker(launch, sessions, worker_id, farm), watchdog, launch.status)
    try:
        return process.run(lambda: make_card(launch.card, launch.settings, sessions, process.heartbeat_now, watchdog))
    finally:
        engine.dispose()


def _register(launch: Launch, sessions: Sessions, farm: FarmId) -> int:
    """Return the id of this worker's row. Waits while the database is away or its tables do not fit this version."""
    while True:
        try:
            # Checked by version, because a worker that registers on older tables breaks only later.
            if mismatch := revisions.mismatch(database.probe(sessions)):
                log.warning("waiting for `farm db upgrade`", card=launch.card.name, reason=mismatch)
            else:
                log.debug("registering", farm=farm.value)
                return transact(sessions, partial(_registered, launch=launch))
        except Unavailable as error:
            log.warning("waiting for the database", card=launch.card.name, reason=explain(error))
        except ProgrammingError as error:  # another program's tables, or no right to these
            log.warning("waiting for `farm db upgrade`", card=launch.card.name, reason=str(error.orig))
        time.sleep(_AGAIN_SECONDS)


def _registered(session: Session, launch: Launch) -> int:
    card, settings = launch.card, launch.settings
    return workers.register(
        session,
        name=_name(card),
        host=socket.gethostname(),
        pid=os.getpid(),
        card=card.name,
        card_name=card.label,
        pool=",".join(settings.pool_names),
        slots=settings.slots,
        lease_seconds=settings.lease_seconds,
    )


def _name(card: Address) -> str:
    return f"{socket.gethostname()}/{card.name}"


def _worker(launch: Launch, sessions: Sessions, worker_id: int, farm: FarmId) -> Worker:
    settings = launch.settings
    return Worker(
        id=worker_id,
        name=_name(launch.card),
        pools=settings.pool_names,
        slots=settings.slots,
        settings=settings,
        sessions=sessions,
        farm_id=farm,
        redis=Redis.from_url(settings.redis, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 1)),
        events=Events(settings.redis, farm),
        tickets=Tickets(settings.redis, farm),
        storage=guarded(settings.storage, sessions, farm),
    )


class _WorkerProcess:
    """The threads of one worker, from the first heartbeat to the last."""

    def __init__(self, worker: Worker, watchdog: Watchdog, status: StatusWriter) -> None:
        settings, claimer = worker.settings, Claimer(worker)
        self._worker = worker
        self._watchdog = watchdog
        self._reporter = Reporter(worker.events)
        heartbeat, poller = Heartbeat(worker, self._end_declared_dead), Poller(worker, claimer)
        self._heartbeat = Periodic("heartbeat", settings.beat_seconds, heartbeat.run_once)
        self._poller = Periodic("poller", settings.look_seconds, poller.run_once)
        self._prefetcher = Periodic("prefetcher", settings.look_seconds, Prefetcher(worker, claimer).run_once)
        self._slots = Slots(
            worker,
            claimer,
            self._reporter,
            on_free=self._poller.wake,
            on_lost=self._end_lost,
            on_storage=self._storage_changed,
        )
        self._storage = Periodic("storage", storage_writer.SECONDS, self._slots.storage_writer.run_once)
        self._scanner = Periodic("scanner", settings.rescan_seconds, Scanner(worker).run_once)
        self._health = Periodic("health", settings.beat_seconds, self._slots.health.run_once)
        self_watchdog = SelfWatchdog(watchdog, status, self._end_hung)
        self._self_watchdog = Periodic("watchdog", WATCHDOG_SECONDS, self_watchdog.run_once)
        creep = Creep(worker, lambda: self._slots.health.images, self._restart)
        self._creep = Periodic("creep", settings.beat_seconds, creep.run_once)
        self._grown: str | None = None  # why this process ends and the next one is to start
        self._shutdown = Shutdown(settings.grace_seconds)

    def heartbeat_now(self) -> None:
        """Report at once what has changed here."""
        self._heartbeat.wake()

    def run(self, make_card: Callable[[], Card]) -> int:
        """Bring the card up and take tickets until a signal; return the exit status."""
        worker = self._worker
        self._shutdown.install(self._drain, self._hand_back)
        self._slots.storage_writer.begin()
        # The scanner's child imports its libraries while this process brings its card up.
        for thread in (self._heartbeat, self._self_watchdog, self._health, self._storage, self._scanner):
            thread.start()
        try:
            worker.card = self._started(make_card)
        except CardError as unusable:
            return self._stay_without(unusable)
        worker.slots = worker.slots or worker.card.slots
        self._reporter.start()
        self._poller.start()
        self._prefetcher.start()
        self._creep.start()
        worker.events.listen_cancels(worker.in_flight.cancel)
        worker.events.listen_rescans(self._scanner.wake)
        if not self._shutdown.is_requested.is_set():
            worker.state = WorkerState.READY
            self._heartbeat.wake()
            self._poller.wake()
        log.info("worker ready", worker=worker.id, name=worker.name, slots=worker.slots)
        self._consume()
        self._leave()
        return child.GROWN if self._grown else child.CLEAN

    def _started(self, make_card: Callable[[], Card]) -> Card:
        self._watchdog.busy("start", "start", _START_SECONDS)
        try:
            return make_card()
        finally:
            self._watchdog.idle("start")

    def _stay_without(self, unusable: CardError) -> int:
        """Report for a while why the card cannot be used, and take nothing; only a new process can try it again."""
        log.error("card unusable", worker=self._worker.id, reason=str(unusable), exc_info=unusable.__cause__)
        self._worker.card_trouble = f"{CARD_UNUSABLE}: {unusable}"
        self._worker.state = WorkerState.READY  # with `card_trouble`, so others see it as drained
        self._heartbeat.wake()
        is_stopping = self._shutdown.is_requested.wait(UNUSABLE_SECONDS)
        self._leave()
        return child.CLEAN if is_stopping else child.UNUSABLE

    def _consume(self) -> None:
        """Take tickets until a signal requests the end; resident checkpoints stay if Celery has to start again."""
        while not self._shutdown.is_requested.is_set():
            consumer.consume(self._worker, self._slots)
            if not self._shutdown.is_requested.wait(_AGAIN_SECONDS):
                log.warning("Celery had given up: taking tickets again", worker=self._worker.id)

    def _drain(self) -> None:
        """Take nothing new; images in flight are finished, and the heartbeats go on."""
        log.info("draining", worker=self._worker.id, images=len(self._worker.in_flight))
        self._worker.state = WorkerState.DRAINING
        consumer.stop_consuming()
        self._heartbeat.wake()

    def _leave(self) -> None:
        """End in order, when no image is in flight any more."""
        self._poller.stop(wait=False)
        self._prefetcher.stop(wait=False)
        self._creep.stop(wait=False)
        self._scanner.stop(wait=False)  # it may be reading a large file
        self._reporter.stop()
        self._worker.card.stop()
        self._self_watchdog.stop(wait=False)
        self._health.stop(wait=False)
        self._storage.stop(wait=False)  # it may wait for a storage that does not answer
        self._heartbeat.stop()
        self._give_up_row()
        self._worker.tickets.close()
        with suppress(RedisError):
            forget(self._worker.redis, self._worker.farm_id, self._worker.id)
        log.info("worker left", worker=self._worker.id)

    def _storage_changed(self) -> None:
        """Report at once that images are taken or not, and take them."""
        self._heartbeat.wake()
        self._poller.wake()

    def _restart(self, reason: str) -> None:
        """Take nothing new, finish what is in flight and end; the supervisor, or a service manager, starts the next."""
        log.error("memory grows: draining to start again", worker=self._worker.id, reason=reason)
        self._grown = reason
        self._worker.trouble = f"starts again soon: {reason}"
        self._shutdown.request()

    def _hand_back(self) -> None:
        """Give back the images in flight and end at once, because a stuck thread cannot be waited for."""
        log.warning("handing back", worker=self._worker.id, images=len(self._worker.in_flight))
        self._give_up_row()
        os._exit(child.CLEAN)

    def _end_declared_dead(self) -> None:
        """End at once: others have this worker's images, and its supervisor starts a new one."""
        log.error("declared dead by others: this worker was silent for too long", worker=self._worker.id)
        os._exit(child.DECLARED_DEAD)

    def _end_lost(self) -> None:
        """End at once, as a crash: only a new process gets the card back."""
        log.error("the card is lost", worker=self._worker.id)
        os._exit(child.LOST)

    def _end_hung(self, hung: Stage, description: str) -> None:
        """End at once, as a crash. No supervisor is there to count the hang against what ran here."""
        log.error("hung", worker=self._worker.id, reason=description)
        reason, files = f"its process {description} and ended itself", suspects((), hung)
        end = partial(reaper.mark_dead, worker_id=self._worker.id, reason=reason, crashed=True, files=files)
        with suppress(Unavailable):
            transact(self._worker.sessions, end)
        os._exit(child.HUNG)

    def _give_up_row(self) -> None:
        give_up = workers.leave
        if self._grown:  # the workers page shows this end for an hour, with the reason
            give_up = partial(reaper.mark_dead, reason=self._grown, crashed=False, remark="started again")
        try:
            images = transact(self._worker.sessions, partial(give_up, worker_id=self._worker.id))
        except Unavailable:
            log.warning("the database is away: the lease will end by itself", worker=self._worker.id)
        else:
            log.info("row given up", worker=self._worker.id, images_given_back=images)
