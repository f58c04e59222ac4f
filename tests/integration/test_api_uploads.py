"""Pictures to start from, over HTTP: uploaded, fetched, submitted; and whatever else programs send as pictures."""

from __future__ import annotations

import base64
import json
from io import BytesIO, RawIOBase
from pathlib import Path

import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import func, select

from api.app import create_app
from api.services import EXTENSION
from shared.db.tables import Job, Upload
from shared.errors import StorageError
from tests.support.applications import application
from tests.unit.test_decode import HOSTILE, encoded

UPLOADS, JOBS = "/api/v1/uploads", "/api/v1/jobs"
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
ANN, BOB = {"Authorization": "Bearer anns-long-key"}, {"Authorization": "Bearer bobs-long-key"}


@pytest.fixture(scope="module")
def app(home: Path, tmp_path_factory: pytest.TempPathFactory):
    """A farm of two owners that takes pictures of 2 MB and a megapixel."""
    keys = {"anns-long-key": "ann", "bobs-long-key": "bob"}
    bounds = {"max_upload_mb": 2, "max_upload_megapixels": 1}
    with application(home, tmp_path_factory.mktemp("farm"), api_keys=keys, **bounds) as made:
        yield made


def picture(colour="red", size=(24, 16), kind="PNG", mode="RGB") -> bytes:
    return encoded(Image.new(mode, size, colour), kind)


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def upload(client, data: bytes, owner=ANN, content_type="application/octet-stream"):
    return client.post(UPLOADS, data=data, content_type=content_type, headers=owner)


def counted(app: Flask, table) -> int:
    with app.extensions[EXTENSION].sessions() as session:
        return session.scalar(select(func.count()).select_from(table))


def errors(answer) -> dict[str, dict[str, str]]:
    assert answer.mimetype == "application/problem+json", answer.data
    problem = json.loads(answer.data)
    assert problem["detail"]
    assert all(error["message"] and error["accepted"] for error in problem["errors"])
    return {error["field"]: error for error in problem["errors"]}


def test_picture_is_uploaded_and_fetched(client):
    answer = upload(client, picture(kind="JPEG"))
    assert answer.status_code == 201
    body = answer.get_json()
    assert (body["width"], body["height"]) == (24, 16)
    assert answer.headers["Location"] == f"{UPLOADS}/{body['id']}"
    fetched = client.get(answer.headers["Location"], headers=ANN)
    assert fetched.mimetype == "image/png"
    assert len(fetched.data) == body["bytes"]
    assert Image.open(BytesIO(fetched.data)).size == (24, 16)
    assert fetched.headers["Cache-Control"] == "private, immutable, max-age=31536000"
    again = client.get(answer.headers["Location"], headers=ANN | {"If-None-Match": fetched.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_form_with_a_file_does_as_well(client):
    form = {"file": (BytesIO(picture()), "../../etc/passwd\0.png")}
    answer = client.post(UPLOADS, data=form, content_type="multipart/form-data", headers=ANN)
    assert answer.get_json()["id"] == upload(client, picture()).get_json()["id"]


def test_same_picture_is_one_upload(client, app):
    first = upload(client, picture("blue")).get_json()
    before = counted(app, Upload)
    assert upload(client, picture("blue", kind="BMP")).get_json() == first
    assert counted(app, Upload) == before


def test_uploads_of_others_are_not_there(client):
    link = upload(client, picture("green")).headers["Location"]
    assert client.get(link, headers=ANN).status_code == 200
    assert client.get(link, headers=BOB).status_code == 404
    assert client.get(link).status_code == 401
    assert upload(client, picture(), owner={}).status_code == 401


@pytest.mark.parametrize(
    "name", ["0" * 64, "F" * 64, "x", "0" * 63, "0" * 65, "..%2f..%2fsecret", "%00", "a" * 64 + ".png"]
)
def test_upload_that_is_not_there_is_not_found(client, name):
    answer = client.get(f"{UPLOADS}/{name}", headers=ANN)
    assert answer.status_code == 404
    errors(answer)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("how", ["body", "form", "data URL"])
def test_what_is_no_picture_is_refused_and_nothing_is_recorded(client, app, name, how):
    data, reason = HOSTILE[name]
    before = counted(app, Upload), counted(app, Job)
    if how == "body":
        answer, field = upload(client, data), "file"
    elif how == "form":
        form = {"file": (BytesIO(data), "picture.png")}
        answer, field = client.post(UPLOADS, data=form, headers=ANN), "file"
    else:
        answer, field = client.post(JOBS, json={"img2img": {"picture": data_url(data)}}, headers=ANN), "img2img.picture"
    assert answer.status_code == 422
    assert reason in errors(answer)[field]["message"]
    assert (counted(app, Upload), counted(app, Job)) == before


@pytest.mark.parametrize("how", ["upload", "png-info", "data URL"])
def test_refused_picture_is_logged(client, capsys, caplog, how):
    data = b"PK\x03\x04"
    if how == "data URL":
        client.post(JOBS, json={"img2img": {"picture": data_url(data)}}, headers=ANN)
    else:
        client.post(UPLOADS if how == "upload" else "/api/v1/png-info", data=data, headers=ANN)
    logged = "".join(capsys.readouterr()) + caplog.text
    assert "picture refused" in logged
    assert "zip archive" in logged


@pytest.mark.parametrize("size", [2 * 2**20 + 1, 50_000_000])
def test_file_over_the_limit_is_refused(client, size):
    for answer in (
        upload(client, b"\x89PNG" + b"\0" * size),
        upload(client, FORM + b"\0" * size + b"\r\n--x--", content_type="multipart/form-data; boundary=x"),
    ):
        assert answer.status_code == 413
        errors(answer)


def test_file_without_an_announced_length_is_read_up_to_the_limit(client):
    class Endless(RawIOBase):
        """A sender that never stops."""

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    sent = {"wsgi.input": Endless(), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.post(UPLOADS, headers=ANN, environ_overrides=sent)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data"),
        (b"--x\r\nContent-Disposition: form-data; name=other\r\n\r\nhello\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nhello\r\n--x--", "multipart/form-data; boundary=x"),
        (
            b"--x\r\nContent-Disposition: form-data; name=file; filename=a.png\r\n\r\n--x--",
            "multipart/form-data; boundary=x",
        ),
        (b"--x\r\n\xff\xff: y", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"a=b", "application/x-www-form-urlencoded"),
        (b"", ""),
    ],
)
def test_body_without_a_file_is_refused(client, body, content_type):
    answer = upload(client, body, content_type=content_type)
    assert 400 <= answer.status_code < 500
    errors(answer)


def test_job_starts_from_an_upload_and_links_to_it(client):
    ids = [upload(client, picture(colour)).get_json()["id"] for colour in ("red", "white")]
    asked = {"img2img": {"picture": ids[0], "mask": {"picture": ids[1]}}}
    answer = client.post(JOBS, json=asked, headers=ANN)
    assert answer.status_code == 202
    body = answer.get_json()
    assert body["links"]["source"] == f"{UPLOADS}/{ids[0]}"
    assert body["links"]["mask"] == f"{UPLOADS}/{ids[1]}"
    assert client.get(body["links"]["mask"], headers=ANN).status_code == 200
    assert client.post(JOBS, json=asked, headers=BOB).status_code == 422


def test_job_of_words_alone_links_to_no_pictures(client):
    links = client.post(JOBS, json={}, headers=ANN).get_json()["links"]
    assert links["source"] is links["mask"] is None


def test_data_url_in_a_submission_becomes_an_upload(client):
    data = picture("purple")
    submitted = client.post(JOBS, json={"img2img": {"picture": data_url(data)}}, headers=ANN).get_json()
    assert submitted["params"]["img2img"]["picture"] == upload(client, data).get_json()["id"]
    assert client.get(submitted["links"]["source"], headers=ANN).status_code == 200


def test_body_may_be_larger_than_others_by_its_picture(client):
    noise = Image.effect_noise((1000, 1000), 80).convert("RGB")
    noise.paste(Image.effect_noise((1000, 1000), 80), (500, 0))
    data = encoded(noise, "BMP")[:1_900_000]
    answer = client.post(JOBS, json={"img2img": {"picture": data_url(data)}}, headers=ANN)
    assert answer.status_code == 422
    assert "cut off" in errors(answer)["img2img.picture"]["message"]


def test_same_request_with_a_data_url_leads_to_the_same_job(client):
    asked = {"img2img": {"picture": data_url(picture("orange"))}}
    first, again = (
        client.post(JOBS, json=asked, headers=ANN | {"Idempotency-Key": "key-1"}).get_json()["id"] for _ in range(2)
    )
    assert first == again


def test_pictures_that_came_with_a_bad_field_are_not_kept(client, app):
    before = counted(app, Upload), counted(app, Job)
    asked = {"steps": 0, "hires": {"scal": 1}, "img2img": {"picture": data_url(picture("pink")), "denoising": 3}}
    answer = client.post(JOBS, json=asked, headers=ANN)
    assert errors(answer).keys() >= {"steps", "hires.scal", "img2img.denoising"}
    assert (counted(app, Upload), counted(app, Job)) == before


@pytest.mark.parametrize(
    "given",
    ["http://169.254.169.254/latest", "https://example.org/a.png", "file:///etc/passwd", "//host/x", "s3://b/k"],
)
def test_address_is_refused_and_nothing_is_fetched(client, given):
    """Sockets to elsewhere would end the test."""
    answer = client.post(JOBS, json={"img2img": {"picture": given}}, headers=ANN)
    assert answer.status_code == 422
    assert list(errors(answer)) == ["img2img.picture"]


def test_picture_whose_bytes_are_gone_is_not_found(client, services):
    link = upload(client, picture("cyan")).headers["Location"]
    services.storage.delete(f"uploads/{link[-64:-62]}/{link[-64:]}.png")
    assert client.get(link, headers=ANN).status_code == 404
    upload(client, picture("cyan"))
    assert client.get(link, headers=ANN).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        r'{"hires": {"\ud800": 1}}',
        r'{"img2img": {"picture": "\ud800"}}',
        '{"hires": ' + '{"a":' * 500 + "1" + "}" * 501,
        '{"styles": [' + ",".join(['"x"'] * 4000) + "]}",
        '{"img2img": {"picture": "data:image/png;base64,' + "A" * 1000 + '"}}',
        '{"hires": {"scale": 1e308}}',
        '{"hires": {"width": ' + "8" * 300 + "}}",
        '{"noise": {"eta_seed_delta": ' + "9" * 40 + "}}",
        '{"sampling": {"rho": NaN}}',
        '{"sampler": "' + "a " * 50_000 + '"}',
        '{"hires": {"upscaler": "' + "L" * 100_000 + '"}}',
    ],
    ids=["name", "half letter", "deep", "styles", "no picture", "scale", "digits", "delta", "nan", "words", "long"],
)
def test_hostile_values_of_groups_are_refused_in_few_words(client, body):
    answer = client.post(JOBS, data=body, content_type="application/json", headers=ANN)
    assert answer.status_code == 422
    assert errors(answer)
    assert len(answer.data) < 5000


def test_storage_that_is_away_is_told_and_nothing_is_recorded(client, app, services, monkeypatch):
    def away(*_: object) -> None:
        raise StorageError("storing: no route")

    before = counted(app, Upload), counted(app, Job)
    monkeypatch.setattr(services.storage, "put", away)
    fresh = picture("brown")
    for answer in (
        upload(client, fresh),
        client.post(JOBS, json={"img2img": {"picture": data_url(fresh)}}, headers=ANN),
    ):
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
    assert (counted(app, Upload), counted(app, Job)) == before


def test_owner_without_room_is_refused_by_field_and_told_what_to_do(settings, checkpoint_factory):
    checkpoint_factory("demo", native_size=64)
    app = create_app(settings.model_copy(update={"max_uploads_mb_per_owner": 1}))
    large = encoded(Image.effect_noise((1100, 1100), 90), "PNG")
    body = {"prompt": "sea", "steps": 10_000, "img2img": {"picture": data_url(large)}}
    answers = {
        "file": upload(app.test_client(), large, owner={}),
        "img2img.picture": app.test_client().post(JOBS, json=body),
    }
    for field, answer in answers.items():
        assert answer.status_code == 422
        assert "of which 1.0 MB are left" in errors(answer)[field]["message"]
        assert "delete jobs" in errors(answer)[field]["accepted"]
    assert "steps" in errors(answers["img2img.picture"]), "all errors are reported at once"
    assert (counted(app, Upload), counted(app, Job)) == (0, 0)
    app.extensions[EXTENSION].close()
