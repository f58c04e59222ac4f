"""One farm in trouble: its workers as processes, and one method for each kind of trouble and for its end."""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import psycopg
import redis
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from shared import embedded_addresses
from shared.db import sessions
from shared.db.tables import ModelFile, Worker
from shared.errors import Unavailable
from shared.webhooks import endpoints
from tests.chaos import plans, points, worker
from tests.chaos.calm import START_SECONDS, Troubles
from tests.chaos.faults import FAULT
from tests.chaos.ground import DATABASE, INSIDE, Ground, RestartedProcess, send
from tests.chaos.people import Asked, People
from tests.chaos.plans import API, EVERYBODY, RECEIVER_TROUBLES, SUPERVISOR, Action, Kind, Plan
from tests.chaos.receiver import TroubledReceiver

_STORAGE_WAYS = {Kind.FILL: points.FULL, Kind.LOCK_STORAGE: points.READ_ONLY}
CHECKPOINTS = ("sea", "sky", "sun")


@dataclass(frozen=True)
class Killed:
    """A worker that was killed by us, when, and whether a supervisor saw it."""

    name: str
    at: datetime
    is_supervised: bool


class Farm:
    """The processes of one plan, what was done to them and what they were asked for."""

    def __init__(self, plan: Plan, ground: Ground, folder: Path, fault: str = "") -> None:
        self.plan, self.ground, self.folder, self._fault = plan, ground, folder, fault
        self.points = points.Folder(folder / "points")
        self.points.make()
        self.people = People(ground.url)
        self.receiver = TroubledReceiver()
        self.troubles = Troubles()  # of webhooks
        self._sender_is_back = self.troubles.begin(f"{plans.SENDER} has not begun")
        self._sender: int | None = None  # the process that sends, or is to as soon as it has started
        self.killed: list[Killed] = []
        self.engine = sessions.connect(ground.database_url)
        self.sessions = sessions.sessions(self.engine)
        self._log_start = ground.postgres_log.stat().st_size
        self._away: set[str] = set()  # servers that are not to be started yet
        self._stopped: set[int] = set()
        self._outages = Counter[str]()  # of the storage, by the file that makes them; "": it is not mounted
        cards = plans.alone(plan.alone)
        gpus = ["--gpus", f"cpu:{plan.supervised}", "--slots", "3"]
        self.processes = [self._kept(SUPERVISOR, gpus), *(self._kept(card, ["--card", card]) for card in cards)]
        self.processes.append(ground.api)

    def _kept(self, name: str, arguments: list[str]) -> RestartedProcess:
        environ = self.ground.environ(name) | {worker.FOLDER: str(self.folder / "points"), FAULT: self._fault}
        log = self.folder / f"{name.replace(':', '-')}.log"
        return RestartedProcess(name, self.ground.parent, [worker.MODULE, *arguments], environ, log)

    def tend(self) -> None:
        """Start processes that have ended, as an operator would."""
        for process in self.processes:
            process.tend()
        if not self._away:
            self.ground.servers.tend()
        self._note_sender()

    def _note_sender(self) -> None:
        """Note when the process that sends webhooks has died, and since when the next one does, or should."""
        [pid] = {process.pid for process in self.processes if process.name == plans.SENDER}
        if self._sender and pid != self._sender:
            self._sender_is_back = self.troubles.begin(f"{plans.SENDER} is dead")
        if pid and pid != self._sender:
            self._sender_is_back(START_SECONDS)
        if self.points.is_sender(pid):
            self._sender_is_back()
        self._sender = pid

    def live_pids(self) -> set[int]:
        return {pid for process in self.processes for pid in process.family()}

    def ready(self) -> bool:
        """True when all workers are ready."""
        self.tend()
        with self.sessions() as session:
            ready = session.scalars(select(Worker.pid).where(Worker.state == "ready")).all()
        return len(set(ready) & self.live_pids()) == self.plan.supervised + self.plan.alone

    def do(self, action: Action) -> Callable[[], object] | None:
        """Do `action`; return what ends it after its seconds."""
        if not plans.keeps_messages(action):
            return self._do(action)
        is_over = self.troubles.begin(str(action))
        end = self._do(action)
        if end is None:
            is_over()
            return None
        return lambda: (end(), is_over())

    def _do(self, action: Action) -> Callable[[], object] | None:
        match action.kind:
            case Kind.SUBMIT:
                self._submit(action)
            case Kind.CANCEL | Kind.RETRY:
                self.people.move(action.kind, action.number)
            case Kind.KILL:
                self._kill(action.target)
            case Kind.STOP:
                return self._stop(action.target)
            case Kind.CRASH:
                self.points.arm(action.target)
            case Kind.CUT | Kind.HUSH:
                return self._disturb(action)
            case _ if action.kind in RECEIVER_TROUBLES:
                return self.receiver.trouble(action.kind)
            case Kind.FILL | Kind.LOCK_STORAGE | Kind.UNMOUNT_STORAGE | Kind.LOSE_STORAGE:
                return self._trouble_storage(action.kind)
            case _:
                return self._trouble_servers(action.kind)
        return None

    def mend(self) -> None:
        """End all trouble; points that still have to be hit stay armed."""
        for name in (*points.POINTS, points.FULL, points.READ_ONLY):
            if name != self.plan.point:
                self.points.disarm(name)
        self._outages.clear()
        self.ground.mount()
        self.receiver.mend()
        for way in self.ground.ways.values():
            way.mend()
        self.ground.stop(signal.SIGCONT)
        for pid in self._stopped:
            send(pid, signal.SIGCONT)
        self._away.clear()
        self.tend()

    def provoke(self) -> None:
        """Provoke the plan's crash point if no process has passed it: marking dead needs a worker that died."""
        if self.plan.point.startswith("mark_dead"):
            self._kill(plans.supervised(self.plan.supervised)[0])
        if self.plan.point.startswith("reap"):
            self._kill(plans.alone(self.plan.alone)[0])
        calm = self.people.submit(plans.OWNERS[0], calm_job())
        if self.plan.point.startswith("release"):
            self.people.submit(plans.OWNERS[0], calm_job() | {"on": "end"}, after=calm)

    def end(self) -> None:
        """Kill what is left of the farm; the ground stays."""
        for process in self.processes:
            if process is not self.ground.api:
                process.end()
        for pid in self._orphans():
            send(pid, signal.SIGKILL)
        self.people.close()
        self.receiver.close()
        self.engine.dispose()

    def postgres_log(self) -> str:
        """Return what PostgreSQL logged since the farm was made."""
        with self.ground.postgres_log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def catalogue(self) -> None:
        """Make some checkpoints known; the stub card needs no file."""
        known = {"kind": "checkpoint", "architecture": "sd1", "native_size": 64, "size": 1, "mtime_ns": 1}
        with self.sessions.begin() as session:
            for name in CHECKPOINTS:
                sha256 = name.encode().hex().zfill(64)
                session.add(ModelFile(path=f"{name}.safetensors", name=name, sha256=sha256, usable=True, **known))

    def ask_for_webhooks(self) -> None:
        """Make an owner a webhook; some jobs of all owners name its address themselves besides."""
        with self.sessions.begin() as session:
            endpoints.make(session, plans.OWNERS[0], {"url": self.receiver.receiver.url}, [ip_network(INSIDE)])

    def _submit(self, action: Action) -> None:
        """Submit a job whose picture depends on the plan alone: some of them fail, some are films, and two wait for
        their owner's first one.
        """
        number = len(self.people.jobs)
        prompt = f"fail: as job {number} was told to" if number % 5 == 4 else f"picture {number}"
        body = {
            "prompt": prompt,
            "checkpoint": CHECKPOINTS[number % len(CHECKPOINTS)],
            "width": 64,
            "height": 64,
            "steps": 20 + 13 * (number % 9),
            "count": action.number,
            "seed": number,
            "film": number % 4 == 3,
        }
        if number == 0 and self.plan.point.startswith("deliver"):  # in these plans alone: each sheet costs a process
            body["sweep"] = {
                "axes": [{"field": "cfg_scale", "values": "1-2"}, {"field": "sampler", "values": ["Heun"]}]
            }
            del body["count"]
        if number % 3 == 0:
            body["webhook"] = self.receiver.receiver.url
        first: Asked | None = None
        if number in {3, 4}:
            first = next((one for one in self.people.jobs if one.owner == action.target), None)
        if first:
            body["on"] = "success" if number % 2 else "end"
        self.people.submit(action.target, body, after=first)

    def _pids(self, target: str) -> list[int]:
        """Return the processes that `target` names: a card's worker, the supervisor or the API with its server."""
        for process in self.processes:
            if process.name == target:
                return list(process.family()) if target == API else [pid for pid in [process.pid] if pid]
            for pid, arguments in process.family().items():
                if "--card" in arguments and arguments[arguments.index("--card") + 1] == target:
                    return [pid]
        return []

    def _trouble_storage(self, kind: Kind) -> Callable[[], object]:
        """Take the storage away in one of the ways; of those that overlap the last to end brings it back."""
        way = _STORAGE_WAYS.get(kind, "")
        if way:
            self.points.arm(way)
        else:
            self.ground.unmount(has_folder=kind == Kind.UNMOUNT_STORAGE)
        self._outages[way] += 1
        return lambda: self._end_outage(way)

    def _end_outage(self, way: str) -> None:
        self._outages[way] -= 1
        if self._outages[way] <= 0:
            self.points.disarm(way) if way else self.ground.mount()

    def _kill(self, target: str) -> None:
        pids = self._pids(target)
        if target not in {SUPERVISOR, API} and pids:
            is_supervised = target in plans.supervised(self.plan.supervised)
            name = f"{socket.gethostname()}/{target}"
            self.killed.append(Killed(name, datetime.now(UTC), is_supervised))
        for pid in pids:
            send(pid, signal.SIGKILL)

    def _stop(self, target: str) -> Callable[[], object]:
        pids = self._pids(target)
        self._stopped |= set(pids)
        for pid in pids:
            send(pid, signal.SIGSTOP)
        return lambda: [send(pid, signal.SIGCONT) for pid in pids]

    def _disturb(self, action: Action) -> Callable[[], object]:
        party, _, server = action.target.partition(" from ")
        parties = [process.name for process in self.processes] if party == EVERYBODY else [party]
        ways = [self.ground.ways[name, server] for name in parties]
        for way in ways:
            way.cut() if action.kind == Kind.CUT else way.hush()
        return lambda: [way.mend() for way in ways]

    def _trouble_servers(self, kind: Kind) -> Callable[[], object] | None:
        match kind:
            case Kind.FREEZE_REDIS:
                self.ground.stop(signal.SIGSTOP)
                return lambda: self.ground.stop(signal.SIGCONT)
            case Kind.KILL_POSTGRES:
                return self._take_away("postgres")
            case Kind.KILL_BACKEND:
                self._kill_backend()
                return None
            case Kind.EMPTY_REDIS:
                self.ground.redis_dump.unlink(missing_ok=True)
            case Kind.KEEP_REDIS:
                with suppress(redis.RedisError), self.ground.redis() as client:
                    client.save()
        return self._take_away("redis")

    def _take_away(self, server: str) -> Callable[[], object]:
        if server in self._away:
            return lambda: None
        self._away.add(server)
        self.ground.kill_server(server)
        return lambda: self._bring_back(server)

    def _bring_back(self, server: str) -> None:
        self._away.discard(server)
        self.ground.servers.tend()

    def _kill_backend(self) -> None:
        """Kill -9 whichever process of PostgreSQL serves this farm and was busy last."""
        folder = str(embedded_addresses.socket_folder(self.ground.home))
        query = """
            SELECT pid FROM pg_stat_activity
            WHERE datname = %s AND pid != pg_backend_pid()
            ORDER BY state_change DESC LIMIT 1
        """
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(
                host=folder,
                port=embedded_addresses.PORT,
                user=embedded_addresses.DATABASE,
                dbname="postgres",
                connect_timeout=2,
            ) as connection,
        ):
            for (pid,) in connection.execute(query, [DATABASE]):
                send(pid, signal.SIGKILL)

    def _orphans(self) -> list[int]:
        """Return workers of this farm whose supervisor was killed."""
        ours = {self.ground.parent.process.pid, *self.ground.api.family()}
        return [pid for pid in self.ground.parent.family() if pid not in ours]


def calm_job() -> dict[str, object]:
    """Return a job for a farm in which all is well again."""
    size = {"width": 64, "height": 64, "steps": 20}
    return {"prompt": "all is well", "checkpoint": CHECKPOINTS[0], "seed": 1, "count": 6, "film": False, **size}


@contextmanager
def farm(plan: Plan, ground: Ground, folder: Path, fault: str = "") -> Iterator[Farm]:
    """Yield a farm whose workers are ready, and whose processes are gone at the end of the block."""
    ground.renew()
    made = Farm(plan, ground, folder, fault)
    try:
        made.catalogue()
        made.ask_for_webhooks()
        made.tend()
        assert wait(made.ready, 240), f"the workers of seed {plan.seed} were not ready in 240 s"
        yield made
    finally:
        made.mend()
        made.end()


def wait(condition: Callable[[], object], seconds: float, every: float = 0.1) -> bool:
    """Wait for `condition`; False if it does not come true in time, whatever the servers do meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(Unavailable, OperationalError):
            if condition():
                return True
        time.sleep(every)
    return False
