"""Why a job waits, read from the real tables; the sentences themselves are tests/unit/test_queue_explain.py's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from redis import Redis
from sqlalchemy import text, update

from shared.accounts.scope import EVERYBODYS
from shared.db import sessions as database
from shared.db.farm import farm_id
from shared.db.states import WorkerState
from shared.db.tables import ModelFile, Upload
from shared.models.model_set import Merge, ModelSet
from shared.params.controlnet import ControlUnit
from shared.params.groups import Hires, Refiner
from shared.params.img2img import Img2Img
from shared.params.upscale import Upscale, UpscalePicture
from shared.queue import explainer, missing_files, queries
from shared.queue.explain import Cause
from shared.queue.explainer import ERRORS, Explainer
from tests.conftest import CheckpointFactory
from tests.support.queueing import Farmhand, Workhand

DEMO = "c" * 64


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory: CheckpointFactory) -> None:
    checkpoint_factory("demo", sha256=DEMO)


@pytest.fixture
def _picture(sessions: database.Sessions) -> None:
    with sessions.begin() as session:
        session.add(Upload(owner="local", sha256="p", width=64, height=64, bytes=1))


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


@pytest.fixture
def why(sessions, redis_url, monkeypatch):
    """Explains a job as of now, whatever was known a second ago."""
    monkeypatch.setattr("shared.queue.snapshot.ALONE_SECONDS", 0)
    monkeypatch.setattr("shared.queue.snapshot.HEARD_SECONDS", 0)
    monkeypatch.setattr(explainer, "_RECENT_SECONDS", 0)
    made = Explainer(sessions, redis_url)
    yield lambda job: made.explain(job.id)
    made.close()


def ready(hand: Farmhand, **said) -> Workhand:
    worker = hand.worker(**said)
    worker.heartbeat()
    return worker


def rendered(hand: Farmhand, worker: Workhand, seconds: float) -> None:
    """Claim an image, and end it as if it had taken `seconds`."""
    claim = worker.claim()
    hand.finish(claim)
    with hand.sessions.begin() as session:
        session.execute(
            text("UPDATE images SET started_at = ended_at - make_interval(secs => :seconds) WHERE id = :id"),
            {"seconds": seconds, "id": claim.image_id},
        )


def test_a_job_that_does_not_wait_has_nothing_to_explain(hand, job_factory, why):
    job = job_factory()
    worker = ready(hand)
    claim = worker.claim()
    assert why(job) is None
    hand.finish(claim)
    assert why(job) is None


def test_each_reason_is_read_from_the_tables(hand, job_factory, why, sessions):
    job = job_factory(count=2)
    assert why(job).cause == Cause.NO_WORKER

    worker = hand.worker(slots=1)
    assert why(job).text == f"{worker.name} is still starting."

    worker.heartbeat(state=WorkerState.DRAINED)
    with sessions.begin() as session:
        session.execute(text("INSERT INTO drains (worker, reason) VALUES (:name, 'new cables')"), {"name": worker.name})
    assert why(job).text == f"{worker.name} takes nothing new: new cables."

    with sessions.begin() as session:
        session.execute(text("DELETE FROM drains"))
    for reason in ("the storage takes no pictures: the disk is full", "its card cannot be used: the driver is too old"):
        worker.heartbeat(state=WorkerState.DRAINED, phase=reason)
        assert why(job).text == f"{worker.name} takes nothing new: {reason}."

    worker.heartbeat()
    assert (why(job).cause, why(job).position) == (Cause.NEXT, 0)

    worker.claim()
    told = why(job)
    assert (told.cause, told.index) == (Cause.SLOT, 1), "the first image runs, the second waits"

    later = job_factory()
    assert (why(later).cause, why(later).position) == (Cause.OWN_IMAGES, 1)

    other = job_factory(owner="bob")
    assert why(other).cause == Cause.SLOT
    assert why(job).cause == Cause.OTHER_OWNERS

    with sessions.begin() as session:
        session.execute(
            text("UPDATE images SET state = 'held', reason = 'held by ann' WHERE job_id = :job"), {"job": later.id}
        )
    assert (why(later).text, why(later).position) == ("It is held by ann.", None)


def test_checkpoint_that_no_machine_has(hand, job_factory, checkpoint_factory, why):
    ready(hand)
    checkpoint_factory("gone", sha256="d" * 64, usable=False, reason="The file is gone.")
    checkpoint_factory("cut", sha256="e" * 64, usable=False, reason="The file ends in the middle of a tensor.")
    texts = [why(job_factory(checkpoint=letter * 64)).text for letter in "def"]
    put = "Put the file that it was submitted with into the models folder (FARM_MODELS)."
    assert texts == [
        f"Its checkpoint cannot be loaded: gone is on no machine any more. {put}",
        f"Its checkpoint cannot be loaded: cut: The file ends in the middle of a tensor. {put}",
        f"Its checkpoint cannot be loaded: demo [ffffffffff] is another file than when the job was submitted. {put}",
    ]


GONE, UNKNOWN = "a" * 64, "b" * 64
ROLES = {
    "lora": (
        ModelSet(checkpoint=DEMO, adapters={"lora:ink": UNKNOWN}),
        {"prompt": "sea <lora:ink:0.8>"},
        "ink",
        "Lora",
    ),
    "hypernetwork": (
        ModelSet(checkpoint=DEMO, adapters={"hypernet:haze": UNKNOWN}),
        {"prompt": "sea <hypernet:haze:1>"},
        "haze",
        "hypernetworks",
    ),
    "merged LoRA": (
        ModelSet(checkpoint=DEMO, merges=(Merge(sha256=UNKNOWN),)),
        {"prompt": "sea <lora:wash:0.8>"},
        "wash",
        "Lora",
    ),
    "embedding": (
        ModelSet(checkpoint=DEMO, embeddings={"embeddings/storm.pt": UNKNOWN}),
        {"prompt": "storm"},
        "storm",
        "embeddings",
    ),
    "controlnet": (
        ModelSet(checkpoint=DEMO, controls=(DEMO, UNKNOWN)),
        {
            "img2img": Img2Img(picture="p"),
            "controlnet": (ControlUnit(model="demo"), ControlUnit(model="canny [bbbbbbbbbb]")),
        },
        "canny [bbbbbbbbbb]",
        "ControlNet",
    ),
    "vae": (ModelSet(checkpoint=DEMO, vae=UNKNOWN), {"vae": "clear [bbbbbbbbbb]"}, "clear [bbbbbbbbbb]", "VAE"),
    "upscaler of the second pass": (
        ModelSet(checkpoint=DEMO, upscaler=UNKNOWN),
        {"hires": Hires(upscaler="sharp [bbbbbbbbbb]")},
        "sharp [bbbbbbbbbb]",
        "ESRGAN",
    ),
    "refiner": (
        ModelSet(checkpoint=DEMO, refiner=UNKNOWN),
        {"refiner": Refiner(checkpoint="late [bbbbbbbbbb]")},
        "late [bbbbbbbbbb]",
        "",
    ),
}


@pytest.mark.usefixtures("_picture")
@pytest.mark.parametrize("role", ROLES)
def test_a_missing_file_of_each_role_is_named_with_its_folder(hand, job_factory, why, role):
    models, params, name, folder = ROLES[role]
    ready(hand)
    told = why(job_factory(models=models, checkpoint=DEMO, **params))
    assert [(file.name, file.folder, file.sha256) for file in told.missing] == [(name, folder, UNKNOWN)]
    assert told.cause == (Cause.NO_CHECKPOINT if role == "refiner" else Cause.NO_MODEL)
    assert f"{name} is on no machine." in told.text
    if folder:
        assert f"the folder {folder} of the models folder" in told.text


@pytest.mark.usefixtures("_picture")
def test_the_upscaler_of_a_job_that_only_enlarges_is_no_checkpoint(hand, job_factory, why):
    ready(hand)
    enlarge = Upscale(pictures=(UpscalePicture(picture="p"),), upscaler="sharp [bbbbbbbbbb]")
    told = why(job_factory(models=ModelSet(upscaler=UNKNOWN), checkpoint="", upscale=enlarge))
    assert told.text.startswith("Its upscaler cannot be loaded: sharp [bbbbbbbbbb] is on no machine.")


def test_a_missing_file_says_whether_it_is_gone_broken_or_replaced(hand, job_factory, checkpoint_factory, why):
    ready(hand)
    ink = checkpoint_factory("ink", kind="lora", sha256=GONE, usable=False, reason="The file is gone.")
    job = job_factory(models=ROLES["lora"][0].model_copy(update={"adapters": {"lora:ink": GONE}}), checkpoint=DEMO)
    assert "ink is on no machine any more." in why(job).text
    hand.run(lambda session: session.execute(update(ModelFile).where(ModelFile.path == ink.path).values(reason="Cut.")))
    assert "Its LoRA cannot be loaded: ink: Cut. Put" in why(job).text
    replaced = {"sha256": "d" * 64, "usable": True, "reason": None}
    hand.run(lambda session: session.execute(update(ModelFile).where(ModelFile.path == ink.path).values(**replaced)))
    assert "ink is another file than when the job was submitted." in why(job).text
    checkpoint_factory("again", kind="lora", sha256=GONE)
    assert why(job).cause == Cause.NEXT, "a copy under another name is enough"


def test_a_job_with_tags_of_a_newer_version_is_explained_without_them(hand, job_factory, why):
    ready(hand)
    job = job_factory(models=ModelSet(checkpoint=DEMO, adapters={"lyco:ink": UNKNOWN}), checkpoint=DEMO)
    assert why(job).missing == ()


def test_every_role_of_a_model_set_can_be_told_as_missing():
    by_name = {"adapters", "merges", "embeddings"}
    assert {*ModelSet.model_fields} - by_name - {"hashes"} <= {*missing_files.kinds_of_roles()}


def test_a_copy_of_the_file_is_enough(hand, job_factory, checkpoint_factory, why):
    ready(hand)
    checkpoint_factory("old-name", sha256=DEMO, usable=False, reason="The file is gone.")
    assert why(job_factory()).cause == Cause.NEXT


def test_left_alone_names_the_worker_that_has_the_checkpoint(hand, job_factory, why):
    home = ready(hand)
    home.heartbeat(resident=[DEMO])
    ready(hand).heartbeat(load_seconds=600.0)
    told = why(job_factory())
    assert told.cause == Cause.LEFT_ALONE
    assert told.text.startswith(f"Its checkpoint is loaded on {home.name}: ")
    assert 13 < told.estimate_seconds <= 15


def test_estimate_comes_from_what_was_rendered_lately(hand, job_factory, why):
    worker = ready(hand, slots=1)
    job_factory(count=1)
    rendered(hand, worker, 30)
    job_factory(count=1)
    worker.claim()
    told = why(job_factory(count=1))
    assert told.estimate_seconds == pytest.approx(30, rel=0.01), "one image as large as that which took 30 s"
    assert why(job_factory(count=1)).estimate_seconds == pytest.approx(60, rel=0.01), "with one before it"


def test_error_of_past_estimates_is_told_by_all(hand, job_factory, why, sessions, redis_url):
    worker = ready(hand, slots=1)
    job_factory()
    rendered(hand, worker, 30)
    running = job_factory()
    claim = worker.claim()
    told = [(job, why(job).estimate_seconds) for job in [job_factory() for _ in range(3)]]
    assert [round(seconds) for _, seconds in told] == [30, 60, 90]
    assert why(told[0][0]).estimate_error is None, "none has come true yet"

    hand.finish(claim)
    for _ in told:
        rendered(hand, worker, 0)
    with sessions.begin() as session:  # each starts in half the estimated time
        for job, seconds in told:
            session.execute(
                text("UPDATE images SET started_at = queued_at + make_interval(secs => :waited) WHERE job_id = :job"),
                {"job": job.id, "waited": seconds / 2},
            )
            session.execute(
                text("UPDATE images SET ended_at = started_at + interval '30 s' WHERE job_id = :job"), {"job": job.id}
            )
    assert hand.job(running.id).state == "succeeded"
    waiting = job_factory(count=2)
    worker.claim()
    assert why(waiting).estimate_error == pytest.approx(0.5, abs=0.05)
    assert "off by a half" in why(waiting).text

    elsewhere = Explainer(sessions, redis_url)
    assert elsewhere.explain(waiting.id).estimate_error == pytest.approx(0.5, abs=0.05)
    elsewhere.close()
    with Redis.from_url(redis_url) as redis:
        assert redis.llen(farm_id(sessions).key(ERRORS)) == 3


def test_without_redis_each_process_knows_its_own_errors(hand, job_factory, sessions, monkeypatch):
    worker = ready(hand)
    alone = Explainer(sessions, "unix:///nowhere/redis.sock")
    monkeypatch.setattr(alone, "_health", SimpleNamespace(trouble=lambda: None))
    assert alone.explain(job_factory().id).cause == Cause.NEXT
    assert worker.claim() is not None
    alone.close()


def test_a_lane_that_is_too_long_is_not_counted_to_its_end(hand, job_factory, why, monkeypatch):
    monkeypatch.setattr(explainer, "FARTHEST", 3)
    assert queries.FARTHEST == 1000
    worker = ready(hand, slots=1)
    job_factory(count=6)
    worker.claim()
    job = job_factory()
    assert why(job).text == "More than 3 images of the same owner go first."


def test_many_who_look_take_one_snapshot(hand, job_factory, sessions, redis_url, monkeypatch):
    ready(hand)
    taken = []
    take = explainer.Snapshots._take
    monkeypatch.setattr(explainer.Snapshots, "_take", lambda *args: taken.append(1) or take(*args))
    made = Explainer(sessions, redis_url)
    jobs = [job_factory() for _ in range(5)]
    assert {made.explain(job.id).cause for job in jobs} == {Cause.NEXT, Cause.OWN_IMAGES}
    assert len(taken) == 1
    made.close()


def test_after_a_worker_s_death_its_images_are_told_to_run_one_by_one(hand, job_factory, why):
    struck = job_factory(count=4)
    dying = ready(hand)
    for _ in range(4):
        dying.claim()
    dying.mark_dead(crashed=True)
    worker = ready(hand, slots=8)
    behind = job_factory()
    assert why(struck).cause == Cause.NEXT

    first = worker.claim()
    assert worker.claim().job_id == behind.id, "what no worker died of goes past"
    told = why(struck)
    assert (told.cause, told.position) == (Cause.STRUCK, 0)
    assert told.text.startswith("A worker died while it rendered this image, and each worker renders one such image")

    other = ready(hand)
    assert why(struck).text == f"It is next: {other.name} has room for it."
    hand.finish(first)
    last = hand.images(struck.id)[-1]
    assert (last.state, last.strikes) == ("queued", 1)


def test_what_waits_behind_images_that_a_worker_died_of_is_not_held_up_by_them(hand, job_factory, why):
    job_factory(count=4)
    dying = ready(hand)
    for _ in range(4):
        dying.claim()
    dying.mark_dead(crashed=True)
    worker = ready(hand, slots=8)
    worker.claim()
    behind = job_factory()
    told = why(behind)
    assert (told.cause, told.position) == (Cause.NEXT, 0)
    assert hand.run(queries.job, EVERYBODYS, behind.id).position == 0


def test_a_job_that_every_worker_has_left_to_newer_ones_says_so(hand, job_factory, why):
    job, worker = job_factory(), ready(hand)
    worker.heartbeat(unread={job.id: "hires.foo", job.id + 1: "mood"})
    told = why(job)
    assert (told.cause, told.text) == (
        Cause.NEWER_VERSION,
        f"It needs a worker of a newer version: {worker.name} does not know hires.foo.",
    )
    newer = ready(hand)
    assert why(job).text == f"It is next: {newer.name} has room for it."
