"""Both Python clients by what they send: repetitions, interruptions, and that they need nothing but httpx."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from api.schemas import jobs as bodies
from client import connection, errors, shapes
from client.async_client import AsyncClient
from client.calls import jobs as calls
from client.client import Client
from tests.support import loops

URL = "http://127.0.0.1:8321"
LINKS = {"events": "/api/v1/jobs/1/events", "page": "/jobs/1", "picture": None}


class Farm:
    """A farm that makes one job of each idempotency key; a job has ended when it has been looked at three times.

    `troubles` come one after the other, each after its request was done, as if the answer were lost: errors, and
    statuses of other answers.
    """

    def __init__(self, *troubles: BaseException | int | None) -> None:
        self.troubles = list(troubles)
        self.asked: list[str] = []
        self.made: dict[str, int] = {}
        self.cancelled: list[int] = []
        self.looks = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        answer = self._answer(request)
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, BaseException):
            raise trouble
        if trouble == 502:
            return httpx.Response(502, text="<html>")
        if trouble:
            return httpx.Response(trouble, json={"detail": "Later."}, headers={"Retry-After": "0"})
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        if (request.method, path) == ("POST", "/jobs"):
            return self._job(self.made.setdefault(request.headers["Idempotency-Key"], len(self.made) + 1))
        if path.endswith("/cancel"):
            self.cancelled.append(int(path.split("/")[2]))
            return httpx.Response(200, json={"images": 1, "job": {"id": self.cancelled[-1]}})
        if path.endswith("/events"):
            return httpx.Response(503, json={"detail": "Too many streams."})
        if path == "/jobs/1":
            self.looks += 1
        return self._job(1)

    def _job(self, number: int) -> httpx.Response:
        state = "running" if self.looks < 3 else "succeeded"
        image = {"index": 0, "state": state, "links": LINKS}
        job = {"id": number, "state": state, "progress": self.looks / 3, "images": [image], "next": None}
        return httpx.Response(200, json=job | {"links": LINKS})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(connection, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture(params=["blocking", "awaited"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Has a client of either kind make calls of a farm: names with their arguments; returns what the last returned."""

    async def awaited(farm: Farm, *named: tuple[Any, ...], **given: Any) -> Any:
        came = None
        async with AsyncClient(URL, transport=httpx.MockTransport(farm), **given) as client:
            for name, *arguments in named:
                called = getattr(client, name)(*arguments)
                came = await called if inspect.iscoroutine(called) else [one async for one in called]
        return came

    def blocking(farm: Farm, *named: tuple[Any, ...], **given: Any) -> Any:
        came = None
        with Client(URL, transport=httpx.MockTransport(farm), **given) as client:
            for name, *arguments in named:
                called = getattr(client, name)(*arguments)
                came = list(called) if inspect.isgenerator(called) else called
        return came

    if request.param == "blocking":
        return blocking
    return lambda *args, **given: loops.run(awaited(*args, **given))


LOST = httpx.ReadError("reset")
GONE = httpx.ConnectError("Connection refused")


@pytest.mark.parametrize("trouble", [LOST, 503, 502], ids=["lost", "503", "502"])
def test_a_lost_answer_doubles_no_job(ask, trouble):
    farm = Farm(None, trouble)
    job = ask(farm, ("jobs",), ("submit", {"prompt": "sea"}))
    assert farm.asked.count("POST /api/v1/jobs") == 2
    assert (job["id"], len(farm.made)) == (1, 1)


def test_two_submissions_are_two_jobs(ask):
    farm = Farm()
    assert ask(farm, ("submit", {"prompt": "sea"}), ("submit", {"prompt": "sea"}))["id"] == 2


def test_what_may_have_arrived_and_has_no_key_is_not_repeated(ask):
    farm = Farm(None, LOST)
    with pytest.raises(errors.NotRunning):
        ask(farm, ("jobs",), ("cancel", 1))
    assert farm.cancelled == [1]


@pytest.mark.parametrize("trouble", [GONE, 429], ids=["not arrived", "429"])
def test_what_was_not_done_is_asked_again_whatever_it_is(ask, trouble):
    farm = Farm(None, trouble)
    assert ask(farm, ("jobs",), ("hold", 1))["id"] == 1
    assert farm.asked.count("POST /api/v1/jobs/1/hold") == 2


def test_a_first_submission_whose_answer_is_lost_is_sent_again(ask):
    farm = Farm(LOST, GONE)
    job = ask(farm, ("submit", {"prompt": "sea"}))
    assert (farm.asked, job["id"], len(farm.made)) == (["POST /api/v1/jobs"] * 3, 1, 1)


@pytest.mark.parametrize(
    "link", ["http://evil.example/a.png", "https://127.0.0.1:8321/a.png", "http://127.0.0.1/a.png", "http://["]
)
def test_the_key_goes_to_the_farm_alone(ask, link, monkeypatch):
    monkeypatch.setitem(LINKS, "events", link)
    farm = Farm()
    with pytest.raises(errors.UnusableAddress):
        ask(farm, ("fetch", link))
    with pytest.raises(errors.UnusableAddress):
        ask(farm, ("wait", 1))
    assert farm.asked == ["GET /api/v1/jobs/1"]


@pytest.mark.parametrize("link", ["/a.png", "http://127.0.0.1:8321/a.png", "//evil.example/a.png"])
def test_a_link_of_the_farm_is_followed(ask, link):
    farm = Farm()
    ask(farm, ("fetch", link))
    assert farm.asked == ["GET /a.png"]


def test_an_address_where_nothing_ever_answered_is_told_at_once(ask):
    farm = Farm(GONE, GONE)
    with pytest.raises(errors.NotRunning, match="Connection refused"):
        ask(farm, ("jobs",))
    assert len(farm.asked) == 1


def test_patience_ends(ask):
    farm = Farm(None, 503, 503)
    with pytest.raises(errors.Unavailable) as caught:
        ask(farm, ("jobs",), ("jobs",), patience_seconds=0)
    assert (len(farm.asked), caught.value.retry_after) == (2, 0)


def test_progress_is_told_until_the_end_and_the_job_returned_whole(ask):
    told: list[str] = []
    job = ask(Farm(), ("wait", 1), ("watch", 1))
    assert [one["state"] for one in job] == ["succeeded"]
    farm = Farm()
    with Client(URL, transport=httpx.MockTransport(farm)) as client:
        job = client.render({}, progress=lambda job: told.append(job["state"]))
    assert told == ["running", "running", "succeeded"]
    assert (job["state"], farm.cancelled) == ("succeeded", [])


def test_ctrl_c_cancels_what_it_submitted():
    farm = Farm()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with Client(URL, transport=httpx.MockTransport(farm)) as client, pytest.raises(KeyboardInterrupt) as caught:
        client.render({"prompt": "sea"}, progress=interrupted)
    assert farm.cancelled == [1]
    assert caught.value.__notes__ == ["Cancelled job 1."]


@pytest.mark.parametrize("call", ["render", "submit"])
def test_ctrl_c_before_the_answer_cancels_the_job_that_was_made(call):
    farm = Farm(KeyboardInterrupt())
    with Client(URL, transport=httpx.MockTransport(farm)) as client, pytest.raises(KeyboardInterrupt):
        getattr(client, call)({"prompt": "sea"})
    assert (len(farm.made), farm.cancelled) == (1, [1])


def test_ctrl_c_that_cannot_take_back_its_submission_says_so():
    farm = Farm(KeyboardInterrupt(), GONE)
    with Client(URL, transport=httpx.MockTransport(farm)) as client, pytest.raises(KeyboardInterrupt) as caught:
        client.submit({"prompt": "sea"})
    assert "may have been submitted, and was not cancelled: Nothing answers" in caught.value.__notes__[0]


def test_ctrl_c_that_cannot_cancel_says_so():
    farm = Farm(None, KeyboardInterrupt(), GONE)
    with Client(URL, transport=httpx.MockTransport(farm)) as client, pytest.raises(KeyboardInterrupt) as caught:
        client.render({"prompt": "sea"})
    assert "Job 1 was not cancelled: Nothing answers" in caught.value.__notes__[0]


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_task_cancels_its_job_even_if_it_is_cancelled_again(times):
    farm = Farm()
    waits = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        came = farm(request)
        if request.url.path.endswith("/events"):
            waits.set()
            await asyncio.Event().wait()
        if request.url.path.endswith("/cancel"):
            waits.set()
            await asyncio.sleep(0)
        return came

    async def main() -> None:
        async with AsyncClient(URL, transport=httpx.MockTransport(answer)) as client:
            task = asyncio.create_task(client.render({"prompt": "sea"}))
            for _ in range(times):
                await waits.wait()
                waits.clear()
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    loops.run(main())
    assert farm.cancelled == [1]


def test_a_submission_that_is_cancelled_at_every_turn_of_the_loop_leaves_no_job():
    farm = Farm()

    async def main() -> None:
        with anyio.CancelScope() as scope:

            async def answer(request: httpx.Request) -> httpx.Response:
                came = farm(request)
                if len(farm.asked) == 1:
                    scope.cancel()
                    await asyncio.Event().wait()
                for _ in range(5):
                    await asyncio.sleep(0)
                return came

            async with AsyncClient(URL, transport=httpx.MockTransport(answer)) as client:
                await client.submit({"prompt": "sea"})

    loops.run(main())
    assert (len(farm.made), farm.cancelled) == (1, [1])


def test_a_picture_that_is_not_there_says_why(ask):
    with pytest.raises(errors.NotFound, match="it is running"):
        ask(Farm(), ("picture", 1))
    with pytest.raises(errors.NotFound, match="no image 7"):
        ask(Farm(), ("picture", 1, 7))


def test_methods_keep_their_names_and_words():
    assert inspect.getdoc(Client.submit).startswith("Submit a job")
    assert Client(URL).submit.__name__ == "submit"


@pytest.mark.parametrize("name", ["Job", "Image", "JobLinks", "ImageLinks", "Waiting", "Timings", "Upload"])
def test_types_have_the_keys_of_the_document(name):
    schema = getattr(bodies, f"{name}Body", None) or getattr(bodies, name)
    hidden = {field for field, info in schema.model_fields.items() if info.exclude}
    assert set(getattr(shapes, name).__annotations__) == set(schema.model_fields) - hidden


def test_nothing_but_httpx_is_imported():
    imported = set()
    for file in (Path(__file__).parents[2] / "client").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    assert imported - sys.stdlib_module_names == {"client", "httpx"}
