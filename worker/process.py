"""The life of one worker process: registers and beats first, brings its card up, takes tickets, drains, leaves."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from shared.db import migrate
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
from worker.dispatch import consumer, storing
from worker.dispatch.claimer import Claimer
from worker.dispatch.heartbeat import Heartbeat
from worker.dispatch.poller import Poller
from worker.dispatch.slots import Slots
from worker.periodic import Periodic
from worker.progress.reporter import Reporter
from worker.render.prefetch import Prefetch
from worker.render.scanner import Scan
from worker.renderer import Card, MakeCard
from worker.supervisor import child, self_watchdog
from worker.supervisor.gpus import Address
from worker.supervisor.launch import Orders
from worker.supervisor.signals import Shutdown
from worker.supervisor.status_pipe import Report
from worker.supervisor.watchdog import Pulse, Stage, suspects

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 1.0
UNUSABLE_SECONDS = 120.0  # until a card that cannot be used is tried again, by the next process
_START_SECONDS = 900.0  # the libraries' import from a cold disk, then the driver: past it the start hangs


def _engine_card(
    card: Address, settings: Settings, sessions: Sessions, on_change: Callable[[], object], pulse: Pulse
) -> Card:
    try:
        from worker.render.engine_card import EngineCard  # noqa: PLC0415 - torch: the worker has registered and beats by now
    except (ImportError, OSError) as error:  # a library of CUDA's that is not there is an OSError
        raise CardError(f"PyTorch cannot be imported: {error}") from error

    return EngineCard(card, settings, sessions, on_change, pulse)


def work(orders: Orders, make_card: MakeCard = _engine_card) -> int:
    """Be one worker until a signal ends it; return the exit status."""
    application = f"farm worker {orders.card.name}"
    engine = database.connect(orders.settings.database, pool_size=16, application=application, plans_once=True)
    sessions = database.sessions(engine)
    ours = farm_id(sessions)
    worker_id = _register(orders, sessions, ours)
    orders.report.registered(worker_id)
    pulse = Pulse(orders.report.busy, orders.settings.hang_factor)
    process = _Process(_worker(orders, sessions, worker_id, ours), pulse, orders.report)
    try:
        return process.run(lambda: make_card(orders.card, orders.settings, sessions, process.beat_now, pulse))
    finally:
        engine.dispose()


def _register(orders: Orders, sessions: Sessions, ours: FarmId) -> int:
    """Return the id of this worker's row, when the farm's id is known; waits for a database that is away or too old."""
    while True:
        try:
            # Asked of the tables, not of the statements: a worker that registers on older ones breaks later.
            if mismatch := migrate.mismatch(database.probe(sessions)):
                log.warning("waiting for `farm db upgrade`", card=orders.card.name, reason=mismatch)
            else:
                log.debug("registering", farm=ours.value)
                return transact(sessions, lambda session: _registered(session, orders))
        except Unavailable as error:
            log.warning("waiting for the database", card=orders.card.name, reason=explain(error))
        except ProgrammingError as error:  # another program's tables, or no right to these
            log.warning("waiting for `farm db upgrade`", card=orders.card.name, reason=str(error.orig))
        time.sleep(_AGAIN_SECONDS)


def _registered(session: Session, orders: Orders) -> int:
    card, settings = orders.card, orders.settings
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


def _worker(orders: Orders, sessions: Sessions, worker_id: int, ours: FarmId) -> Worker:
    settings = orders.settings
    return Worker(
        id=worker_id,
        name=_name(orders.card),
        pools=settings.pool_names,
        slots=settings.slots,
        settings=settings,
        sessions=sessions,
        farm_id=ours,
        redis=Redis.from_url(settings.redis, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 1)),
        events=Events(settings.redis, ours),
        tickets=Tickets(settings.redis, ours),
        storage=guarded(settings.storage, sessions, ours),
    )


class _Process:
    """The threads of one worker, from the first beat to the last."""

    def __init__(self, worker: Worker, pulse: Pulse, report: Report) -> None:
        settings, claimer = worker.settings, Claimer(worker)
        self._worker = worker
        self._pulse = pulse
        self._reporter = Reporter(worker.events)
        self._beat = Periodic("beat", settings.beat_seconds, Heartbeat(worker, self._end_dead).run_once)
        self._poll = Periodic("poll", settings.look_seconds, Poller(worker, claimer).run_once)
        self._prefetch = Periodic("prefetch", settings.look_seconds, Prefetch(worker, claimer).run_once)
        self._slots = Slots(
            worker,
            claimer,
            self._reporter,
            on_free=self._poll.wake,
            on_lost=self._end_lost,
            on_storage=self._storage_changed,
        )
        self._storing = Periodic("storage", storing.SECONDS, self._slots.storing.run_once)
        self._scan = Periodic("scan", settings.rescan_seconds, Scan(worker).run_once)
        self._health = Periodic("health", settings.beat_seconds, self._slots.health.run_once)
        self._watch = Periodic(
            "watch", self_watchdog.SECONDS, self_watchdog.SelfWatch(pulse, report, self._end_hung).run_once
        )
        self._shutdown = Shutdown(settings.grace_seconds)

    def beat_now(self) -> None:
        """Let the farm hear at once what has changed here."""
        self._beat.wake()

    def run(self, make_card: Callable[[], Card]) -> int:
        """Live; return the exit status."""
        worker = self._worker
        self._shutdown.install(self._drain, self._hand_back)
        self._beat.start()
        self._watch.start()
        self._health.start()
        self._slots.storing.begin()
        self._storing.start()
        self._storing.wake()
        self._scan.start()  # the child that looks into files imports its libraries while this process does
        try:
            worker.card = self._started(make_card)
        except CardError as unusable:
            return self._stay_without(unusable)
        worker.slots = worker.slots or worker.card.slots
        for thread in (self._reporter, self._poll, self._prefetch):
            thread.start()
        worker.events.listen_cancels(worker.in_flight.drop)
        worker.events.listen_rescans(self._scan.wake)
        if not self._shutdown.is_asked.is_set():
            worker.state = WorkerState.READY
            self._beat.wake()
            self._poll.wake()
        log.info("worker ready", worker=worker.id, name=worker.name, slots=worker.slots)
        self._consume()
        self._leave()
        return child.CLEAN

    def _started(self, make_card: Callable[[], Card]) -> Card:
        self._pulse.busy("start", "start", _START_SECONDS)
        try:
            return make_card()
        finally:
            self._pulse.idle("start")

    def _stay_without(self, unusable: CardError) -> int:
        """Say for a while why the card cannot be used, and take nothing; only a new process can try it again."""
        log.error("card unusable", worker=self._worker.id, reason=str(unusable), exc_info=unusable.__cause__)
        self._worker.card_trouble = f"{CARD_UNUSABLE}: {unusable}"
        self._worker.state = WorkerState.READY  # but for its card: told as one that takes nothing
        self._beat.wake()
        is_asked = self._shutdown.is_asked.wait(UNUSABLE_SECONDS)
        self._leave()
        return child.CLEAN if is_asked else child.UNUSABLE

    def _consume(self) -> None:
        """Take tickets until a signal asks for the end; resident models stay when Celery has to begin again."""
        while not self._shutdown.is_asked.is_set():
            consumer.consume(self._worker, self._slots)
            if not self._shutdown.is_asked.wait(_AGAIN_SECONDS):
                log.warning("Celery had given up: taking tickets again", worker=self._worker.id)

    def _drain(self) -> None:
        """Take nothing new; what runs is finished, and the beat goes on."""
        log.info("draining", worker=self._worker.id, images=len(self._worker.in_flight))
        self._worker.state = WorkerState.DRAINING
        consumer.stop_consuming()
        self._beat.wake()

    def _leave(self) -> None:
        """End in order: no image is in flight any more."""
        self._poll.stop(wait=False)
        self._prefetch.stop(wait=False)
        self._scan.stop(wait=False)  # it may be reading a large file
        self._reporter.stop()
        self._worker.card.stop()
        self._watch.stop(wait=False)
        self._health.stop(wait=False)
        self._storing.stop(wait=False)  # it may wait for a storage that is silent
        self._beat.stop()
        self._give_up_row()
        self._worker.tickets.close()
        with suppress(RedisError):
            forget(self._worker.redis, self._worker.farm_id, self._worker.id)
        log.info("worker left", worker=self._worker.id)

    def _storage_changed(self) -> None:
        """Tell the farm at once that nothing is taken, or that images are taken again, and take them."""
        self._beat.wake()
        self._poll.wake()

    def _hand_back(self) -> None:
        """Hand back the images in flight and end at once, because a stuck thread cannot be waited for."""
        log.warning("handing back", worker=self._worker.id, images=len(self._worker.in_flight))
        self._give_up_row()
        os._exit(child.CLEAN)

    def _end_dead(self) -> None:
        """End at once: other workers have its images, and its supervisor starts a new one."""
        log.error("declared dead by others: this worker was silent for too long", worker=self._worker.id)
        os._exit(child.DECLARED_DEAD)

    def _end_lost(self) -> None:
        """End at once, as a crash: only a new process gets the card back."""
        log.error("the card is lost", worker=self._worker.id)
        os._exit(child.LOST)

    def _end_hung(self, hung: Stage, words: str) -> None:
        """End at once, as a crash. Nobody else would strike what hung here."""
        log.error("hung", worker=self._worker.id, reason=words)
        reason = f"its process {words} and ended itself"
        files = suspects((), hung)
        with suppress(Unavailable):
            transact(
                self._worker.sessions,
                lambda session: reaper.mark_dead(session, self._worker.id, reason=reason, crashed=True, files=files),
            )
        os._exit(child.HUNG)

    def _give_up_row(self) -> None:
        try:
            images = transact(self._worker.sessions, lambda session: workers.leave(session, self._worker.id))
        except Unavailable:
            log.warning("the database is away: the lease will end by itself", worker=self._worker.id)
        else:
            log.info("row given up", worker=self._worker.id, images_given_back=images)
