"""Uploads over a real database and a real folder: kept once, used by jobs, swept when nobody needs them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from sqlalchemy import func, select, update

from shared.accounts.scope import EVERYBODYS, Scope
from shared.db.sessions import transact
from shared.db.tables import Job, JobUpload, Upload
from shared.errors import Refused
from shared.media import uploads
from shared.media.decode import Picture
from shared.media.storage import Storage, upload_key
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from shared.queue import transitions
from shared.queue.submit import submit as submit_job
from shared.settings import Limits
from tests.support.admissions import admission

PICTURE = Picture(b"a PNG", 8, 8)
OTHER = Picture(b"another PNG", 8, 8)
DAYS = 7


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path / "pictures"))


@pytest.fixture
def keep(sessions, storage):
    return lambda picture, owner="ann": uploads.keep(sessions, storage, owner, {"file": picture}, Limits())


@pytest.fixture
def age(sessions):
    """Make every upload, or those of one picture, look as if it had not been used for so many days."""

    def make(days: int, picture: Picture | None = None) -> None:
        old = update(Upload).values(used_at=func.now() - timedelta(days=days))
        old = old if picture is None else old.where(Upload.sha256 == picture.sha256)
        transact(sessions, lambda session: session.execute(old))

    return make


def rows(sessions):
    return transact(sessions, lambda session: session.execute(select(Upload.owner, Upload.sha256)).all())


def is_kept(sessions, picture, owner="ann"):
    return transact(sessions, lambda session: uploads.is_kept(session, Scope(owner), picture.sha256))


def lies(storage, picture):
    return storage.exists(upload_key(picture.sha256))


def started_from(picture, mask=None):
    masked = mask and Mask(picture=mask.sha256)
    return RenderParams(
        checkpoint="demo [cccccccccc]", width=64, height=64, seed=1,
        img2img=Img2Img(picture=picture.sha256, mask=masked),
    )  # fmt: skip


def submit(sessions, params):
    return transact(sessions, lambda session: submit_job(session, admission("ann", params)).job)


def test_same_picture_twice_is_one_row_and_one_object(sessions, storage, keep):
    keep(PICTURE)
    keep(PICTURE)
    assert rows(sessions) == [("ann", PICTURE.sha256)]
    assert storage.get(upload_key(PICTURE.sha256)) == PICTURE.png


def test_upload_is_its_owners_alone(sessions, keep):
    keep(PICTURE)
    assert is_kept(sessions, PICTURE)
    assert not is_kept(sessions, PICTURE, "bob")
    assert not is_kept(sessions, OTHER)


def test_upload_that_no_job_names_is_swept_after_its_days(sessions, storage, keep, age):
    keep(PICTURE)
    age(6)
    assert uploads.delete_unused(sessions, storage, DAYS) == 0
    age(8)
    assert uploads.delete_unused(sessions, storage, DAYS) == 1
    assert rows(sessions) == []
    assert not lies(storage, PICTURE)
    assert uploads.delete_unused(sessions, storage, DAYS) == 0


def test_use_begins_the_days_anew(sessions, storage, keep, age):
    keep(PICTURE)
    age(8)
    job = submit(sessions, started_from(PICTURE))
    transact(
        sessions,
        lambda session: (
            transitions.cancel(session, EVERYBODYS, job.id),
            transitions.delete(session, EVERYBODYS, job.id),
        ),
    )
    assert uploads.delete_unused(sessions, storage, DAYS) == 0


def test_to_ask_for_an_upload_is_no_use_of_it(sessions, storage, keep, age):
    keep(PICTURE)
    age(8)
    assert is_kept(sessions, PICTURE)
    assert uploads.delete_unused(sessions, storage, DAYS) == 1


def test_source_and_mask_stay_as_long_as_their_job(sessions, storage, keep, age):
    keep(PICTURE)
    keep(OTHER)
    job = submit(sessions, started_from(PICTURE, OTHER))
    age(100)
    assert uploads.delete_unused(sessions, storage, DAYS) == 0
    transact(sessions, lambda session: transitions.delete(session, EVERYBODYS, job.id))
    assert uploads.delete_unused(sessions, storage, DAYS) == 2


def test_source_that_is_its_own_mask_is_noted_once(sessions, keep):
    keep(PICTURE)
    job = submit(sessions, started_from(PICTURE, PICTURE))
    noted = select(JobUpload.sha256).where(JobUpload.job_id == job.id)
    assert transact(sessions, lambda session: session.scalars(noted).all()) == [PICTURE.sha256]


def test_a_job_does_not_start_from_an_upload_that_is_gone(sessions, keep):
    keep(PICTURE)
    with pytest.raises(Refused) as refused:
        submit(sessions, started_from(PICTURE, OTHER))
    [problem] = refused.value.fields
    assert (problem.field, problem.message) == ("img2img.mask.picture", "The upload is gone")
    assert transact(sessions, lambda session: session.scalar(select(func.count()).select_from(Job))) == 0


def test_days_are_a_setting(sessions, storage, keep, age):
    keep(PICTURE)
    age(2)
    assert uploads.delete_unused(sessions, storage, 3) == 0
    assert uploads.delete_unused(sessions, storage, 1) == 1


def large(number, megabytes=0.4):
    return Picture(bytes([number]) * int(megabytes * 2**20), 8, 8)


def test_owner_without_room_is_told_which_picture_and_what_would_fit(sessions, storage):
    small = Limits(max_uploads_mb_per_owner=1, upload_days=3)
    uploads.keep(sessions, storage, "ann", {"file": large(1)}, small)
    came = {"img2img.picture": large(2), "img2img.mask.picture": large(3)}

    with pytest.raises(Refused) as refused:
        uploads.keep(sessions, storage, "ann", came, small)

    [error] = refused.value.fields
    assert error.field == "img2img.mask.picture"
    assert error.message == "takes 410 KB; you have 1 MB for source pictures, of which 205 KB are left"
    assert "at most 205 KB" in error.accepted
    assert "3 days after their last use" in error.accepted
    assert rows(sessions) == [("ann", large(1).sha256)]
    assert not lies(storage, large(2))


def test_what_is_there_already_and_what_others_have_takes_no_room(sessions, storage):
    small = Limits(max_uploads_mb_per_owner=1)
    for owner in ("ann", "bob", "ann"):
        uploads.keep(sessions, storage, owner, {"file": large(1, 1)}, small)
    both = {"img2img.picture": large(1, 1), "img2img.mask.picture": large(1, 1)}
    uploads.keep(sessions, storage, "ann", both, small)
    assert len(rows(sessions)) == 2


def test_two_at_once_do_not_both_get_the_last_room(sessions, storage):
    small = Limits(max_uploads_mb_per_owner=1)

    def keep_one(number):
        try:
            uploads.keep(sessions, storage, "ann", {"file": large(number)}, small)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(keep_one, range(6)))
    assert kept.count(True) == len(rows(sessions)) == 2


def test_picture_of_two_owners_stays_until_neither_needs_it(sessions, storage, keep, age):
    keep(PICTURE)
    age(8)
    keep(PICTURE, "bob")
    assert uploads.delete_unused(sessions, storage, DAYS) == 0
    assert rows(sessions) == [("bob", PICTURE.sha256)]
    assert lies(storage, PICTURE)


def test_what_an_interrupted_upload_left_is_swept(sessions, storage):
    storage.put(upload_key(PICTURE.sha256), PICTURE.png)
    assert uploads.delete_unused(sessions, storage, DAYS) == 1
    assert not lies(storage, PICTURE)


def test_picture_that_is_swept_while_it_is_uploaded_again_is_there_at_the_end(sessions, storage, keep, monkeypatch):
    """The sweep takes the object between its storing and its recording."""
    record = uploads._record

    def swept_first(*given, **named):
        assert uploads.delete_unused(sessions, storage, DAYS) == 1
        record(*given, **named)

    monkeypatch.setattr(uploads, "_record", swept_first)
    keep(PICTURE)
    assert rows(sessions) == [("ann", PICTURE.sha256)]
    assert lies(storage, PICTURE)


def test_sweep_spares_what_was_recorded_after_it_looked(sessions, storage, keep, monkeypatch):
    looked = uploads._delete

    def recorded_first(session, storage, sha256):
        keep(PICTURE)
        return looked(session, storage, sha256)

    storage.put(upload_key(PICTURE.sha256), PICTURE.png)
    monkeypatch.setattr(uploads, "_delete", recorded_first)
    assert uploads.delete_unused(sessions, storage, DAYS) == 0
    assert lies(storage, PICTURE)


def is_submitted(sessions, picture):
    try:
        return submit(sessions, started_from(picture)) is not None
    except Refused:
        return False


def test_picture_that_is_submitted_with_while_sweeps_run_is_never_lost(sessions, storage, keep, age):
    """Old uploads, some submitted with just before they are swept, some just after, some forgotten by everybody."""
    pictures = [Picture(f"PNG {number}".encode(), 8, 8) for number in range(60)]
    wanted, forgotten = pictures[:40], pictures[40:]
    for picture in forgotten:
        keep(picture)
    age(8)
    is_done = Event()

    def sweep_on():
        swept = uploads.delete_unused(sessions, storage, DAYS)
        while not is_done.is_set():
            swept += uploads.delete_unused(sessions, storage, DAYS)
        return swept

    def submit_with(picture):
        """As a person does: what is no longer there is uploaded again."""
        keep(picture)
        age(8, picture)
        while not is_submitted(sessions, picture):
            keep(picture)

    with ThreadPoolExecutor(6) as pool:
        sweeps = [pool.submit(sweep_on) for _ in range(2)]
        try:
            list(pool.map(submit_with, wanted))
        finally:
            is_done.set()
        swept = sum(sweep.result(20) for sweep in sweeps)

    assert [lies(storage, picture) for picture in wanted] == [True] * len(wanted)
    assert [lies(storage, picture) for picture in forgotten] == [False] * len(forgotten)
    assert {row.sha256 for row in rows(sessions)} == {picture.sha256 for picture in wanted}
    assert swept >= len(forgotten)
