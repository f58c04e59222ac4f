"""The bytes of images over HTTP."""

from __future__ import annotations

import io
import zipfile
from functools import partial

import pytest

from shared.db.sessions import transact
from shared.errors import StorageAway
from shared.media.storage import Storage, job_prefix, key
from shared.messaging.events import PreviewChanged, Received
from shared.queue import transitions
from tests.support.queueing import Farmhand
from tests.support.waiting import until


@pytest.fixture
def job(job_factory):
    return job_factory(count=3)


@pytest.fixture
def finish(services, sessions, job):
    """Renders the next `count` images of the job."""
    worker = Farmhand(sessions).worker()

    def render(count: int = 1) -> None:
        for _ in range(count):
            claim = worker.claim()
            for kind in ("picture", "thumbnail"):
                services.storage.put(key(job.id, claim.index, claim.attempt, kind), f"{kind} {claim.index}".encode())
            transact(sessions, partial(transitions.finish, claim=claim, picture_bytes=9))

    return render


def test_links_appear_with_the_picture(client, job, finish):
    finish()
    first, second, _ = client.get(f"/api/v1/jobs/{job.id}").get_json()["images"]
    assert client.get(first["links"]["picture"]).data == b"picture 0"
    assert client.get(first["links"]["thumbnail"]).data == b"thumbnail 0"
    assert second["links"] == dict.fromkeys(("picture", "thumbnail", "preview", "film", "strip", "intermediates"))
    assert first["links"]["film"] is None


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_picture_goes_by_the_name_of_its_format(client, services, sessions, job_factory, form):
    job, extension = job_factory(format=form), {"jpeg": "jpg", "webp": "webp"}[form]
    claim = Farmhand(sessions).worker().claim()
    services.storage.put(key(job.id, 0, claim.attempt, "picture", form), b"picture")
    services.storage.put(key(job.id, 0, claim.attempt, "thumbnail", form), b"thumbnail")
    transact(sessions, lambda session: transitions.finish(session, claim, 9))
    [image] = client.get(f"/api/v1/jobs/{job.id}").get_json()["images"]
    answer = client.get(image["links"]["picture"])
    assert image["links"]["picture"].endswith(f"/picture.{extension}")
    assert (answer.data, answer.mimetype) == (b"picture", f"image/{form}")
    assert client.get(image["links"]["thumbnail"]).data == b"thumbnail"
    other = client.get(f"/api/v1/jobs/{job.id}/images/0/picture.png")
    assert other.status_code == 404
    assert f"picture.{extension}" in other.get_json()["detail"]
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/jobs/{job.id}/zip").data)) as archive:
        assert archive.namelist() == [f"{job.id}-0000.{extension}"]


def test_a_film_is_linked_where_it_was_asked_for(client, services, sessions, job_factory):
    job = job_factory(film=True)
    claim = Farmhand(sessions).worker().claim()
    for kind in ("picture", "thumbnail", "film", "strip"):
        services.storage.put(key(job.id, 0, claim.attempt, kind), kind.encode())
    [image] = client.get(f"/api/v1/jobs/{job.id}").get_json()["images"]
    assert (image["links"]["film"], image["links"]["strip"]) == (None, None)
    transact(sessions, lambda session: transitions.finish(session, claim, 9))
    [image] = client.get(f"/api/v1/jobs/{job.id}").get_json()["images"]
    for kind in ("film", "strip"):
        answer = client.get(image["links"][kind])
        assert (answer.data, answer.mimetype) == (kind.encode(), "image/webp")


@pytest.mark.parametrize("kind", ["film", "strip"])
def test_a_job_without_a_film_has_none(client, job, finish, kind):
    finish()
    answer = client.get(f"/api/v1/jobs/{job.id}/images/0/{kind}.webp")
    assert answer.status_code == 404
    assert answer.get_json()["detail"] == f"Job {job.id} was rendered without a film."


@pytest.mark.parametrize(("name", "mimetype"), [("picture.png", "image/png"), ("thumbnail.webp", "image/webp")])
def test_stored_bytes_may_be_kept_for_ever_by_their_owner(client, job, finish, name, mimetype):
    finish()
    answer = client.get(f"/api/v1/jobs/{job.id}/images/0/{name}")
    assert answer.mimetype == mimetype
    assert {"private", "immutable", "max-age=31536000"} == set(answer.headers["Cache-Control"].split(", "))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("weaken", ["", "W/"])  # a proxy that compresses weakens tags
def test_bytes_that_a_client_has_are_not_read_again(client, job, finish, monkeypatch, weaken):
    finish()
    link = f"/api/v1/jobs/{job.id}/images/0/picture.png"
    tag = client.get(link).headers["ETag"]
    monkeypatch.setattr(Storage, "get", lambda *_: pytest.fail("read from the storage"))
    assert client.get(link, headers={"If-None-Match": weaken + tag}).status_code == 304


def test_picture_of_an_image_that_has_not_ended_is_not_found(client, job):
    answer = client.get(f"/api/v1/jobs/{job.id}/images/0/picture.png")
    assert answer.status_code == 404
    assert "has no picture yet" in answer.get_json()["detail"]


def test_picture_that_the_storage_lost_is_not_found(client, services, job, finish):
    finish()
    services.storage.delete(key(job.id, 0, 1, "picture"))
    assert client.get(f"/api/v1/jobs/{job.id}/images/0/picture.png").status_code == 404


def test_storage_that_is_away_is_unavailable_for_now(client, services, job, finish, tmp_path):
    finish()
    (tmp_path / "farm" / "pictures").rename(tmp_path / "gone")
    (tmp_path / "farm" / "pictures").write_text("no folder")
    answer = client.get(f"/api/v1/jobs/{job.id}/images/0/picture.png")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_preview_is_shown_and_not_kept(client, services, job, sessions):
    Farmhand(sessions).worker().claim()

    def image() -> dict[str, object]:
        return client.get(f"/api/v1/jobs/{job.id}").get_json()["images"][0]

    link = image()["links"]["preview"]
    assert client.get(link).status_code == 404
    assert not image()["has_preview"]
    with services.events.subscribe(job.id) as subscription:

        def shown() -> Received | None:
            services.events.put_preview(job.id, 0, b"webp")
            assert services.events.flush()
            return subscription.get(0.1)

        assert until(shown) == Received("", PreviewChanged(job.id, 0))
    assert image()["has_preview"]
    assert client.get("/api/v1/jobs").get_json()["jobs"][0]["images"][0]["has_preview"]
    answer = client.get(link)
    assert answer.data == b"webp"
    assert answer.headers["Cache-Control"] == "no-store"


def test_zip_holds_the_finished_pictures(client, job, finish):
    finish(2)
    answer = client.get(f"/api/v1/jobs/{job.id}/zip")
    assert answer.mimetype == "application/zip"
    assert f"job-{job.id}.zip" in answer.headers["Content-Disposition"]
    assert answer.headers["Cache-Control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"{job.id}-0000.png": b"picture 0",
            f"{job.id}-0001.png": b"picture 1",
        }


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 2)])
def test_zip_of_a_job_that_has_lost_pictures_holds_the_others_and_names_the_lost(client, services, job, finish, lost):
    finish(3)
    for index in lost:
        services.storage.delete(key(job.id, index, 1, "picture"))
    answer = client.get(f"/api/v1/jobs/{job.id}/zip")
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    told = files.pop("missing.txt").splitlines()
    assert files == {f"{job.id}-{index:04}.png": f"picture {index}" for index in {0, 1, 2} - set(lost)}
    assert told[0] == f"{len(lost)} of the 3 pictures are not in this file:"
    assert told[2:] == [f"{job.id}-{index:04}.png: it is no longer in the storage" for index in lost]


def test_zip_of_a_job_that_has_lost_all_pictures_is_a_problem(client, services, job, finish):
    finish(2)
    services.storage.delete(job_prefix(job.id))
    answer = client.get(f"/api/v1/jobs/{job.id}/zip")
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


def test_zip_while_the_storage_is_away_is_a_problem_or_names_what_it_did_not_give(
    client, services, job, finish, monkeypatch
):
    def give(name):
        asked.append(name)
        if len(asked) >= away_from:
            raise StorageAway(f"reading {name}", "Input/output error")
        return b"picture"

    finish(3)
    monkeypatch.setattr(services.storage, "get", give)
    asked, away_from = [], 1
    answer = client.get(f"/api/v1/jobs/{job.id}/zip")
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    asked, away_from = [], 2
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/jobs/{job.id}/zip").data)) as archive:
        assert archive.namelist() == [f"{job.id}-0000.png", "missing.txt"]
        assert archive.read("missing.txt").count(b"Input/output error") == 2
    assert len(asked) == 2  # a storage that hangs is not asked for each


def test_zip_without_a_picture_is_a_conflict(client, job):
    assert client.get(f"/api/v1/jobs/{job.id}/zip").status_code == 409
