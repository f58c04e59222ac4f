"""Clients that guess keys are slowed down, and no others."""

from __future__ import annotations

import pytest

from api.security import key_guesses as module
from api.security.key_guesses import (
    FREE_ADDRESSES,
    FREE_GUESSES,
    FREE_GUESSES_OF_ALL,
    SECONDS_A_GUESS,
    SECONDS_AN_ADDRESS,
    Guesses,
)

GUESSER, OTHER = "192.0.2.1", "192.0.2.2"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guesses(clock):
    return Guesses(clock)


def guess(guesses: Guesses, address: str, times: int) -> int:
    """Try wrong keys and return how many were looked at."""
    looked_at = 0
    for number in range(times):
        if not guesses.wait(address, f"wrong {number}"):
            guesses.wrong(address)
            looked_at += 1
    return looked_at


def test_guesses_past_the_free_ones_wait(guesses, clock):
    assert guess(guesses, GUESSER, 100) == FREE_GUESSES
    assert guesses.wait(GUESSER, "another") == SECONDS_A_GUESS
    clock.now += SECONDS_A_GUESS
    assert guess(guesses, GUESSER, 100) == 1


def test_guesses_come_back_with_time_up_to_the_free_ones(guesses, clock):
    guess(guesses, GUESSER, 100)
    clock.now += 10_000
    assert guess(guesses, GUESSER, 100) == FREE_GUESSES


def test_other_addresses_are_not_slowed(guesses):
    guess(guesses, GUESSER, 100)
    assert guesses.wait(OTHER, "key") == 0


def test_key_that_was_right_from_there_is_not_slowed_by_a_neighbours_guesses(guesses):
    guesses.right(GUESSER, "right")
    guess(guesses, GUESSER, 100)
    assert guesses.wait(GUESSER, "right") == 0
    assert guesses.wait(GUESSER, "wrong") > 0


def test_many_addresses_together_are_slowed_and_fresh_ones_are_not(guesses):
    addresses = [f"198.51.100.{number}" for number in range(100)]
    assert sum(guess(guesses, address, FREE_GUESSES) for address in addresses) <= FREE_GUESSES_OF_ALL + len(addresses)
    assert guesses.wait(addresses[0], "key") > 0
    assert guesses.wait(OTHER, "key") == 0


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", GUESSER, True),
        ("", "", True),
    ],
)
def test_network_of_one_client_is_one_address(guesses, first, second, is_one):
    guess(guesses, first, 100)
    assert (guesses.wait(second, "key") > 0) is is_one


def test_memory_is_bounded(guesses, monkeypatch):
    monkeypatch.setattr(module, "MOST_REMEMBERED", 10)
    for number in range(50):
        guesses.wrong(f"198.51.100.{number}")
        guesses.right(f"198.51.100.{number}", "key")
    assert len(guesses._addresses) == len(guesses._right) == 10


def test_new_addresses_are_slowed_where_very_many_of_them_guess(guesses, clock):
    addresses = [f"2001:db8:{number:x}::1" for number in range(FREE_ADDRESSES + 500)]
    assert sum(guess(guesses, address, 1) for address in addresses) == FREE_ADDRESSES
    assert guesses.wait(OTHER, "a key")
    clock.now += SECONDS_AN_ADDRESS
    assert not guesses.wait(OTHER, "a key")


def test_addresses_whose_guesses_have_come_back_count_as_new_ones(guesses, clock):
    addresses = [f"2001:db8:{number:x}::1" for number in range(FREE_ADDRESSES)]
    for address in addresses:
        guess(guesses, address, 1)
    clock.now += FREE_GUESSES * SECONDS_A_GUESS
    assert sum(guess(guesses, address, 1) for address in addresses) < FREE_ADDRESSES / 2


def test_key_that_was_right_is_not_slowed_by_new_addresses(guesses):
    guesses.right(OTHER, "a key")
    for number in range(FREE_ADDRESSES):
        guess(guesses, f"2001:db8:{number:x}::1", 1)
    assert guesses.wait(OTHER, "another key")
    assert not guesses.wait(OTHER, "a key")
