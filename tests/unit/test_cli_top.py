"""`farm top` without a terminal: what it works out of several looks, and how it lays it out."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest

from cli.terminal import Terminal
from cli.top import drawing, keys
from cli.top.drawing import Screenful, View
from cli.top.look import Look, OpenJob, Rendering, steps_per_second

USUAL = View()
MOMENT = "2026-01-01T00:00:00+00:00"


def worker(name: str, **more: Any) -> dict[str, Any]:
    usual = {"name": name, "card_name": "H200", "state": "ready", "phase": "steps", "running": 1, "slots": 8}
    return usual | {"is_late": False, "trouble": None, "drained": None, "beat_at": MOMENT} | more


def job(number: int, owner: str = "ann", prompt: str = "a lake", **counts: int) -> OpenJob:
    return OpenJob(number, owner, "running", counts or {"running": 1, "succeeded": 1}, MOMENT, prompt)


def image(step: int, number: int = 1, on: str = "host/cuda:0", attempt: int = 1) -> Rendering:
    return Rendering(number, 0, attempt, on, step, 20, "steps")


def seen(at: float = 0.0, *rendering: Rendering, **more: Any) -> Look:
    usual: dict[str, Any] = {"workers": (), "died": (), "jobs": (), "has_more": False, "ended": (), "sees_all": True}
    return Look("http://farm", at, rendering=rendering, **usual | more)


def drawn(found: Look, view: View = USUAL, width: int = 100, rates: dict[str, float] | None = None) -> list[str]:
    console = Terminal(file=StringIO(), width=width, height=20)
    every = drawing.lines(drawing.body(found, rates or {}, view, width), console)
    assert {sum(segment.cell_length for segment in line) for line in every} <= {width}
    return ["".join(segment.text for segment in line).rstrip() for line in every]


def test_steps_are_counted_over_the_looks_that_saw_the_same_attempt():
    looks = [seen(0, image(2)), seen(2, image(6), image(1, 2)), seen(4, image(12), image(5, 2), image(9, 3))]
    assert steps_per_second(looks) == {"host/cuda:0": (12 - 2) / 4 + (5 - 1) / 2}


@pytest.mark.parametrize(
    "before", [image(2, attempt=2), image(2, on="host/cuda:1")], ids=["another attempt", "on another worker"]
)
def test_steps_of_something_else_are_not_counted(before):
    assert steps_per_second([seen(0, before), seen(2, image(6))]) == {}


def test_what_is_long_ago_says_nothing_about_now():
    assert steps_per_second([seen(0, image(1)), seen(60, image(9))]) == {}
    assert steps_per_second([]) == {}


def test_workers_say_what_they_render_or_why_they_do_not():
    workers = [
        worker("host/cuda:0", running=3),
        worker("host/cuda:1", running=0, drained="new fan"),
        worker("host/cuda:2", running=0, phase="idle"),
        worker("host/cuda:3", is_late=True, trouble="the card fell off the bus"),
    ]
    lines = drawn(seen(0, image(7), workers=tuple(workers)), rates={"host/cuda:0": 12.34})
    assert "3/8     12.3  1.0 7/20, 2 more" in lines[1]
    assert "drained: new fan" in lines[2]
    assert "idle" in lines[3]
    assert "late" in lines[4]
    assert "fell off the bus" in lines[4]


def test_owners_are_shown_to_who_sees_them_the_busiest_first():
    jobs = (job(1, "ann", queued=1), job(2, "bob", queued=5), job(3, "bob", held=2))
    lines = drawn(seen(jobs=jobs))
    first = next(number for number, line in enumerate(lines) if line.startswith("owner"))
    assert [line.split() for line in lines[first + 1 : first + 3]] == [
        ["bob", "2", "0", "5", "2"],
        ["ann", "1", "0", "1", "0"],
    ]
    assert not any(line.startswith("owner") for line in drawn(seen(jobs=jobs, sees_all=False)))


@pytest.mark.parametrize(
    ("order", "first"),
    [("latest", [3, 2, 1]), ("oldest", [1, 2, 3]), ("owner", [2, 3, 1]), ("most pictures", [1, 2, 3])],
)
def test_jobs_are_sorted_as_chosen(order, first):
    jobs = (job(1, "cid", queued=9), job(2, "ann", queued=5), job(3, "bob", queued=1))
    lines = drawn(seen(jobs=jobs, sees_all=False), View(jobs_by=drawing.JOB_ORDERS.index(order)))
    assert [int(line.split()[0]) for line in lines if line[:1].isdigit()] == first


def test_workers_are_sorted_as_chosen():
    found = seen(workers=(worker("a", running=1), worker("b", running=2)))
    by = View(workers_by=drawing.WORKER_ORDERS.index("steps/s"))
    assert drawn(found, by, rates={"b": 3.0, "a": 1.0})[1].startswith("b")
    assert drawn(found)[1].startswith("a")


@pytest.mark.parametrize("width", [20, 40, 200])
def test_a_hostile_prompt_stays_in_its_cell(width):
    prompt = "[red]\x1b[2J\x9b1m\n\n日落" * 50
    lines = drawn(seen(jobs=(job(1, prompt=prompt),)), width=width)
    assert not any(set(line) & {"\x1b", "\x9b", "\r"} for line in lines)
    assert len(lines) == len(drawn(seen(jobs=(job(1),)), width=width))


def test_a_screenful_is_as_high_as_the_terminal():
    for height in (1, 2, 3, 20):
        console = Terminal(file=StringIO(), width=60, height=height, force_terminal=True)
        middle = drawing.lines(drawing.body(seen(jobs=tuple(map(job, range(50)))), {}, View(), 60), console)
        console.print(Screenful(drawing.head(seen(), {}), middle, drawing.foot(View())), end="")
        assert len(console.file.getvalue().split("\n")) == height


def test_head_says_why_nothing_is_seen():
    assert "Nothing answers" in drawing.head(seen(), {}, "Nothing answers at http://farm").plain
    assert drawing.head(seen(workers=(worker("a"),)), {"a": 2.0}).plain.endswith(
        "1 worker, 1 running, 0 waiting, 2.0 steps/s"
    )


def test_keys_are_known_in_every_form_that_terminals_send():
    assert keys.names(b"\x1b[A\x1bOB\x1b[6~ q") == ["up", "down", "page down", "page down", "quit"]
    assert keys.names(b"\x1b[1;5Cx\x1b") == []
