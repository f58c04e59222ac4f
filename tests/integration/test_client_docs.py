"""The examples of docs/client.md, run as they stand against the real API, with a worker that is quick."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from api.services import EXTENSION
from shared.infotext.writer import text
from shared.media.storage import key
from shared.params.render import RenderParams
from tests.support.queueing import Farmhand
from worker.encode import picture

PAGE = Path(__file__).parents[2] / "docs/client.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
PIXELS = np.zeros((64, 64, 3), dtype=np.uint8)


@pytest.fixture
def answers(standing_app, monkeypatch, tmp_path):
    """Has every address answered by the application, and what is queued rendered before each look."""
    services = standing_app.extensions[EXTENSION]
    over = httpx.WSGITransport(standing_app)
    hand = Farmhand(services.sessions)
    worker = hand.worker(lease_seconds=600)

    def render() -> None:
        while claim := worker.claim():
            params = RenderParams.from_stored(hand.job(claim.job_id).params)
            file = picture(PIXELS, text(params, version="1"), "png")
            for kind in ("picture", "thumbnail"):
                services.storage.put(key(claim.job_id, claim.index, claim.attempt, kind), file)
            hand.finish(claim)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            render()
        given = over.handle_request(request)
        return httpx.Response(given.status_code, content=given.read())

    async def later(_: object, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return answer(request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _, request: answer(request))
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", later)
    monkeypatch.chdir(tmp_path)


def test_examples_of_the_page_run(answers, capsys):
    assert len(EXAMPLES) == 5
    with ThreadPoolExecutor(1) as thread:  # a browser's tests leave an event loop running in the main one
        for example in EXAMPLES:
            thread.submit(exec, compile(example, str(PAGE), "exec"), {"__name__": "example"}).result()
    said = capsys.readouterr().out
    assert Path("boat-1.png").read_bytes().startswith(b"\x89PNG")
    assert "100% succeeded" in said
    assert "a red sailboat at sea" in said
    assert "['succeeded', 'succeeded', 'succeeded']" in said
    assert "steps 0 is too small" in said
