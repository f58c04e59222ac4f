"""How the farm is, in one line for people, and what to do where it is not well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from api import use_cases
from api.listings import WorkerBody
from api.pages.words import counted
from api.services import Services
from shared.database import transact
from shared.queue import views
from shared.states import UNKNOWN, ImageState, WorkerState

START_WORKER: Final = "farm worker --gpus all"
RESUME_ALL: Final = "farm resume --all"


@dataclass(frozen=True)
class Line:
    """One line: how it is, what to do about it, the command that does it."""

    level: Literal["ok", "warn", "down"]
    words: str
    advice: str = ""
    command: str = ""


def line(services: Services) -> Line:
    """Return how the farm is now."""
    counts = transact(services.sessions, views.counts)
    workers = use_cases.workers(services).workers
    return tell(workers, counts[ImageState.QUEUED], counts[ImageState.RUNNING], has_redis=services.events.alive())


def tell(workers: Sequence[WorkerBody], queued: int, running: int, *, has_redis: bool) -> Line:
    """Return the line for what is alive, waits and runs."""
    load = [
        f"{counted(number, 'image')} {word}" for number, word in ((running, "running"), (queued, "waiting")) if number
    ]
    words = f"{_workers(workers)} · {', '.join(load) or 'nothing waits'}"
    if not workers:
        return Line("down", f"{words}.", "Jobs can be submitted; they start with the first worker:", START_WORKER)
    if all(worker.drained is not None for worker in workers):
        return Line(
            "warn", f"{words}.", "Every worker is drained; nothing new starts until one is resumed:", RESUME_ALL
        )
    if not has_redis:
        return Line("warn", f"{words}.", "Redis is away: what runs is finished, what waits starts when it is back.")
    return Line("ok", words)


def _workers(workers: Sequence[WorkerBody]) -> str:
    if not workers:
        return "No worker is alive"
    by_state = Counter[str](worker.state for worker in workers)
    known = [(by_state[state], state.value) for state in WorkerState]
    parts = [(number, state) for number, state in (*known, (by_state[UNKNOWN], "of a newer version")) if number]
    first = f"{counted(parts[0][0], 'worker')} {parts[0][1]}"
    return ", ".join([first, *(f"{number} {state}" for number, state in parts[1:])])
