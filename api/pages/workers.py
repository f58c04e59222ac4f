"""The page of the workers, and of the storage behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint, render_template

from api import use_cases
from api.listings import WorkerBody
from api.pages import farm
from api.pages.words import worker_words
from api.services import services

blueprint = Blueprint("workers_page", __name__)


@dataclass(frozen=True)
class Shown:
    """A worker as people see it."""

    body: WorkerBody
    words: str
    resident: list[str]  # names of checkpoints
    up_seconds: float
    silent_seconds: float


@blueprint.get("/workers")
def workers() -> str:
    """Show what each worker is, does and holds, and how full the storage is."""
    names = {one.sha256: one.name for one in use_cases.checkpoints(services()).checkpoints if one.sha256}
    now = datetime.now(UTC)
    return render_template(
        "workers.html",
        farm=farm.line(services()),
        workers=[show(worker, names, now) for worker in use_cases.workers(services()).workers],
        place=services().storage.url.removeprefix("file://"),
        used=services().picture_bytes.get(),
        free=services().storage.free_bytes(),
    )


def show(worker: WorkerBody, names: Mapping[str, str], now: datetime) -> Shown:
    """Return `worker` as people see it; a checkpoint that has left the models folder goes by its short hash."""
    return Shown(
        body=worker,
        words=worker_words(worker),
        resident=[names.get(sha256, sha256[:10]) for sha256 in worker.resident],
        up_seconds=(now - worker.started_at).total_seconds(),
        silent_seconds=(now - worker.beat_at).total_seconds(),
    )
