"""The client that scripts use for AUTOMATIC1111's web UI, the newest, against the farm."""

from __future__ import annotations

import json
from functools import partial
from threading import Event, Thread

import pytest

from shared.maintenance import outbox, sheets
from shared.media.storage import Storage
from tests.clients.conftest import KEY
from tests.clients.recordings import kept, parts

SCRIPTS = ["x/y/z plot", "prompt matrix", "controlnet"]


@pytest.fixture
def drawing(settings, sessions):
    """Draws the sheets of sweeps as they end, as the maintenance process does."""
    draw = partial(sheets.make, sessions=sessions, storage=Storage(settings.storage), most_pixels=2**22)
    stopped = Event()

    def work():
        while not stopped.wait(0.05):
            outbox.deliver(sessions, [draw], 60)

    thread = Thread(target=work)
    thread.start()
    yield
    stopped.set()
    thread.join(20)


@pytest.mark.nightly
def test_the_newest_client_makes_its_27_calls(farm, client, drawing, checkpoint_factory, tmp_path):
    checkpoint_factory("edges", kind="controlnet", details={"width": 320, "context": 768})
    newest = client("webuiapi")
    told = newest.calls("webuiapi_calls.py", farm.url, KEY)
    (tmp_path / "webuiapi.json").write_text(
        json.dumps({"client": "webuiapi", "version": newest.version, "requests": farm.requests}, indent=1)
    )
    (tmp_path / "told.json").write_text(json.dumps(told, indent=1))
    assert told["scripts"] == {"txt2img": SCRIPTS, "img2img": SCRIPTS}
    assert told["options"]["sd_model_checkpoint"] == told["models"][0] == told["model"]
    assert (told["progress"]["progress"], told["progress"]["state"]["job_count"]) == (0, 0)
    assert (told["set"], told["clip skip"], told["refreshed"]) == (None, 2, None)
    assert told["txt2img"]["images"] == [["PNG", 64, 64]] * 2
    assert told["txt2img"]["info"]["all_seeds"] == [7, 8]
    assert "Clip skip: 2" in told["txt2img"]["info"]["infotexts"][0]
    assert "ControlNet 0" in told["controlled"]["info"]["infotexts"][0]
    assert [one[1:] for one in told["plot"]["images"][1:]] == [[64, 64]] * 4
    assert (told["plot"]["images"][0][1] > 128, told["plot"]["info"]["index_of_first_image"]) == (True, 1)
    assert told["img2img"]["info"]["denoising_strength"] == 0.5
    assert len(told["enlarged"]["images"]) == 1
    assert len(told["all enlarged"]["images"]) == 2
    assert told["png info"].startswith("a lake\nSteps: 4")
    assert (told["interrupted"], told["skipped"], told["interrogated"]) == ({}, None, 404)
    assert told["refused"][0] == 422
    assert "Euler" in told["refused"][1]["detail"]
    assert [parts(one) for one in farm.requests] == [parts(one) for one in kept("webuiapi")["requests"]], (
        f"{newest.version} asks in another way: look at it, and keep {tmp_path}/webuiapi.json as tests/data/clients"
    )
