"""The state of the farm in one line, and what to do about a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from api.readiness import OK
from api.schemas.workers import WorkerBody
from api.services import Services
from api.use_cases import workers as use_cases
from shared.db.sessions import transact
from shared.db.states import UNKNOWN, ImageState, WorkerState
from shared.errors import CARD_UNUSABLE, STORAGE_AWAY
from shared.models import first_scan
from shared.quantities import counted
from shared.queue import queries

START_WORKER: Final = "farm worker --gpus all"

_NOBODY: Final = "No worker is alive"


@dataclass(frozen=True)
class Line:
    """One line: the state, advice, a command, or the text of a link to the workers."""

    level: Literal["ok", "warn", "down"]
    words: str
    advice: str = ""
    command: str = ""
    link: str = ""


def line(services: Services) -> Line:
    """Return the line for the current state."""
    counts = transact(services.sessions, queries.counts)
    workers = use_cases.workers(services).workers
    are_coming = not workers and transact(services.sessions, first_scan.are_coming)
    load = (counts[ImageState.QUEUED], counts[ImageState.RUNNING])
    storage = services.readiness.storage().words
    away = storage if storage.startswith(STORAGE_AWAY) else f"{STORAGE_AWAY}: it {storage}"
    trouble = None if storage == OK else away
    return compose(workers, *load, redis=services.events.trouble(), are_coming=are_coming, storage=trouble)


def compose(  # noqa: PLR0913 - all that the line may mention
    workers: Sequence[WorkerBody],
    queued: int,
    running: int,
    *,
    redis: str | None = None,
    are_coming: bool = False,
    storage: str | None = None,
) -> Line:
    """Return the line for these workers and numbers of images.

    `redis`, `storage`: why they take nothing; `are_coming`: workers are starting.
    """
    load = [
        f"{counted(number, 'image')} {word}" for number, word in ((running, "running"), (queued, "waiting")) if number
    ]
    words = f"{_workers(workers)} · {', '.join(load) or 'nothing waits'}"
    if are_coming:
        words = words.replace(_NOBODY, "The workers are starting")
        return Line("warn", f"{words}.", "Jobs can be submitted; they begin as soon as one is ready.")
    if not workers:
        return Line("down", f"{words}.", "Jobs can be submitted; they start with the first worker:", START_WORKER)
    if all(worker.drained is not None for worker in workers):
        return Line("warn", f"{words}.", "All workers are paused.", link="Resume one")
    return _hindered(workers, f"{words}.", storage, redis) or Line("ok", words)


def _hindered(workers: Sequence[WorkerBody], words: str, storage: str | None, redis: str | None) -> Line | None:
    """Return the fault that stops workers, and what to do about it; None if there is none."""
    if unusable := [worker.name for worker in workers if worker.phase.startswith(CARD_UNUSABLE)]:
        who = (
            f"{len(unusable)} workers cannot use their cards" if unusable[1:] else f"{unusable[0]} cannot use its card"
        )
        return Line("warn", words, f"{who}.", link="See why")
    waiting = [worker.phase for worker in workers if worker.phase.startswith(STORAGE_AWAY)]
    is_stopped = bool(waiting) and all(worker.state == WorkerState.DRAINED for worker in workers)
    if away := storage or (waiting[0] if is_stopped else None):
        advice = f"{away[0].upper()}{away[1:]}. Finished pictures wait, nothing is lost; what to do:"
        return Line("warn", words, advice, "farm doctor storage")
    return Line("warn", words, f"{redis}.") if redis else None


def _workers(workers: Sequence[WorkerBody]) -> str:
    if not workers:
        return _NOBODY
    by_state = Counter[str](worker.state for worker in workers)
    known = [(by_state[state], state.value) for state in WorkerState]
    parts = [(number, state) for number, state in (*known, (by_state[UNKNOWN], "of a newer version")) if number]
    first = f"{counted(parts[0][0], 'worker')} {parts[0][1]}"
    return ", ".join([first, *(f"{number} {state}" for number, state in parts[1:])])
