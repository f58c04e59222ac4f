"""Clients that are slow, or silent: none takes a thread, none stays for long, and the others are answered meanwhile."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from PIL import Image

from shared import embedded_addresses
from shared.settings import Settings
from tests.support.servers import clean_environment, fresh_database
from tests.support.serving import Served, received, serving
from tests.support.waiting import until

MANY = 60
SOON = 10  # seconds, on a machine that is busy otherwise
HEAD = b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
pytestmark = pytest.mark.alone
QUICK = {"header_seconds": 1.0, "stall_seconds": 1.0, "body_seconds": 3.0, "idle_seconds": 1}


@pytest.fixture(scope="module")
def standing(home, tmp_path_factory) -> Iterator[tuple[Settings, dict[str, str]]]:
    """The settings and the environment of a farm with a database."""
    folder = tmp_path_factory.mktemp("farm")
    with fresh_database(home) as database_url:
        given = {
            "home": folder / "farm",
            "models": folder,
            "database_url": database_url.replace("+psycopg", "", 1),
            "redis_url": embedded_addresses.redis_url(home),
            "port": 0,
        }
        yield Settings(**given), clean_environment() | {f"FARM_{name.upper()}": str(it) for name, it in given.items()}


@pytest.fixture(scope="module")
def served(standing) -> Iterator[Served]:
    settings, environ = standing
    deadlines = {f"FARM_{name.upper()}": str(value) for name, value in QUICK.items()}
    with serving(settings, environ | deadlines) as one:
        httpx.get(f"{one.url}/livez", timeout=30)
        yield one


@pytest.fixture(scope="module")
def large() -> bytes:
    """A picture of some megabytes: more than the buffers of a socket take."""
    noise = np.random.default_rng(1).integers(0, 256, (1400, 1500, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=1)
    return file.getvalue()


def asked(served: Served, path: str = "/api/v1/jobs") -> float:
    """Return the seconds until an answer."""
    began = time.monotonic()
    assert httpx.get(f"{served.url}{path}", timeout=20).status_code == 200
    return time.monotonic() - began


def is_let_go(connection: socket.socket) -> bool:
    """Send one more byte, and return whether the other side has ended the connection."""
    try:
        connection.sendall(b"a")
    except ConnectionError:
        return True
    return False


SLOW: dict[str, bytes] = {
    "silent": b"",
    "headers": HEAD,
    "line breaks": b"\r\n",
    "bodies": HEAD + b"Content-Length: 500\r\n\r\n{",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    "endless chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;",
}


@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients_take_nothing_from_the_others_and_are_let_go(served, kind):
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(served.connect(SLOW[kind])) for _ in range(MANY)]
        assert asked(served, "/livez") < SOON
        assert asked(served) < SOON
        answers = [received(one) for one in slow]
    wanted = b"" if kind == "silent" else b"HTTP/1.1 408 "
    assert all(answer.startswith(wanted) for answer in answers)


def test_clients_that_send_a_byte_now_and_then_are_let_go(served):
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(served.connect(HEAD + b"X: ")) for _ in range(MANY)]
        until(lambda: sum(is_let_go(one) for one in slow) == MANY, 15, "every connection to be ended")


def test_slow_readers_are_let_go(served, large):
    link = httpx.post(f"{served.url}/api/v1/uploads", content=large, headers={"Content-Type": "image/png"}, timeout=30)
    path = link.headers["Location"].encode()
    with ExitStack() as open_ones:
        ask = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path
        slow = [open_ones.enter_context(served.connect(ask, receive_buffer=4096)) for _ in range(MANY)]
        assert asked(served, "/livez") < SOON
        assert asked(served) < SOON
        time.sleep(3 * QUICK["stall_seconds"])  # the client's own slowness
        assert all(len(received(one)) < len(large) for one in slow[::20])


def test_reader_that_takes_its_time_but_goes_on_gets_all(served, large):
    link = httpx.post(f"{served.url}/api/v1/uploads", content=large, headers={"Content-Type": "image/png"}, timeout=30)
    ask = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % link.headers["Location"].encode()
    with served.connect(ask, receive_buffer=2**16) as reader:
        answer = b""
        while part := reader.recv(2**19):
            answer += part
            time.sleep(0.01)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(next(line for line in head.lower().splitlines() if b"content-length" in line).split()[1]) == len(body)


def test_idle_connection_is_kept_for_a_while_and_then_ended(served):
    with served.connect(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as connection:
        assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_past_the_bound_silent_connections_give_way(standing):
    settings, environ = standing
    with serving(settings, environ | {"FARM_MAX_CONNECTIONS": "16"}) as one, ExitStack() as open_ones:
        httpx.get(f"{one.url}/livez", timeout=30)
        silent = [open_ones.enter_context(one.connect()) for _ in range(40)]
        assert asked(one, "/livez") < SOON
        assert received(silent[0]) == b""
