from __future__ import annotations

import os
import time
from contextlib import suppress

import pytest

from tests.support.waiting import until
from worker.supervisor import self_watchdog
from worker.supervisor.self_watchdog import SelfWatch
from worker.supervisor.status_pipe import Hearing, Report
from worker.supervisor.watchdog import READS_DECODER, Pulse, Stage, longest_due, suspects


@pytest.fixture
def pipe():
    return os.pipe()


@pytest.fixture
def ends(pipe):
    """A report and who hears it."""
    theirs, ours = pipe
    return Report(ours), Hearing(theirs)


def phases(stages):
    return [stage.phase for stage in stages]


def test_the_supervisor_hears_what_a_process_is_busy_with(ends):
    report, hearing = ends
    pulse = Pulse(report.busy, factor=2)
    report.registered(17)
    pulse.busy("engine", "steps", 60)
    pulse.busy("sha", "load", 300)
    hearing.hear()
    assert hearing.worker_id == 17
    assert [(stage.phase, stage.limit_seconds) for stage in hearing.stages] == [("steps", 120), ("load", 600)]
    assert hearing.stages == pulse.stages()
    pulse.idle("engine")
    pulse.idle("sha")
    hearing.hear()
    assert hearing.stages == ()


def test_the_supervisor_hears_which_model_files_are_read(ends):
    report, hearing = ends
    pulse = Pulse(report.busy)
    pulse.busy("engine", "steps", 60)
    pulse.busy("abc", "load", 300, file="abc")
    hearing.hear()
    assert [stage.file for stage in hearing.stages] == ["", "abc"]
    pulse.idle("abc")
    hearing.hear()
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
    ends[1].hear()
    assert [(stage.phase, stage.file) for stage in ends[1].stages] == [("steps", ""), ("load", "")]


def test_a_line_that_comes_in_two_pieces_is_one_line(ends, pipe):
    hearing = ends[1]
    for piece in (b'{"worker": 1', b"7}\n"):
        os.write(pipe[1], piece)
        hearing.hear()
    assert hearing.worker_id == 17


def test_calls_of_milliseconds_are_told_twice_a_second():
    told = []
    pulse = Pulse(lambda stages: told.append(stages) is None)
    for _ in range(1000):
        pulse.busy("engine", "steps", 60)
    assert len(told) <= 2
    pulse.busy("engine", "decode", 60)
    assert phases(told[-1]) == ["decode"]


def test_what_a_full_pipe_did_not_take_is_told_again(ends, pipe):
    report, hearing = ends
    pulse = Pulse(report.busy)
    pulse.busy("engine", "steps", 60)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe[1], b" ")  # as good as messages
    pulse.idle("engine")
    hearing.hear()
    assert phases(hearing.stages) == ["steps"]
    pulse.tell_again()
    hearing.hear()
    assert hearing.stages == ()


def test_nobody_waits_for_a_supervisor_that_is_gone(ends):
    report, hearing = ends
    hearing.close()
    assert report.is_heard
    report.registered(17)
    assert not report.is_heard


def test_what_outlasts_its_limit_hangs():
    stages = [Stage("load", since=0, limit_seconds=100), Stage("decode", since=50, limit_seconds=10)]
    assert longest_due(stages, now=60, since=0) is None
    assert longest_due(stages, now=61, since=0) == stages[1]
    assert longest_due(stages, now=101, since=0) == stages[0]
    assert stages[1].words(143.2) == "hung for 93 s in decode"


def test_nobody_is_blamed_for_what_was_while_the_watcher_was_away():
    stage = Stage("decode", since=0, limit_seconds=10)
    assert not stage.is_hung(now=1000, since=995)
    assert stage.is_hung(now=1006, since=995)


def test_a_process_without_a_supervisor_watches_itself(ends):
    pulse, seen = Pulse(factor=0.01), []
    watched = SelfWatch(pulse, ends[0], lambda _, words: seen.append(words))
    alone = SelfWatch(pulse, Report(), lambda _, words: seen.append(words))
    pulse.busy("engine", "decode", 1)
    assert until(lambda: alone.run_once() or seen) == ["hung for 1 s in decode"]
    watched.run_once()
    assert len(seen) == 1
    pulse.idle("engine")
    alone.run_once()
    assert len(seen) == 1


def test_a_process_that_was_stopped_does_not_blame_itself(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pulse, seen = Pulse(), []
    watch = SelfWatch(pulse, Report(), lambda _, words: seen.append(words))
    pulse.busy("engine", "decode", 10)
    watch.run_once()
    now[0] = 1000.0
    watch.run_once()
    assert seen == []
    for _ in range(11):
        now[0] += self_watchdog.SECONDS
        watch.run_once()
    assert seen == ["hung for 1011 s in decode"]
