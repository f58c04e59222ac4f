from __future__ import annotations

import os
import time
from contextlib import suppress

import pytest

from tests.support.waiting import until
from worker.supervisor import self_watchdog
from worker.supervisor.self_watchdog import SelfWatchdog
from worker.supervisor.status_pipe import StatusReader, StatusWriter
from worker.supervisor.watchdog import READS_DECODER, Stage, Watchdog, longest_hung, suspects


@pytest.fixture
def pipe():
    return os.pipe()


@pytest.fixture
def ends(pipe):
    """A report and who hears it."""
    theirs, ours = pipe
    return StatusWriter(ours), StatusReader(theirs)


def phases(stages):
    return [stage.phase for stage in stages]


def test_the_supervisor_hears_what_a_process_is_busy_with(ends):
    report, hearing = ends
    watchdog = Watchdog(report.busy, factor=2)
    report.registered(17)
    watchdog.busy("engine", "steps", 60)
    watchdog.busy("sha", "load", 300)
    hearing.read()
    assert hearing.worker_id == 17
    assert [(stage.phase, stage.limit_seconds) for stage in hearing.stages] == [("steps", 120), ("load", 600)]
    assert hearing.stages == watchdog.stages()
    watchdog.idle("engine")
    watchdog.idle("sha")
    hearing.read()
    assert hearing.stages == ()


def test_the_supervisor_hears_which_model_files_are_read(ends):
    report, hearing = ends
    watchdog = Watchdog(report.busy)
    watchdog.busy("engine", "steps", 60)
    watchdog.busy("abc", "load", 300, file="abc")
    hearing.read()
    assert [stage.file for stage in hearing.stages] == ["", "abc"]
    watchdog.idle("abc")
    hearing.read()
    assert [stage.file for stage in hearing.stages] == [""]


STEPS, LOAD, OTHER = Stage("steps", 0, 60), Stage("load", 0, 300, "abc"), Stage("load", 0, 300, "def")
DECODER = Stage(READS_DECODER, 0, 300, "tiny")


@pytest.mark.parametrize(
    ("stages", "hung", "files"),
    [
        ([LOAD], None, ("abc",)),
        ([LOAD, OTHER], None, ("abc", "def")),
        ([STEPS, LOAD], None, ()),  # it may have been the image
        ([STEPS, LOAD], STEPS, ()),
        ([STEPS, LOAD, OTHER], LOAD, ("abc",)),
        ([STEPS, DECODER], None, ("tiny",)),
        ([STEPS, DECODER], STEPS, ()),
        ([STEPS], None, ()),
        ([], None, ()),
    ],
)
def test_a_file_is_suspected_where_nothing_else_can_be(stages, hung, files):
    assert suspects(stages, hung) == files


@pytest.mark.parametrize("files", ["", ', "files": ["abc"]'])
def test_a_process_of_an_older_version_is_heard_and_no_file_blamed(ends, pipe, files):
    os.write(pipe[1], f'{{"busy": [["steps", 0, 60], ["load", 0, 300]]{files}}}\n'.encode())
    ends[1].read()
    assert [(stage.phase, stage.file) for stage in ends[1].stages] == [("steps", ""), ("load", "")]


def test_a_line_that_comes_in_two_pieces_is_one_line(ends, pipe):
    hearing = ends[1]
    for piece in (b'{"worker": 1', b"7}\n"):
        os.write(pipe[1], piece)
        hearing.read()
    assert hearing.worker_id == 17


def test_calls_of_milliseconds_are_told_twice_a_second():
    told = []
    watchdog = Watchdog(lambda stages: told.append(stages) is None)
    for _ in range(1000):
        watchdog.busy("engine", "steps", 60)
    assert len(told) <= 2
    watchdog.busy("engine", "decode", 60)
    assert phases(told[-1]) == ["decode"]


def test_what_a_full_pipe_did_not_take_is_told_again(ends, pipe):
    report, hearing = ends
    watchdog = Watchdog(report.busy)
    watchdog.busy("engine", "steps", 60)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe[1], b" ")  # as good as messages
    watchdog.idle("engine")
    hearing.read()
    assert phases(hearing.stages) == ["steps"]
    watchdog.resend()
    hearing.read()
    assert hearing.stages == ()


def test_nobody_waits_for_a_supervisor_that_is_gone(ends):
    report, hearing = ends
    hearing.close()
    assert report.is_supervised
    report.registered(17)
    assert not report.is_supervised


def test_what_outlasts_its_limit_hangs():
    stages = [Stage("load", since=0, limit_seconds=100), Stage("decode", since=50, limit_seconds=10)]
    assert longest_hung(stages, now=60, awake_since=0) is None
    assert longest_hung(stages, now=61, awake_since=0) == stages[1]
    assert longest_hung(stages, now=101, awake_since=0) == stages[0]
    assert stages[1].description(143.2) == "hung for 93 s in decode"


def test_nobody_is_blamed_for_what_was_while_the_watcher_was_away():
    stage = Stage("decode", since=0, limit_seconds=10)
    assert not stage.is_hung(now=1000, awake_since=995)
    assert stage.is_hung(now=1006, awake_since=995)


def test_a_process_without_a_supervisor_watches_itself(ends):
    watchdog, seen = Watchdog(factor=0.01), []
    watched = SelfWatchdog(watchdog, ends[0], lambda _, words: seen.append(words))
    alone = SelfWatchdog(watchdog, StatusWriter(), lambda _, words: seen.append(words))
    watchdog.busy("engine", "decode", 1)
    assert until(lambda: alone.run_once() or seen) == ["hung for 1 s in decode"]
    watched.run_once()
    assert len(seen) == 1
    watchdog.idle("engine")
    alone.run_once()
    assert len(seen) == 1


def test_a_process_that_was_stopped_does_not_blame_itself(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watchdog, seen = Watchdog(), []
    watch = SelfWatchdog(watchdog, StatusWriter(), lambda _, words: seen.append(words))
    watchdog.busy("engine", "decode", 10)
    watch.run_once()
    now[0] = 1000.0
    watch.run_once()
    assert seen == []
    for _ in range(11):
        now[0] += self_watchdog.SECONDS
        watch.run_once()
    assert seen == ["hung for 1011 s in decode"]
