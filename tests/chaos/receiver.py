"""The program that the people of a farm have their webhooks sent to, and the trouble that it makes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime

from tests.chaos.plans import Kind
from tests.support.receivers import Receiver, listening

_TURN_SECONDS = 0.1


class TroubledReceiver:
    """A receiver that can be killed, hushed, and made to fail, and comes back at the same address."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.back_at = datetime.now(UTC)  # since when it takes messages again
        self._listens = ExitStack()
        self._port = 0
        self._listen()

    def trouble(self, kind: Kind) -> Callable[[], None]:
        """Make trouble of this kind; return what ends it."""
        match kind:
            case Kind.KILL_RECEIVER:
                self._listens.close()
            case Kind.HUSH_RECEIVER:
                self.receiver.answers.clear()
            case _:
                self.receiver.status = 500
        self._is_well = False
        return self.mend

    def mend(self) -> None:
        """Have it take messages again. May be called again."""
        if not self._is_well:
            self.receiver.status = 204
            self.receiver.answers.set()
            self._listens.close()
            self._listen()

    def close(self) -> None:
        """Leave, and let what waits for an answer have it."""
        self.receiver.answers.set()
        self._listens.close()

    def _listen(self) -> None:
        self._port = self._listens.enter_context(listening(self.receiver, self._port, _TURN_SECONDS))
        self.back_at, self._is_well = datetime.now(UTC), True
