"""Slows clients that guess keys: by address, and all together. Each process counts its own."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil
from threading import Lock
from typing import Final

FREE_GUESSES: Final = 10  # of one address
SECONDS_A_GUESS: Final = 3.0  # after them
FREE_GUESSES_OF_ALL: Final = 200
SECONDS_A_GUESS_OF_ALL: Final = 0.1
FREE_ADDRESSES: Final = 1000  # that guess for the first time, or again after long
SECONDS_AN_ADDRESS: Final = 0.1  # after them
MOST_REMEMBERED: Final = 4096  # addresses, and keys that were right from one


@dataclass
class _Bucket:
    """Guesses that are left; one more comes every so often."""

    left: float
    at: float

    def refill(self, now: float, seconds: float, most: int) -> None:
        self.left = min(self.left + (now - self.at) / seconds, most)
        self.at = now


class Guesses:
    """Counts wrong keys. Safe for many threads.

    Behind one address many people may work: a key that was right from there before is never slowed by others' guesses.
    An address that has not guessed yet is not slowed when all together guess much, unless ever new addresses do.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._all = _Bucket(FREE_GUESSES_OF_ALL, clock())
        self._new = _Bucket(FREE_ADDRESSES, clock())
        self._addresses: OrderedDict[Hashable, _Bucket] = OrderedDict()
        self._right: OrderedDict[tuple[Hashable, str], None] = OrderedDict()

    def wait(self, address: str, digest: str) -> int:
        """Return how many seconds `address` has to wait before the key of this digest is looked at; 0: none."""
        with self._lock:
            bucket = self._bucket(address)
            if (place(address), digest) in self._right:
                return 0
            if bucket.left < 1:
                return ceil((1 - bucket.left) * SECONDS_A_GUESS)
            return 0 if self._shared(bucket).left >= 1 else ceil(SECONDS_A_GUESS)

    def wrong(self, address: str) -> None:
        """Count a wrong key."""
        with self._lock:
            bucket, origin = self._bucket(address), place(address)
            shared = {id(one): one for one in (self._shared(bucket), self._all)}
            for one in (bucket, *shared.values()):
                one.left = max(one.left - 1, 0)
            self._addresses[origin] = bucket
            self._addresses.move_to_end(origin)
            _bound(self._addresses)

    def right(self, address: str, digest: str) -> None:
        """Remember that a key was right from `address`."""
        with self._lock:
            self._right[place(address), digest] = None
            self._right.move_to_end((place(address), digest))
            _bound(self._right)

    def _bucket(self, address: str) -> _Bucket:
        """Return the bucket of an address, filled up to now as the shared ones are."""
        now = self._clock()
        self._all.refill(now, SECONDS_A_GUESS_OF_ALL, FREE_GUESSES_OF_ALL)
        self._new.refill(now, SECONDS_AN_ADDRESS, FREE_ADDRESSES)
        bucket = self._addresses.get(place(address)) or _Bucket(FREE_GUESSES, now)
        bucket.refill(now, SECONDS_A_GUESS, FREE_GUESSES)
        return bucket

    def _shared(self, bucket: _Bucket) -> _Bucket:
        """Return what the next guess of an address also takes from: the first of many is given more."""
        return self._new if bucket.left >= FREE_GUESSES else self._all


def place(address: str) -> Hashable:
    """Return what one client can hardly have several of: an IPv4 address, or the first half of an IPv6 one."""
    try:
        parsed = ip_address(address)
    except ValueError:  # a socket without addresses
        return address
    if isinstance(parsed, IPv6Address):
        return parsed.ipv4_mapped or int(parsed) >> 64
    return parsed


def _bound(remembered: OrderedDict[Hashable, _Bucket] | OrderedDict[tuple[Hashable, str], None]) -> None:
    if len(remembered) > MOST_REMEMBERED:
        remembered.popitem(last=False)
