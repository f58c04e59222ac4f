"""Signals that are waited for instead of handled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from shared.waiting.signals import SignalPipe

STOP = (signal.SIGTERM, signal.SIGINT)


def test_each_signal_is_read_once_in_its_order():
    with SignalPipe(STOP) as signals:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert [signals.wait(5) for _ in range(3)] == [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]
        assert signals.wait(0) is None


def test_signals_with_handlers_of_others_end_no_wait():
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with SignalPipe(STOP) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signals.wait(0.01) is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_thread_may_wait():
    heard: list[int | None] = []
    with SignalPipe(STOP) as signals:
        waiting = threading.Thread(target=lambda: heard.append(signals.wait()))
        waiting.start()
        os.kill(os.getpid(), signal.SIGTERM)
        waiting.join(5)
    assert heard == [signal.SIGTERM]


def test_more_signals_than_the_pipe_holds_block_nobody():
    with SignalPipe(STOP) as signals:
        for _ in range(70_000):
            signal.raise_signal(signal.SIGTERM)
        assert signals.wait(5) == signal.SIGTERM


LISTENING = """
import os, signal
from shared.waiting.signals import SignalPipe
signals = SignalPipe([signal.SIGTERM])
signals.begin()
os.kill(os.getpid(), signal.SIGTERM)
raise SystemExit(0 if signals.wait(5) == signal.SIGTERM else 1)
"""


def test_a_pipe_without_a_block_reads_signals_as_long_as_the_process_lives():
    assert subprocess.run([sys.executable, "-c", LISTENING], timeout=30, check=False).returncode == 0


def test_signals_do_afterwards_what_they_did_before():
    before = [signal.getsignal(number) for number in STOP]
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    with SignalPipe(STOP):
        assert [signal.getsignal(number) for number in STOP] != before
    assert [signal.getsignal(number) for number in STOP] == before
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
