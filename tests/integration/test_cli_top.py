"""`farm top` against the real API: what it learns as an operator and as a user, and the live screen in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from werkzeug.serving import make_server

from api.services import EXTENSION
from cli.top.look import Look, look
from cli.top.screen import show
from client.async_client import AsyncClient
from shared.messaging.events import Progress
from tests.support import loops
from tests.support.queueing import Farmhand
from tests.support.servers import clean_environment
from tests.support.waiting import until


@pytest.fixture(scope="module")
def job(standing_app) -> int:
    """The job of which one image runs at its seventh step and one waits; another has been cancelled."""
    services = standing_app.extensions[EXTENSION]
    client = standing_app.test_client()
    first, second = (
        client.post("/api/v1/jobs", json={"prompt": prompt, "count": 2}).get_json()["id"]
        for prompt in ("a lighthouse in fog", "a hill")
    )
    client.post(f"/api/v1/jobs/{second}/cancel")
    claim = Farmhand(services.sessions).worker(slots=1, lease_seconds=600).claim()
    services.events.publish(Progress(first, claim.index, claim.attempt, 7, 20, "steps"))
    until(lambda: client.get(f"/api/v1/jobs/{first}").get_json()["images"][0]["step"] == 7)
    return first


def seen(app, *, may_see_all: bool) -> Look:
    over = httpx.WSGITransport(app)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/queue" and not may_see_all:
            return httpx.Response(403, json={"detail": "Only for operators."})
        given = over.handle_request(request)
        return httpx.Response(given.status_code, content=given.read())

    async def ask() -> Look:
        async with AsyncClient("http://localhost", transport=httpx.MockTransport(answer)) as client:
            return await look(client)

    return loops.run(ask())


@pytest.mark.parametrize("may_see_all", [True, False], ids=["operator", "user"])
def test_a_look_has_workers_their_images_the_queue_and_the_latest_ends(standing_app, job, may_see_all):
    found = seen(standing_app, may_see_all=may_see_all)
    [worker] = found.workers
    [image] = found.rendering
    [queued] = found.jobs
    assert (image.job, image.index, image.step, image.worker) == (job, 0, 7, worker["name"])
    assert (queued.prompt, queued.counts["queued"], queued.counts["running"]) == ("a lighthouse in fog", 1, 1)
    assert [ended["state"] for ended in found.ended] == ["cancelled"]
    assert found.sees_all == may_see_all


@pytest.fixture(scope="module")
def url(standing_app) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, standing_app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_once_is_for_scripts(url, job, capsys, as_json):
    with ThreadPoolExecutor(1) as thread:  # a browser's tests leave an event loop running in the main one
        thread.submit(show, AsyncClient(url), 1.0, once=True, as_json=as_json).result()
    said = capsys.readouterr().out
    if as_json:
        answer = json.loads(said.splitlines()[-1])  # the application logs to the same place
        assert [one["id"] for one in answer["jobs"]] == [job]
        assert answer["owners"]["local"]["queued"] == 1
    else:
        assert re.search(rf"^{job} +local +running +0/2 +\d+ s +a lighthouse in fog$", said, re.MULTILINE)


def _at_a_terminal() -> dict[str, str]:
    """Return an environment in which nothing but the terminal itself says how large it is."""
    given = clean_environment() | {"TERM": "xterm-256color"}
    return {name: value for name, value in given.items() if name not in {"COLUMNS", "LINES"}}


def _plain(said: str) -> str:
    """Return what a terminal shows, a line each; without colours. Where the cursor jumps, another line begins."""
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", re.sub(r"\x1b\[[\d;]*[ABH]", "\n", said))


LEFT = "\x1b[?25h\x1b[?1049l"  # the cursor is back, and what was there before


class Screen:
    """A terminal of 100 columns with `farm top` in it."""

    def __init__(self, url: str) -> None:
        self.own, programs = os.openpty()
        self.resize(24, 100)
        self.before = termios.tcgetattr(programs)
        self.programs = programs
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "top", "--every", "0.2"],
            env=_at_a_terminal() | {"FARM_URL": url},
            stdin=programs,
            stdout=programs,
            stderr=programs,
            process_group=0,  # as a shell's job: the kernel stops no others
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, what: str) -> str:
        """Return all that came since the last call, once it holds `what`; without colours and moves."""
        end = time.monotonic() + 30
        while not re.search(what, plain := _plain(self.said)):
            assert time.monotonic() < end, self.said
            assert select.select([self.own], [], [], 30)[0], self.said
            self.said += os.read(self.own, 65536).decode()
        self.said = ""
        return plain

    def until_left(self) -> None:
        """Read on until the terminal shows what was there before."""
        while not self.said.endswith(LEFT):
            assert select.select([self.own], [], [], 10)[0], self.said
            self.said += os.read(self.own, 65536).decode()
        self.said = ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.own)
        os.close(self.programs)


def test_the_live_screen_follows_keys_and_the_size_of_the_terminal_and_leaves_it_as_it_was(url, job):
    screen = Screen(url)
    try:
        first = screen.until("q quit")
        assert "a lighthouse in fog" in first
        assert f"{job}.0 7/20" in first
        os.write(screen.own, b"o")
        screen.until("o jobs by oldest")
        screen.resize(6, 40)
        screen.process.send_signal(signal.SIGWINCH)
        small = screen.until("(?s)q quit.*q quit")  # the second is whole
        assert max(map(len, small.split("\n")[-5:])) <= 40
        os.write(screen.own, b"q")
        assert screen.process.wait(30) == 0
        assert termios.tcgetattr(screen.programs) == screen.before
        screen.until_left()
    finally:
        screen.close()


def test_the_terminal_is_as_it_was_while_the_screen_is_stopped_and_after_term(url, job):
    screen = Screen(url)
    try:
        for number in (signal.SIGTSTP, signal.SIGTERM):
            screen.until("q quit")
            screen.process.send_signal(number)
            screen.until_left()
            _, status = os.waitpid(screen.process.pid, os.WUNTRACED)
            assert termios.tcgetattr(screen.programs) == screen.before
            assert os.WIFSTOPPED(status) == (number == signal.SIGTSTP)
            if os.WIFSTOPPED(status):
                screen.process.send_signal(signal.SIGCONT)
    finally:
        screen.close()
