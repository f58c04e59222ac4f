"""The parts of a farm on one machine, as children of this process: embedded servers, API, workers, chores."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Final, Self

import httpx

from api.socket import GRACE_SECONDS, address, command, listen
from cli.embedded import home
from cli.embedded.home import Record
from cli.embedded.process import Server
from cli.embedded.servers import Servers
from cli.interrupts import caught, raise_interrupt, to_stop
from cli.parts import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Part, environment, rotate_logs
from shared.db import migrate
from shared.errors import LauncherError, SettingsError
from shared.settings import Settings
from shared.waiting.backoff import Backoff

Tell = Callable[[str], None]

_TEND_SECONDS: Final = 1.0
_CHORES_SIGNALS: Final = ((signal.SIGTERM, 15.0),)  # chores may be ended anywhere: it ends by itself much sooner
_API_SIGNALS: Final = ((signal.SIGTERM, GRACE_SECONDS + 5.0), (signal.SIGINT, 5.0))
_MARGIN_SECONDS: Final = 15.0  # past its grace time the supervisor kills by itself; this is for one that cannot


class Farm:
    """A farm that lives as long as this context; stopped in the order chores, workers, API, Redis, PostgreSQL.

    `tell` gets one line for each step that a person waits for.
    """

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self._settings = settings
        self._tell = tell
        self._parts: tuple[Part, ...] = ()
        self._context = ExitStack()
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)  # of servers that cannot be started
        self._troubles: set[str] = set()  # first lines of printed messages: the log's tail behind them differs

    def __enter__(self) -> Self:
        """Start everything and wait until the API answers. Raises FarmError, with nothing left running."""
        with ExitStack() as context:
            context.enter_context(caught(raise_interrupt))
            self._start(context)
            self._context = context.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop everything. Ctrl-C meanwhile hurries it."""
        with caught(self._hurry):
            self._context.close()

    def serve(self) -> None:
        """Keep the parts alive until Ctrl-C or TERM."""
        with to_stop() as signals:
            while signals.wait(_TEND_SECONDS) is None:
                self._tend()

    def _start(self, context: ExitStack) -> None:
        settings = self._settings
        listener = context.enter_context(listen_somewhere(settings, self._tell))
        self.url = address(listener)
        rotate_logs(settings.home / "logs")
        self._tell("Starting the database." if not settings.database_url else "Joining the database.")
        self._servers = context.enter_context(Servers.embedded(settings))
        if settings.own_pictures:
            home.keep_private(settings.own_pictures)
        migrate.upgrade(settings.database)
        self._tell("Starting the API and the workers.")
        api = self._part("API", command(listener), _API_SIGNALS, [listener.fileno()])
        signals = ((signal.SIGTERM, settings.grace_seconds + _MARGIN_SECONDS), (signal.SIGTERM, _MARGIN_SECONDS))
        workers = self._part("workers", [sys.executable, "-m", "worker"], signals)
        chores = self._part("chores", [sys.executable, "-m", "worker.maintenance.process"], _CHORES_SIGNALS)
        self._parts = (api, workers, chores)
        for part in self._parts:
            part.start()
            context.callback(part.server.stop)
            context.callback(self._tell, f"Stopping the {part.server.name}.")
        if not api.server.wait_ready():
            raise api.server.failure("ended at once")
        home.write_record(settings.home, Record(self.url, os.getpid(), datetime.now(UTC).isoformat()))
        context.callback(home.clear_record, settings.home)

    def _part(
        self,
        name: str,
        command: Sequence[str],
        signals: Sequence[tuple[signal.Signals, float]],
        descriptors: Sequence[int] = (),
    ) -> Part:
        log = self._settings.home / "logs" / f"{name.lower()}.log"
        server = Server(
            name,
            command,
            Path.cwd(),
            log,
            self._is_answering,
            signals,
            descriptors=descriptors,
            environment=environment(with_keys=name == "API"),
            umask=home.PRIVATE_UMASK if self._settings.own_pictures else None,
        )
        return Part(server)

    def _is_answering(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _tend(self) -> None:
        """Restart parts that died. A part that cannot be started is reported once; the rest of the farm goes on."""
        rotate_logs(self._settings.home / "logs")
        with self._reported_once():
            self._tend_servers()
        for part in self._parts:
            with self._reported_once():
                if part.tend():
                    self._tell_success(f"The {part.server.name} died; started again ({part.server.log} may say why).")

    def _tend_servers(self) -> None:
        if not self._backoff.is_due:
            return
        try:
            revived = self._servers.tend()
        except LauncherError:
            self._backoff.failed()
            raise
        self._backoff.reset()
        for name in revived:
            self._tell_success(f"{name} died; started again.")

    @contextmanager
    def _reported_once(self) -> Iterator[None]:
        try:
            yield
        except LauncherError as error:  # a later turn may do
            first, _, _ = str(error).partition("\n")
            if first not in self._troubles:
                self._troubles.add(first)
                self._tell(f"{error} Trying again.")

    def _tell_success(self, success: str) -> None:
        self._troubles.clear()
        self._tell(success)

    def _hurry(self) -> None:
        for part in reversed(self._parts):
            part.hurry()


def listen_somewhere(settings: Settings, tell: Tell) -> socket:
    """Return the API's listening socket, on a free port if the default one is taken and no port was named."""
    try:
        return listen(settings)
    except SettingsError:
        if "port" in settings.model_fields_set:
            raise
    listener = listen(settings.model_copy(update={"port": 0}))
    tell(f"Port {settings.port} is taken by another program; taking {listener.getsockname()[1]}.")
    return listener
