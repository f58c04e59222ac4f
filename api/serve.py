"""Serving the API with gunicorn: one process of `FARM_API_THREADS` threads.

One process is enough for many machines: the API waits, for PostgreSQL and sockets, far more than it computes. To grow,
start more of them behind a load balancer, each on an address of its own; they share PostgreSQL, Redis, the storage
and `FARM_SECRET_KEY`, and each is scraped for its own `/metrics`.

`farm up` opens the listening socket itself (`api/listener.py`) and hands it down.
"""

from __future__ import annotations

import argparse
import socket
from types import FrameType
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from api.app import create_app
from api.listener import GRACE_SECONDS, address
from api.services import EXTENSION
from shared import logs
from shared.settings import Settings, load

log = structlog.get_logger(__name__)


def run(settings: Settings, listener: socket.socket) -> None:
    """Serve the API on `listener` until this process is told to stop."""
    log.info("the API listens", url=address(listener))
    _Server(settings, listener).run()


class _Worker(ThreadWorker):
    """gunicorn's threads; told to stop, it lets go of who would wait for long, and finishes the others."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app: Any = getattr(self, "wsgi", None)
        if app:  # else it is still being made
            app.extensions[EXTENSION].stopping.set()
        super().handle_exit(sig, frame)

    handle_quit = handle_exit  # gunicorn's own would leave the threads to themselves, and then wait for them


class _Arbiter(Arbiter):
    """gunicorn's parent of the worker; Ctrl-C, which reaches both at a terminal, is the same as being told to stop."""

    def handle_int(self) -> None:
        self.handle_term()


class _Logger(Logger):
    """gunicorn's few words, in the form of the farm's own logs."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class _Server(BaseApplication):
    """gunicorn, configured by the farm's settings alone: it reads no file of its own."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener.fileno()}",
            "worker_class": _Worker,
            "workers": 1,
            "threads": self._settings.api_threads,
            "graceful_timeout": GRACE_SECONDS,
            "logger_class": _Logger,
            "loglevel": "warning",
            "control_socket_disable": True,  # it would listen in the person's home folder
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        _Arbiter(self).run()

    def load(self) -> Any:  # noqa: ANN401 - gunicorn's word for either kind of application
        return create_app(self._settings)


def main() -> None:
    """Serve the socket that the parent process passed on."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the listening socket")
    settings = load()
    logs.configure(settings)
    run(settings, socket.socket(fileno=parser.parse_args().fd))


if __name__ == "__main__":
    main()
