"""The sender: nobody waits, nobody fails, and what cannot leave is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from operator import add

import pytest

from shared.messaging.sender import Sender


class Receiver:
    """Takes batches when it is let, or fails."""

    def __init__(self):
        self.batches = []
        self.opened = threading.Event()
        self.asked = threading.Event()
        self.failures = 0

    def __call__(self, batch):
        self.asked.set()
        assert self.opened.wait(10)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        self.batches.append(dict(batch))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.opened.set()


def hold(sender: Sender, receiver: Receiver) -> None:
    """Have the thread busy with a first message, so that what follows waits."""
    sender.put("first", 0)
    assert receiver.asked.wait(10)


def test_messages_leave_in_their_order(receiver):
    sender = Sender("test", receiver)
    hold(sender, receiver)
    for number in range(3):
        sender.put(number, number)
    receiver.opened.set()
    assert sender.flush(10)
    assert receiver.batches == [{"first": 0}, {0: 0, 1: 1, 2: 2}]
    assert list(receiver.batches[1]) == [0, 1, 2]


def test_the_newest_of_a_key_wins_while_it_waits(receiver):
    sender = Sender("test", receiver)
    hold(sender, receiver)
    for step in (1, 2, 3):
        sender.put("image", step)
    receiver.opened.set()
    assert sender.flush(10)
    assert receiver.batches[1] == {"image": 3}


def test_messages_of_a_key_merge_as_told(receiver):
    sender = Sender("test", receiver, merge=add)
    hold(sender, receiver)
    for count in (1, 2, 3):
        sender.put("pool", count)
    receiver.opened.set()
    assert sender.flush(10)
    assert receiver.batches[1] == {"pool": 6}


def test_what_comes_when_it_is_full_is_dropped_and_counted(receiver):
    sender = Sender("test", receiver, capacity=2)
    hold(sender, receiver)
    for number in range(5):
        sender.put(number, number)
    receiver.opened.set()
    assert sender.flush(10)
    assert receiver.batches[1] == {0: 0, 1: 1}
    assert sender.dropped == 3


def test_a_failed_batch_is_dropped_and_the_next_goes(receiver):
    receiver.failures = 1
    receiver.opened.set()
    sender = Sender("test", receiver)
    sender.put("lost", 1)
    assert sender.flush(10)
    assert sender.dropped == 1
    sender.put("kept", 2)
    sender.close(10)
    assert receiver.batches == [{"kept": 2}]


def test_messages_gather_after_a_batch_and_leave_together(receiver):
    sender = Sender("test", receiver, gather_seconds=60)
    receiver.opened.set()
    sender.put("first", 0)
    assert sender.flush(10)
    for number in range(3):
        sender.put(number, number)
    assert not sender.flush(0.1), "they wait for more"
    sender.close(10)  # which waits for no gathering
    assert receiver.batches == [{"first": 0}, {0: 0, 1: 1, 2: 2}]


def test_gathering_ends_by_itself(receiver):
    sender = Sender("test", receiver, gather_seconds=0.01)
    receiver.opened.set()
    for number in range(2):
        sender.put(number, number)
        assert sender.flush(10)
    assert receiver.batches == [{0: 0}, {1: 1}]


def test_close_delivers_what_waits_and_ends_the_thread(receiver):
    sender = Sender("closed", receiver)
    hold(sender, receiver)
    sender.put("last", 1)
    receiver.opened.set()
    sender.close(10)
    assert receiver.batches == [{"first": 0}, {"last": 1}]
    assert not any(thread.name == "closed" for thread in threading.enumerate())


def test_flush_says_when_it_gave_up(receiver):
    sender = Sender("test", receiver)
    hold(sender, receiver)
    assert not sender.flush(0.01)
