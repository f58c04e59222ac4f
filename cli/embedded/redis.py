"""The embedded Redis: keeps nothing on disk, by intent: every start of a farm proves that it may be emptied."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from redis import Redis as Client
from redis.exceptions import RedisError

from cli.embedded import binaries
from cli.embedded.home import make_private
from cli.embedded.process import Server, read_pid
from shared.embedded_addresses import redis_socket

_SETTINGS: Final = {
    "port": "0",  # no TCP
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "loglevel": "warning",
}


class Redis:
    """The Redis of one home."""

    def __init__(self, home: Path, sockets: Path, log: Path) -> None:
        self._folder = home / "redis"
        self._socket = redis_socket(sockets)
        self._pid_file = self._folder / "redis.pid"
        settings = _SETTINGS | {"unixsocket": str(self._socket), "pidfile": str(self._pid_file)}
        self.server = Server(
            name="Redis",
            command=[binaries.redis(), *(word for name, value in settings.items() for word in (f"--{name}", value))],
            folder=self._folder,
            log=log,
            is_ready=self._answers,
            signals=((signal.SIGTERM, 5),),
        )

    def begin(self) -> None:
        """Start it, without waiting until it answers."""
        make_private(self._folder)
        self.server.end_leftover(read_pid(self._pid_file))
        self._socket.unlink(missing_ok=True)
        self.server.spawn()

    def wait(self) -> None:
        """Wait until it answers. Raises LauncherError with its last words when it cannot start."""
        if not self.server.wait_ready():
            raise self.server.failure("did not start")

    def _answers(self) -> bool:
        try:
            with Client(unix_socket_path=str(self._socket), socket_timeout=5) as client:
                return bool(client.ping())
        except RedisError:
            return False
