"""Serving the API: one process, an event loop that talks to clients and `FARM_API_THREADS` threads that answer them.

One process is enough for many machines: the API waits, for PostgreSQL and sockets, far more than it computes. To grow,
start more of them behind a load balancer, each on an address of its own; they share PostgreSQL, Redis, the storage
and `FARM_SECRET_KEY`, and each is scraped for its own `/metrics`.

`farm up` opens the listening socket itself (`api/socket.py`) and hands it down.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import socket
import sys
from types import FrameType
from typing import Any, Final, cast

import structlog
import uvicorn

from api.app import create_app
from api.server import memory
from api.server.application import Application
from api.server.connection import Deadlines
from api.server.connections import Connections
from api.services import EXTENSION, Services
from api.socket import BACKLOG, GRACE_SECONDS, address
from shared.logs import setup
from shared.settings import Settings, load

log = structlog.get_logger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FILES_A_CONNECTION: Final = 2  # the socket, and its body or answer
_FEWEST_CONNECTIONS: Final = 16
_FURTHER_FILES: Final = 512  # beside those of connections: databases, files, pipes


def run(settings: Settings, listener: socket.socket) -> None:
    """Serve the API on `listener` until this process is told to stop."""
    for number in _SIGNALS:
        signal.signal(number, lambda *_: sys.exit(0))  # until there is something to stop
    memory.give_back_early()
    most = _allow_connections(settings.max_connections)
    app = create_app(settings)
    services: Services = app.extensions[EXTENSION]
    deadlines = Deadlines(settings.header_seconds, settings.stall_seconds, settings.body_seconds)
    application = Application(app, settings, deadlines)
    connections = Connections(deadlines, most)
    config = uvicorn.Config(
        cast("Any", application),
        http=cast("Any", connections.make),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    log.info("the API listens", url=address(listener))
    try:
        _Server(config, connections, services, application).run([listener])
    finally:
        services.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # else Python would wait for every thread that is still at work


class _Server(uvicorn.Server):
    """uvicorn's server; at a signal it ends streams and waits, finishes the other requests and exits with 0."""

    def __init__(
        self, config: uvicorn.Config, connections: Connections, services: Services, application: Application
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self._services = services
        self._application = application

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._closing_slow = asyncio.create_task(self._connections.close_slow(self.server_state))
        self._giving_back = asyncio.create_task(memory.keep_giving_back())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._application.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as uvicorn calls it
        """Stop. Ctrl-C at a terminal reaches this process and its parent, which then asks once more: it is one wish."""
        self._services.stopping.set()
        self.should_exit = True


def _allow_connections(wanted: int) -> int:
    """Let this process open files for so many connections; return how many the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES_A_CONNECTION * wanted + _FURTHER_FILES
    most = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    allowed = max(min(wanted, (most - _FURTHER_FILES) // _FILES_A_CONNECTION), _FEWEST_CONNECTIONS)
    if allowed < wanted:
        log.warning("the system allows too few open files for FARM_MAX_CONNECTIONS", hard_limit=hard, used=allowed)
    return allowed


def main() -> None:
    """Serve the socket that the parent process passed on."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the listening socket")
    settings = load()
    setup.configure(settings)
    run(settings, socket.socket(fileno=parser.parse_args().fd))


if __name__ == "__main__":
    main()
