"""The page of the workers, and of the storage behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint, flash, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import Lazy, _, lazy
from api.pages import status_line
from api.pages.filters import worker_words
from api.schemas.workers import WorkerBody
from api.security import auth
from api.sentences import said
from api.services import Services, services
from api.use_cases import workers as use_cases
from shared.accounts.principal import Principal
from shared.db.states import WorkerState
from shared.errors import CARD_UNUSABLE, NotFound
from shared.models.kinds import KINDS

blueprint = Blueprint("workers_page", __name__)


@dataclass(frozen=True)
class WorkerRow:
    """A worker as people see it."""

    body: WorkerBody
    badge: str  # the class of its colour
    standing: str  # in a word
    is_unusable: bool  # its card
    words: str
    up_seconds: float
    silent_seconds: float


@blueprint.get("/workers")
def workers() -> str:
    """Show the workers, their activity and models, and the space that pictures take."""
    now = datetime.now(UTC)
    found = use_cases.workers(services())
    return render_template(
        "workers.html",
        farm=status_line.line(services()),
        workers=[row(worker, now) for worker in found.workers],
        ended=found.ended,
        kinds={kind: facts.label for kind, facts in KINDS.items()} | {"merged": _("with merged adapters")},
        place=services().storage.url.removeprefix("file://"),
        used=services().picture_bytes.get().value,
        free=services().free_bytes.get().value,
    )


@blueprint.post("/workers/drain")
def drain() -> AnyResponse:
    """Have one worker take nothing new."""
    return _change(use_cases.drain, lazy("%(worker)s is paused; it finishes its pictures."))


@blueprint.post("/workers/resume")
def resume() -> AnyResponse:
    """Let one worker take images again."""
    return _change(use_cases.resume, lazy("%(worker)s takes images again."))


def _change(change: Callable[[Services, Principal, str], object], words: Lazy) -> AnyResponse:
    name = request.form.get("worker", "")
    try:
        change(services(), auth.principal(), name)
        flash(str(words) % {"worker": name})
    except NotFound as missing:
        flash(said(missing))
    return redirect("/workers", 303)


def row(worker: WorkerBody, now: datetime) -> WorkerRow:
    """Return `worker` as people see it."""
    is_unusable = worker.phase.startswith(CARD_UNUSABLE) and worker.drained is None
    badge, standing = _standing(worker, is_unusable=is_unusable)
    return WorkerRow(
        body=worker,
        badge=badge,
        standing=standing,
        is_unusable=is_unusable,
        words=worker_words(worker),
        up_seconds=(now - worker.started_at).total_seconds(),
        silent_seconds=(now - worker.beat_at).total_seconds(),
    )


def _standing(worker: WorkerBody, *, is_unusable: bool) -> tuple[str, str]:
    """Return the colour and the word for how a worker stands."""
    if worker.is_late:
        return "late", "silent"
    if is_unusable:
        return "failed", "unusable"
    return worker.state, "paused" if worker.state == WorkerState.DRAINED else worker.state
