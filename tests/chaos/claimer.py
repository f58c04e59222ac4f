"""A worker without a card: claims and finishes until nothing is left. Prints its id once it has registered."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from shared.db import sessions as database
from shared.db.states import ImageState, WorkerState
from shared.errors import Unavailable
from shared.queue import policy, queries, snapshot, transitions, workers
from shared.queue.claim import Claim, claim

T = TypeVar("T")
SLOTS = 4
LEASE_SECONDS = 60


class Claimer:
    """Holds up to `SLOTS` claims, so that a kill finds some in flight."""

    def __init__(self, sessions: database.Sessions) -> None:
        self._sessions = sessions
        self._held: list[Claim] = []
        self.id = self._insist(self._register)

    def work(self) -> None:
        while self._claim() or self._finish() or self._beat() or self._others_run():
            pass

    def _claim(self) -> bool:
        if len(self._held) == SLOTS:
            return False
        try:
            taken = database.transact(self._sessions, self._claim_one)
        except Unavailable:  # it may be ours without our knowing: the beat finds out
            return True
        self._held += [taken] if taken else []
        return taken is not None

    def _claim_one(self, session: Session) -> Claim | None:
        me = policy.Worker(self.id, ("default",))
        seen = snapshot.take(session)
        ranked = policy.rank(seen.lanes, seen.farm, me)
        return next((ours for lane in ranked for ours in claim(session, me, [lane])), None)

    def _finish(self) -> bool:
        if not self._held:
            return False
        ours = self._held.pop(0)
        self._insist(lambda session: transitions.finish(session, ours, 1))
        return True

    def _beat(self) -> bool:
        """Hand back what a lost answer made ours; True if there was some."""
        answer = self._insist(self._send)
        if answer is None:
            sys.exit("declared dead")
        self._insist(lambda session: transitions.hand_back(session, self.id, answer.missing))
        return bool(answer.missing)

    def _others_run(self) -> bool:
        return any(self._insist(queries.counts)[state] for state in (ImageState.QUEUED, ImageState.RUNNING))

    def _insist(self, work: Callable[[Session], T]) -> T:
        while True:
            try:
                return database.transact(self._sessions, work)
            except Unavailable:
                continue

    def _register(self, session: Session) -> int:
        return workers.register(
            session,
            name=f"host/cpu:{os.getpid()}",
            host="host",
            pid=os.getpid(),
            card="cpu:0",
            card_name="CPU",
            pool="default",
            slots=SLOTS,
            lease_seconds=LEASE_SECONDS,
        )

    def _send(self, session: Session) -> workers.Heartbeat | None:
        return workers.heartbeat(
            session,
            self.id,
            running={ours.image_id: ours.attempt for ours in self._held},
            state=WorkerState.READY,
            phase="steps",
            resident=[],
            load_seconds=None,
            lease_seconds=LEASE_SECONDS,
        )


if __name__ == "__main__":
    claimer = Claimer(database.sessions(database.connect(sys.argv[1])))
    sys.stdout.write(f"{claimer.id}\n")
    sys.stdout.flush()
    claimer.work()
