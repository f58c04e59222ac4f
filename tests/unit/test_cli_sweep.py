"""`farm sweep`: what its options ask the farm for, and how pictures are called."""

from __future__ import annotations

import json

import httpx
import pytest
from typer.testing import CliRunner

from cli import main as cli
from cli import render
from cli.sweep import read_sweep, stem
from client.client import Client
from shared.errors import FarmError


def test_axes_are_read_from_options(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a\nb --steps 5\n")
    vary = ["cfg=7, 15", "lora:ink=0,1", f"prompts=@{file}", "prompt_matrix", "dynamic_prompts=random 8"]
    assert read_sweep(vary, "each", 4) == {
        "axes": [
            {"field": "cfg", "values": "7, 15"},
            {"field": "lora", "of": "ink", "values": "0,1"},
            {"field": "prompts", "values": "a\nb --steps 5\n"},
            {"field": "prompt_matrix"},
            {"field": "dynamic_prompts", "of": "random", "count": 8},
        ],
        "seeds": "each",
        "draft": {"every": 4},
    }


@pytest.mark.parametrize("vary", [[], ["=7"], ["prompts=@/nonexistent/file"]])
def test_options_that_say_nothing_are_refused(vary):
    with pytest.raises(FarmError):
        read_sweep(vary, None, None)


def test_pictures_are_called_by_their_values():
    job = {"id": 12, "images": [None] * 40}
    assert stem(job, {"index": 3, "titles": ["15", "DPM++ 2M / Karras"]}) == "00012-003-15-DPM++_2M_Karras"
    assert stem(job, {"index": 3, "titles": ["../../x", "\x00"]}) == "00012-003-x"
    assert stem(job, {"index": 3}) == ""


@pytest.mark.parametrize("command", ["sweep", "render"])
def test_a_preview_renders_nothing_and_its_problems_end_the_command(monkeypatch, tmp_path, command):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, json.loads(request.content)))
        axis = {"field": "steps", "label": "Steps", "of": "", "values": ["151"]}
        problem = {"field": "sweep.axes.0.values.0", "message": "151 is too large", "accepted": "at most 150"}
        body = {"images": 1, "draft": 0, "seconds": 3.0, "axes": [axis], "notes": [], "problems": [problem]}
        return httpx.Response(200, json=body)

    monkeypatch.setattr(
        render, "joined", lambda *_: Client("http://127.0.0.1:1", transport=httpx.MockTransport(answer))
    )
    ran = CliRunner().invoke(
        cli.app, [command, "a lake", "--vary", "steps=151", "--seed", "7", "--preview", "--out", str(tmp_path)]
    )
    assert ran.exit_code == 1
    assert "1 picture, about 3.0 s" in ran.output
    axes = [{"field": "steps", "values": "151"}]
    assert asked == [("/api/v1/sweeps/preview", {"prompt": "a lake", "seed": 7, "sweep": {"axes": axes}})]
