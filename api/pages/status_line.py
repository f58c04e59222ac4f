"""The state of the farm in one line, and what to do about a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from api.languages import _, ngettext
from api.pages.filters import state
from api.readiness import OK
from api.schemas.workers import WorkerBody
from api.sentences import said
from api.services import Services
from api.use_cases import workers as use_cases
from shared.db.sessions import transact
from shared.db.states import UNKNOWN, ImageState, WorkerState
from shared.errors import CARD_UNUSABLE, STORAGE_AWAY
from shared.models import first_scan
from shared.queue import queries

START_WORKER: Final = "farm worker --gpus all"


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
    load = [ngettext("%(num)s image running", "%(num)s images running", running)] if running else []
    load += [ngettext("%(num)s image waiting", "%(num)s images waiting", queued)] if queued else []
    who = _("The workers are starting") if are_coming else _workers(workers)
    rest = ", ".join(load) or _("nothing waits")  # not within the f-string: Babel finds no text there
    words = f"{who} · {rest}"
    sentence = _("%(words)s.", words=words)
    if are_coming:
        return Line("warn", sentence, _("Jobs can be submitted; they begin as soon as one is ready."))
    if not workers:
        return Line("down", sentence, _("Jobs can be submitted; they start with the first worker:"), START_WORKER)
    if all(worker.drained is not None for worker in workers):
        return Line("warn", sentence, _("All workers are paused."), link=_("Resume one"))
    return _hindered(workers, sentence, storage, redis) or Line("ok", words)


def _hindered(workers: Sequence[WorkerBody], words: str, storage: str | None, redis: str | None) -> Line | None:
    """Return the fault that stops workers, and what to do about it; None if there is none."""
    if unusable := [worker.name for worker in workers if worker.phase.startswith(CARD_UNUSABLE)]:
        who = ngettext(
            "%(name)s cannot use its card.", "%(num)s workers cannot use their cards.", len(unusable), name=unusable[0]
        )
        return Line("warn", words, who, link=_("See why"))
    waiting = [worker.phase for worker in workers if worker.phase.startswith(STORAGE_AWAY)]
    is_stopped = bool(waiting) and all(worker.state == WorkerState.DRAINED for worker in workers)
    if away := storage or (waiting[0] if is_stopped else None):
        why = said(away)
        why = why[0].upper() + why[1:]
        advice = _("%(why)s. Finished pictures wait, nothing is lost; what to do:", why=why)
        return Line("warn", words, advice, "farm doctor storage")
    return Line("warn", words, said(f"{redis}.")) if redis else None


def _workers(workers: Sequence[WorkerBody]) -> str:
    if not workers:
        return _("No worker is alive")
    by_state = Counter[str](worker.state for worker in workers)
    known = [(by_state[one], state(one.value)) for one in WorkerState]
    parts = [(many, words) for many, words in (*known, (by_state[UNKNOWN], _("of a newer version"))) if many]
    first = ngettext("%(num)s worker %(state)s", "%(num)s workers %(state)s", parts[0][0], state=parts[0][1])
    return ", ".join([first, *(f"{many} {words}" for many, words in parts[1:])])
