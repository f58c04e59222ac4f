"""A sweep over two checkpoints whose worker is killed on the way: each cell once, and hardly a load more."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from shared.db.sessions import transact
from shared.db.states import ImageState
from shared.db.tables import History, Image
from shared.maintenance.garbage import collect_attempts
from shared.media.storage import Storage
from shared.queue.history import Event
from shared.queue.submit import submit
from tests.chaos import loading_worker
from tests.chaos.test_recovery import DEFAULTS
from tests.support.admissions import admitted
from tests.support.waiting import until
from tests.support.workers import images, kill, ready, started

pytestmark = [pytest.mark.alone, pytest.mark.nightly, pytest.mark.timeout(900)]
CHECKPOINTS = ("sea", "sky")
SEEDS = 200
CELLS = SEEDS * len(CHECKPOINTS)
EXTRA_LOADS = 2
SECONDS = 120


@pytest.fixture
def render(environ, sessions, checkpoint_factory, tmp_path):
    """Renders the sweep on two workers of their own and returns its id and its loads; `meanwhile` gets its id."""
    for name in CHECKPOINTS:
        checkpoint_factory(name)
    sweep = {
        "axes": [{"field": "checkpoint", "values": CHECKPOINTS}, {"field": "seed", "values": f"1-{SEEDS}"}],
    }
    body = {"prompt": "a picture", "width": 64, "height": 64, "steps": 20, "sweep": sweep}

    def render(name: str, meanwhile=lambda _: None):
        notes = tmp_path / name
        notes.touch()
        named = {**environ, **DEFAULTS, loading_worker.NOTES: str(notes)}
        with started(named, "--gpus", "cpu:2", module=loading_worker.MODULE):
            until(lambda: ready(sessions, 2), SECONDS, "two workers")
            job = transact(sessions, lambda session: submit(session, admitted(session, body)).job.id)
            meanwhile(job)
            until(lambda: _counts(sessions, job) == {"succeeded": CELLS}, SECONDS, "all cells")
        return job, len(notes.read_text().splitlines())

    return render


def test_a_sweep_survives_the_death_of_a_worker_with_two_loads_more_at_most(render, settings, sessions):
    def kill_one(job: int) -> None:
        until(lambda: _counts(sessions, job).get("succeeded", 0) >= CELLS // 4, SECONDS, "a quarter of the cells")
        busy = until(lambda: [one for one in ready(sessions, 2) if one.id in _at_work(sessions, job)])
        kill(busy[0].pid)

    _, calm = render("calm")
    job, troubled = render("killed", kill_one)
    cells = images(sessions, job)
    assert [(cell.index, cell.state) for cell in cells] == [(at, "succeeded") for at in range(CELLS)]
    assert max(cell.attempt for cell in cells) == 2, "it was killed while it rendered"
    assert _finished(sessions, job) == {cell.id: 1 for cell in cells}
    storage = Storage(settings.storage)
    collect_attempts(sessions, storage)
    stored = {(one.index, one.attempt) for shelf in storage.objects() for one in shelf if one.job_id == job}
    assert stored == {(cell.index, cell.attempt) for cell in cells}
    assert troubled <= calm + EXTRA_LOADS


def _counts(sessions, job: int) -> dict[str, int]:
    query = select(Image.state, func.count()).where(Image.job_id == job).group_by(Image.state)
    return transact(sessions, lambda session: dict(session.execute(query).all()))


def _at_work(sessions, job: int) -> set[int | None]:
    query = select(Image.worker_id).where(Image.job_id == job, Image.state == ImageState.RUNNING)
    return transact(sessions, lambda session: set(session.scalars(query)))


def _finished(sessions, job: int) -> dict[int, int]:
    """Return how often each image of a job was committed."""
    query = select(History.image_id, func.count()).where(History.job_id == job, History.event == Event.FINISHED)
    return transact(sessions, lambda session: dict(session.execute(query.group_by(History.image_id)).all()))
