from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select, update

from shared.accounts import limit_rows
from shared.accounts.principal import LOCAL
from shared.accounts.scope import EVERYBODYS
from shared.db import tables
from shared.db.sessions import transact
from shared.db.tables import History, Job
from shared.errors import ModelFileAway, OutOfMemory, RenderFailed, Spoilt, TooSlow, Unavailable
from shared.infotext.files import text as infotext
from shared.media.storage import key
from shared.queue import reaper, snapshot, transitions
from tests.support.waiting import until
from tests.support.workers import TICKET, images, made, states
from worker.dispatch import claimer
from worker.dispatch import slots as slots_module
from worker.dispatch.claimer import Claimer
from worker.dispatch.coalesce import _Question
from worker.dispatch.slots import Slots
from worker.progress.reporter import Reporter
from worker.render import film, outputs
from worker.renderer import Frame, Rendered


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions) as worker:
        yield worker


@pytest.fixture
def slots(worker):
    return Slots(
        worker,
        Claimer(worker),
        Reporter(worker.events),
        on_free=lambda: None,
        on_lost=lambda: pytest.fail("the card was lost"),
    )


def test_a_ticket_becomes_a_stored_and_committed_picture(worker, slots, sessions, job_factory):
    job = job_factory(seed=41, count=2)
    for _ in range(2):
        slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded", "succeeded"]
    picture = worker.storage.get(key(job.id, 1, 1, "picture"))
    with Picture.open(BytesIO(picture)) as image:
        assert image.getpixel((0, 0)) == (42, 42, 42)
        assert "Seed: 42," in image.text["parameters"]
    assert images(sessions)[1].bytes == len(picture)
    assert worker.storage.exists(key(job.id, 1, 1, "thumbnail"))
    assert worker.free_slots == worker.slots


@pytest.mark.parametrize(("form", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "picture.webp")])
def test_a_picture_is_stored_in_the_format_that_was_asked_for(worker, slots, job_factory, form, suffix):
    job = job_factory(format=form, film=True)
    slots.consume(was_passed=False)
    picture = key(job.id, 0, 1, "picture", form)
    assert picture.endswith(f"-1.{suffix}")
    with Picture.open(BytesIO(worker.storage.get(picture))) as image:
        assert image.format == form.upper()
        assert infotext(image).startswith(job.params["prompt"])
    assert worker.storage.exists(key(job.id, 0, 1, "thumbnail", form))


def test_a_film_lies_beside_its_picture(worker, slots, job_factory):
    job = job_factory(film=True, steps=3)
    slots.consume(was_passed=False)
    with Picture.open(BytesIO(worker.storage.get(key(job.id, 0, 1, "film")))) as film:
        assert film.n_frames == 3
    with Picture.open(BytesIO(worker.storage.get(key(job.id, 0, 1, "strip")))) as strip:
        assert strip.width > 2 * strip.height


def test_the_picture_of_a_film_is_numbered_by_the_steps_taken_and_not_by_an_estimate(monkeypatch):
    frames, grey = [], np.zeros((8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr(film, "animation", lambda given: frames.extend(given) or b"")
    assert list(outputs._film(None, Rendered(grey, (Frame(7, 40, grey),), steps=31)))
    assert [(frame.step, frame.steps) for frame in frames] == [(7, 40), (31, 31)]


def test_without_a_film_there_is_none(worker, slots, job_factory):
    job = job_factory()
    slots.consume(was_passed=False)
    assert not worker.storage.exists(key(job.id, 0, 1, "film"))


def test_a_film_that_cannot_be_made_costs_no_picture(worker, slots, sessions, job_factory, monkeypatch):
    def fail(*_):
        raise ValueError("too wide")

    monkeypatch.setattr(film, "strip", fail)
    job = job_factory(film=True)
    slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded"]
    assert worker.storage.exists(key(job.id, 0, 1, "picture"))


def test_a_ticket_for_nothing_is_spent(worker, slots):
    slots.consume(was_passed=False)
    assert worker.free_slots == worker.slots


def test_a_render_error_fails_the_image_with_its_reason(slots, sessions, job_factory):
    job_factory(prompt="fail: the file is truncated")
    slots.consume(was_passed=False)
    [image] = images(sessions)
    assert (image.state, image.reason) == ("failed", "the file is truncated")


def test_an_unexpected_error_fails_the_image_and_names_its_kind(slots, sessions, job_factory):
    job_factory(prompt="break: by zero")
    slots.consume(was_passed=False)
    [image] = images(sessions)
    assert image.state == "failed"
    assert "ZeroDivisionError: by zero" in image.reason


def test_what_is_away_never_uses_up_the_tries(worker, slots, sessions, job_factory, monkeypatch):
    def away(*_):
        raise Unavailable("the database does not answer")

    job_factory()
    with monkeypatch.context() as card:
        card.setattr(worker.card, "render", away)
        for attempt in range(1, 6):
            slots.consume(was_passed=False)
            assert [(image.state, image.attempt) for image in images(sessions)] == [("queued", attempt)]


def test_a_job_of_a_younger_farm_is_left_to_others_for_good(slots, sessions, job_factory, monkeypatch, capsys):
    younger = job_factory(owner="ann", count=2, scheduling={"expires_at": datetime.now(UTC) + timedelta(hours=1)})
    transact(sessions, lambda session: session.execute(update(Job).values(params=Job.params.concat({"mood": "blue"}))))
    job_factory(owner="bob")
    clock = [1000.0]
    monkeypatch.setattr(claimer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for _ in range(3):
        slots.consume(was_passed=False)
    assert states(sessions) == ["queued", "queued", "succeeded"]
    assert [(one.attempt, one.strikes, one.started_at) for one in images(sessions, younger.id)] == [
        (1, 0, None),  # so its deadline stands
        (0, 0, None),
    ]
    assert capsys.readouterr().out.count("not understood") == 1
    clock[0] += 3600
    slots.consume(was_passed=False)
    assert "not understood" not in capsys.readouterr().out
    assert slots._worker.unreadable_jobs.reasons() == {younger.id: "mood"}
    lines = select(History.event).where(History.job_id == younger.id).order_by(History.id)
    assert transact(sessions, lambda session: session.scalars(lines).all()) == ["submitted", "claimed", "handed back"]


def test_what_is_left_to_newer_workers_does_not_keep_an_older_one_busy(worker, slots, sessions, job_factory):
    """Neither has it tickets to issue to itself, nor does it hide what it can render, of the same owner and model."""
    job = job_factory(count=3)
    strange = update(Job).where(Job.id == job.id).values(params=Job.params.concat({"mood": "blue"}))
    transact(sessions, lambda session: session.execute(strange))
    slots.consume(was_passed=False)
    assert not slots._claimer.has_some()
    plain = job_factory(count=2)
    until(slots._claimer.has_some)
    slots.consume(was_passed=False)
    slots.consume(was_passed=False)
    assert states(sessions, plain.id) == ["succeeded", "succeeded"]
    assert states(sessions, job.id) == ["queued"] * 3


def test_a_ticket_for_what_only_a_newer_worker_reads_is_passed_on(worker, slots, settings, sessions, job_factory):
    job_factory()
    transact(sessions, lambda session: session.execute(update(Job).values(params=Job.params.concat({"mood": "blue"}))))
    slots.consume(was_passed=False)
    with made(settings, sessions) as newer:
        ready_now = update(tables.Worker).where(tables.Worker.id == newer.id).values(state="ready", resident=["c" * 64])
        transact(sessions, lambda session: session.execute(ready_now))
        until(lambda: slots._claimer.better_worker() == newer.id)


def test_a_checkpoint_that_is_not_here_is_left_to_others_for_a_while(worker, slots, sessions, job_factory, monkeypatch):
    def away(*_):
        raise ModelFileAway("demo.safetensors is not in /models", "c" * 64)

    monkeypatch.setattr(worker.card, "render", away)
    job_factory(owner="ann")
    job_factory(owner="bob")
    for _ in range(3):
        slots.consume(was_passed=False)
    assert [(image.state, image.attempt) for image in images(sessions)] == [("queued", 1), ("queued", 0)]


def test_a_job_whose_adapter_is_not_here_holds_up_no_other_of_its_checkpoint(
    slots, sessions, job_factory, monkeypatch, capsys
):
    worker = slots._worker
    render = worker.card.render

    def away(claim, *given):
        if claim.params.prompt == "ink":
            raise ModelFileAway("Lora/ink.safetensors is not in /models", "a" * 64)
        return render(claim, *given)

    monkeypatch.setattr(worker.card, "render", away)
    with_ink = job_factory(owner="ann", prompt="ink", count=2)
    plain = [job_factory(owner=owner) for owner in ("ann", "bob")]
    for _ in range(4):
        slots.consume(was_passed=False)
    assert [states(sessions, job.id) for job in plain] == [["succeeded"], ["succeeded"]]
    assert [(one.state, one.attempt) for one in images(sessions, with_ink.id)] == [("queued", 1), ("queued", 0)]
    assert "Lora/ink.safetensors is not in /models" in capsys.readouterr().out
    assert not slots._claimer.has_some()
    assert worker.unreadable_jobs.reasons() == {}, "it is not of a newer version"


def test_a_cancel_frees_the_slot_and_leaves_the_checkpoint_resident(worker, slots, sessions, job_factory, tmp_path):
    job = job_factory(prompt=f"wait for {tmp_path / 'never'}", checkpoint="a" * 64)
    slot = Thread(target=slots.consume, kwargs={"was_passed": False})
    slot.start()
    until(lambda: worker.free_slots < worker.slots and worker.card.resident())
    running = transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, job.id)).running
    worker.in_flight.cancel(dict.fromkeys(running, 0))  # an order that came late, of an earlier attempt
    slot.join(0.2)
    assert slot.is_alive()
    worker.in_flight.cancel(running)
    slot.join(10)
    assert not slot.is_alive()
    assert (worker.free_slots, worker.card.resident(), states(sessions)) == (worker.slots, ["a" * 64], ["cancelled"])


def test_a_picture_that_comes_after_a_burial_is_refused(worker, slots, sessions, job_factory, tmp_path):
    job_factory(prompt=f"wait for {tmp_path / 'gate'}")
    slot = Thread(target=slots.consume, kwargs={"was_passed": False})
    slot.start()
    until(lambda: worker.free_slots < worker.slots)
    transact(sessions, lambda session: reaper.mark_dead(session, worker.id, reason="test", crashed=False))
    (tmp_path / "gate").touch()
    slot.join(10)
    [image] = images(sessions)
    assert (image.state, image.attempt, image.bytes) == ("queued", 1, None)


def test_those_who_watch_hear_of_each_state(worker, slots, job_factory):
    with worker.events.subscribe() as told:
        job_factory()
        slots.consume(was_passed=False)
        states = [until(lambda: told.get(5)).event.state for _ in range(3)]
    assert states == ["running", "succeeded", "succeeded"]


def test_slots_that_claim_together_take_no_more_of_an_owner_than_may_run(worker, sessions, job_factory):
    for checkpoint in "cde":
        job_factory(owner="ann", checkpoint=checkpoint * 64, count=2)
    job_factory(owner="bob")
    transact(sessions, lambda session: limit_rows.change(session, "ann", {"running": 2}, LOCAL))

    given = Claimer(worker)._for_slots(0.0, [TICKET] * 6)

    assert sorted(one.claim.owner for one in given if one.claim) == ["ann", "ann", "bob"]
    assert not any(one.claim for one in Claimer(worker)._for_slots(0.0, [TICKET] * 6))


def test_the_end_of_an_image_lets_the_next_of_its_owner_start_although_the_snapshot_is_young(
    worker, slots, sessions, job_factory, monkeypatch
):
    monkeypatch.setattr(snapshot, "HEARD_SECONDS", 3600.0)  # it stays young
    transact(sessions, lambda session: limit_rows.change(session, "ann", {"running": 1}, LOCAL))
    job_factory(owner="ann", count=2)
    claimer = slots._claimer
    ours = claimer.next(TICKET).claim
    assert not claimer.has_some()
    slots.run(ours)
    assert claimer.has_some()


@pytest.mark.parametrize(
    ("error", "is_of_one"), [(Unavailable("away"), False), (TooSlow("locked"), True), (ZeroDivisionError(), True)]
)
def test_a_group_of_finishes_falls_apart_where_one_image_may_be_to_blame(
    worker, slots, sessions, job_factory, monkeypatch, *, error, is_of_one
):
    job_factory(count=2)
    mine, asked, finish = (
        [Claimer(worker).next(TICKET).claim for _ in range(2)],
        [],
        slots_module.transitions.finish_all,
    )

    def finish_all(session, pictures):
        asked.append(len(pictures))
        if len(asked) == 1:
            raise error
        return finish(session, pictures)

    monkeypatch.setattr(slots_module.transitions, "finish_all", finish_all)
    questions = [_Question(transitions.Stored(ours, 1)) for ours in mine]
    slots._finish._answer_all(questions)
    assert asked == ([2, 1, 1] if is_of_one else [2])
    assert states(sessions) == (["succeeded"] * 2 if is_of_one else ["running"] * 2)
    assert [one.error for one in questions] == [None if is_of_one else error] * 2


@pytest.mark.parametrize(
    "error", [RenderFailed("broken"), Spoilt("black"), OutOfMemory("no room"), ZeroDivisionError()]
)
def test_a_picture_that_failed_holds_nothing_of_its_render_while_its_end_is_committed(
    worker, slots, job_factory, monkeypatch, error
):
    """However long the database is away then: what it was rendered with may be a whole checkpoint."""

    class Large: ...

    left, held_at_the_end = [], []

    def fails(claim, watch, cancel):
        large = Large()
        left.append(weakref.ref(large))
        cancel.then(partial(print, large))
        raise error

    commit = Slots._commit

    def noted(*args):
        held_at_the_end.append(left[0]())
        return commit(*args)

    monkeypatch.setattr(worker.card, "render", fails)
    monkeypatch.setattr(Slots, "_commit", noted)
    job_factory()
    gc.disable()
    try:
        slots.consume(was_passed=False)
    finally:
        gc.enable()
    assert set(held_at_the_end) == {None}
