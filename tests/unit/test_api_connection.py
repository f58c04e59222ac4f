"""When a connection that ends is given up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from api.server.connection import Connection, Deadlines

STALL, LINGER = 30.0, 5.0


@pytest.fixture
def ending() -> Connection:
    """A connection that began to end at 0 s, with 100,000 bytes to be taken."""
    made = Connection.__new__(Connection)
    made._deadlines = Deadlines(10, STALL, 600)
    made._socket = SimpleNamespace(get_write_buffer_size=lambda: made.unsent)
    made.is_finishing, made.since = True, 0.0
    made.unsent = made._unsent = 100_000
    return made


def test_slow_reader_of_the_last_bytes_has_as_long_as_of_any(ending):
    assert not ending.overdue(STALL - 1)
    assert ending.overdue(STALL + 1)


def test_reader_that_takes_enough_has_a_whole_stretch_again(ending):
    ending.unsent -= 3 * 2**14
    assert not ending.overdue(STALL - 1)
    assert not ending.overdue(2 * STALL - 2)
    assert ending.overdue(2 * STALL)


def test_client_that_has_all_is_waited_for_shortly(ending):
    ending.unsent = 0
    assert not ending.overdue(STALL - 1)
    assert not ending.overdue(STALL - 1 + LINGER)
    assert ending.overdue(STALL + LINGER)
