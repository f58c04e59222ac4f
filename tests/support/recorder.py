"""Stands between a client and a farm, and writes down what the client sends."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx

KEPT = ("accept", "content-type", "prefer", "user-agent")
"""Headers of a request that are written down; others name the machine, or a key."""
_OWN = ("connection", "content-length", "transfer-encoding")


@dataclass
class Recorded:
    """What a client sent, in order, and where it sends it to."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def recorder(farm: str) -> Iterator[Recorded]:
    """Yield the address of a server that passes requests on to `farm`, with the requests that have come."""
    recorded = Recorded()

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            recorded.requests.append(_written(self.command, self.path, dict(self.headers), body))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in (*_OWN, "host")}
            headers |= {"Host": recorded.url.removeprefix("http://"), "Accept-Encoding": "identity"}
            with httpx.stream(self.command, farm + self.path, headers=headers, content=body, timeout=60) as answer:
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name.lower() not in _OWN:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                for part in answer.iter_raw():
                    self.wfile.write(part)
            self.close_connection = True

        do_GET = do_POST = do_DELETE = do_QUERY = pass_on  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorded.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield recorded
    server.shutdown()
    thread.join(10)
    server.server_close()


def _written(method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    kept = {name.lower(): value for name, value in headers.items() if name.lower() in KEPT}
    one: dict[str, Any] = {"method": method, "path": path, "headers": kept}
    try:
        return one | {"body": body.decode()}
    except UnicodeDecodeError:
        return one | {"base64": base64.b64encode(body).decode()}
