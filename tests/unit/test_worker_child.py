from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.waiting import until
from worker.supervisor import child
from worker.supervisor.child import Child, Death
from worker.supervisor.gpus import Address
from worker.supervisor.supervisor import Supervisor, threads_each

REPORT = "import os, sys; os.write(int(sys.argv[2]), b'{\"worker\": 17}\\n'); sys.exit(3)"


def started(*command):
    """A child that has been started; `--report FD` follows the command."""
    made = Child(Address("cpu:0"), command)
    made.start_when_due()
    return made


def exiting(status):
    return started("sh", "-c", f"exit {status}", "worker")


def endless():
    return started("sh", "-c", "exec sleep infinity", "worker")


def end_of(made):
    return until(made.reap)


def test_a_death_names_the_row_that_the_process_reported():
    death = end_of(started(sys.executable, "-c", REPORT))
    assert (death.worker_id, death.status, death.is_crash) == (17, 3, True)


def test_a_process_that_died_before_it_was_registered_has_no_row():
    assert end_of(exiting(3)).worker_id is None


BUSY = """
import json, sys, time
stages = [["steps", 0.0, 1e9 if sys.argv[3] == "file" else 1.0], ["load", 0.0, 1.0 if sys.argv[3] == "file" else 1e9]]
with open(int(sys.argv[1]), "w") as report:
    print(json.dumps({"busy": stages, "files": ["", "abc"]}), file=report, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("hung", "files"), [("file", ("abc",)), ("steps", ())])
def test_a_hang_is_blamed_on_the_file_that_hung_and_on_no_other(hung, files):
    made = started("sh", "-c", f"exec {sys.executable} -c '{BUSY}' $2 0 {hung}", "worker")
    until(lambda: made.end_if_hung(0.0) or made._hang)
    death = end_of(made)
    assert (death.files, bool(death.hang)) == (files, True)


@pytest.mark.parametrize("status", [child.CLEAN, child.DECLARED_DEAD, child.UNUSABLE, child.BUSY])
def test_an_orderly_end_is_no_crash(status):
    assert not end_of(exiting(status)).is_crash


def test_a_signal_is_named():
    made = endless()
    made.send(signal.SIGKILL)
    death = end_of(made)
    assert death.is_crash
    assert death.reason == "its process was ended by SIGKILL"


def test_whoever_dies_young_waits_longer_each_time():
    made, pauses = exiting(3), []
    for _ in range(8):
        before = time.monotonic()
        pauses.append(end_of(made).pause_seconds)
        assert before + pauses[-1] <= made.due_at <= time.monotonic() + pauses[-1]
        made.due_at = 0.0
        made.start_when_due()
    end_of(made)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_nothing_is_started_while_the_process_lives():
    made = endless()
    made.start_when_due()
    assert made.reap() is None
    made.send(signal.SIGKILL)
    assert end_of(made)


def test_a_process_that_cannot_be_started_is_tried_again_and_leaks_nothing(tmp_path):
    open_before = set(Path("/proc/self/fd").iterdir())
    before = time.monotonic()
    made = started(str(tmp_path / "nobody"))
    assert not made.is_alive
    assert made.reap() is None
    assert before + 0.5 <= made.due_at <= time.monotonic() + 0.5
    assert set(Path("/proc/self/fd").iterdir()) == open_before


class Immortal:
    """A child that no signal ends."""

    is_alive, due_at = True, None

    def __init__(self):
        self.heard = []

    def end_if_hung(self, awake_since): ...

    def reap(self):
        return None

    def send(self, number):
        self.heard.append(number)


def test_a_child_that_cannot_be_ended_is_killed_now_and_then_not_all_the_time(monkeypatch):
    immortal = Immortal()
    supervisor = Supervisor([], [], None, grace_seconds=0)
    monkeypatch.setattr(supervisor, "_children", [immortal])
    for _ in range(3):
        supervisor._stop()
    for _ in range(5):
        supervisor._poll()
    assert immortal.heard.count(signal.SIGKILL) == 1


STOPPED = """
import os, signal, time
from worker.supervisor.supervisor import Supervisor

class Stopped(Supervisor):
    def _poll(self):
        if self._stop_signals == 0:
            os.kill(os.getpid(), signal.SIGTERM)

status = Stopped([], [], None, grace_seconds=0).run()
for number in (signal.SIGTERM, signal.SIGINT):
    os.kill(os.getpid(), number)
raise SystemExit(status)
"""


def test_another_signal_during_the_cleanup_of_a_stopped_supervisor_changes_no_exit_status():
    ended = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)


def test_each_process_is_told_all_there_is_to_know_of_its_card(monkeypatch):
    for name in ("FARM_API_KEYS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    card = Address("cuda:2", "GPU-5d5ba0d6", "NVIDIA H200")
    [one] = Supervisor([card], ["worker"], None, grace_seconds=0)._children
    known = ["--card", "cuda:2", "--uuid", "GPU-5d5ba0d6", "--label=NVIDIA H200", "--parent", str(os.getpid())]
    assert list(one._command) == ["worker", *known]


@pytest.mark.parametrize(
    ("cores", "workers", "set_by_a_person", "given"),
    [
        (16, 8, None, {"OMP_NUM_THREADS": "2"}),
        (2, 8, None, {"OMP_NUM_THREADS": "1"}),
        (16, 3, "", {"OMP_NUM_THREADS": "5"}),
        (16, 8, "4", {}),
        (16, 1, None, {}),
    ],
)
def test_workers_of_one_machine_share_its_cores(monkeypatch, cores, workers, set_by_a_person, given):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    environ = {} if set_by_a_person is None else {"OMP_NUM_THREADS": set_by_a_person}
    assert threads_each(workers, environ) == given


def test_a_process_is_given_its_share(tmp_path):
    said = tmp_path / "said"
    made = Child(Address("cpu:0"), ("sh", "-c", f"echo $OMP_NUM_THREADS >{said}", "worker"), {"OMP_NUM_THREADS": "3"})
    made.start_when_due()
    end_of(made)
    assert said.read_text() == "3\n"


@pytest.mark.parametrize(("status", "words"), [(71, "the card is lost"), (73, "the card cannot be used"), (3, None)])
def test_a_status_of_our_own_is_told_in_words(status, words):
    expected = f"its process ended with status {status}{f': {words}' if words else ''}"
    assert Death(None, status).reason == expected
