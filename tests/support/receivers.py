"""A program that takes webhooks, as a test looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Final, NamedTuple

_LONGEST_SILENCE_SECONDS: Final = 60.0


class Received(NamedTuple):
    """A message, and when all of it was there."""

    headers: dict[str, str]
    body: str
    at: datetime


@dataclass
class Receiver:
    """A server that remembers what it was sent, and answers with `status` as soon as it `answers`."""

    url: str = ""
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    got: list[Received] = field(default_factory=list)
    accepted: list[Received] = field(default_factory=list)  # of those, answered with success
    arrived_at: dict[str, datetime] = field(default_factory=dict)  # each message that was accepted, the first time
    answers: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.answers.set()

    @property
    def messages(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.got]

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(one.body) for one in self.got]


@contextmanager
def listening(receiver: Receiver, port: int = 0, turn_seconds: float = 0.01) -> Iterator[int]:
    """Have `receiver` take messages within the block, which it leaves within a turn, at the port that is yielded."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # who sent it died on the way
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            message = Received(headers, body.decode(), datetime.now(UTC))
            receiver.got.append(message)
            receiver.answers.wait(_LONGEST_SILENCE_SECONDS)
            if receiver.status < HTTPStatus.MULTIPLE_CHOICES:
                receiver.accepted.append(message)
                receiver.arrived_at.setdefault(headers.get("webhook-id", ""), datetime.now(UTC))
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = Thread(target=partial(server.serve_forever, poll_interval=turn_seconds))
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
