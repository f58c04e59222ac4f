"""Faults that a product could have, planted into the processes of a plan: its invariants must find each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, Final

from shared.webhooks import sending
from shared.webhooks.endpoints import new_secret
from tests.chaos.calm import CALM_SECONDS

FAULT: Final = "CHAOS_FAULT"
"""The variable of the environment that names the fault of a process."""
_EACH: Final = 3  # of so many messages one has the fault

Send = Callable[..., Any]


def plant(name: str) -> None:
    """Give the senders of webhooks in this process a fault."""
    original, fault, numbers = sending.send, FAULTS[name], count(1)

    def send(outgoing: Any, *arguments: Any) -> Any:
        is_hit = next(numbers) % _EACH == 0
        return fault(original, outgoing, *arguments) if is_hit else original(outgoing, *arguments)

    sending.send = send


def _lose(_send: Send, *_arguments: Any) -> None:
    """Say that a message has arrived, and send none."""


def _delay(send: Send, *arguments: Any) -> Any:
    time.sleep(CALM_SECONDS + 1)
    return send(*arguments)


def _forge(send: Send, outgoing: Any, *arguments: Any) -> Any:
    return send(replace(outgoing, secrets=(new_secret(),)), *arguments)


FAULTS: Final = {"lost": _lose, "late": _delay, "wrongly signed": _forge}
"""Each by the word that the invariants have for it."""
