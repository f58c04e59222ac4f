"""Wrong requests of programs: each gets a problem that names the field and what would be accepted, never a 5xx."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.services import Services
from tests.conftest import CheckpointFactory, checkpoints_of

JOBS = "/api/v1/jobs"


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


@pytest.fixture
def checkpoint_factory(services: Services) -> CheckpointFactory:
    return checkpoints_of(services.sessions)


def post(client: FlaskClient, body: bytes | str, content_type: str = "application/json") -> TestResponse:
    return client.post(JOBS, data=body, content_type=content_type)


def errors(answer: TestResponse) -> dict[str, dict[str, str]]:
    assert answer.mimetype == "application/problem+json"
    problem = json.loads(answer.data)
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert problem["detail"]
    assert all(error["message"] and error["accepted"] for error in problem["errors"])
    return {error["field"]: error for error in problem["errors"]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": "x",}',
        b"\xff\xfe\x00",
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"steps": ' + b"9" * 10_000 + b"}",
    ],
    ids=["empty", "cut", "comma", "utf-16", "latin-1", "deep list", "deep object", "long number"],
)
def test_body_that_is_not_json_is_refused(client, body):
    answer = post(client, body)
    assert answer.status_code == 400
    assert "JSON object" in errors(answer)["body"]["accepted"]


def test_body_that_is_not_an_object_is_refused(client):
    for body in ("[]", "null", "3", '"text"', "NaN", "[[]]"):
        answer = post(client, body)
        assert answer.status_code == 422, body
        assert errors(answer)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("steps", ['"20"', "20.5", "true", "0", "-1", "151", "1e400", "9" * 400]),
        ("cfg_scale", ["NaN", "Infinity", "-Infinity", "1e400", "31", '"7"']),
        ("width", ["65", "56", "4104", "NaN"]),
        ("height", ["null"]),
        ("count", ["0", "1001"]),
        ("seed", ["-2", "18446744073709551616", "NaN"]),
        ("prompt", ["null", "NaN", "[]", r'"\u0000"', r'"\ud800"']),
        ("negative_prompt", [r'"a\udfffb"']),
        ("checkpoint", ['"nowhere"', '"../../etc/passwd"', r'"demo\u0000"']),
        ("sampler", ['"Euler b"']),
        ("schedule", ['"karas"']),
        ("exact", ["1"]),
        ("stepz", ["20"]),
        ("__class__", ["{}"]),
    ],
)
def test_bad_field_is_named(client, field, values):
    for value in values:
        answer = post(client, f'{{"{field}": {value}}}')
        assert answer.status_code == 422, value
        assert list(errors(answer)) == [field], value


def test_field_whose_name_is_half_a_character_is_named(client):
    answer = post(client, r'{"\ud800": 1, "\u0000": 2}')
    assert answer.status_code == 422
    assert errors(answer).keys() == {r"\ud800", "\0"}


def test_every_bad_field_is_named_at_once(client):
    answer = client.post(JOBS, json={"steps": 0, "width": 65, "sampler": "?", "nonsense": 1, "prompt": 3})
    assert answer.status_code == 422
    assert errors(answer).keys() == {"steps", "width", "sampler", "nonsense", "prompt"}


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("sampler", "Eular a", "Euler a"),
        ("schedule", "karas", "karras"),
        ("stepz", 3, "steps"),
    ],
)
def test_nearest_name_is_offered(client, field, value, nearest):
    answer = client.post(JOBS, json={field: value})
    assert nearest in json.dumps(errors(answer)[field])


def test_unknown_checkpoint_is_refused_with_the_nearest_names(client):
    answer = client.post(JOBS, json={"checkpoint": "dmeo"})
    assert "demo" in json.dumps(errors(answer)["checkpoint"])


def test_unusable_checkpoint_is_refused_with_its_reason(client, checkpoint_factory):
    checkpoint_factory("broken", usable=False, reason="a key is missing: time_embed.0.weight", sha256=None)
    answer = client.post(JOBS, json={"checkpoint": "broken"})
    assert answer.status_code == 422
    assert "time_embed.0.weight" in json.dumps(errors(answer)["checkpoint"])


def test_schedule_that_the_sampler_has_no_use_for_is_refused_with_those_it_takes(client):
    answer = client.post(JOBS, json={"sampler": "DDIM", "schedule": "karras"})
    assert "automatic" in errors(answer)["schedule"]["accepted"]


def test_prompt_of_a_hundred_thousand_characters_is_refused(client):
    answer = client.post(JOBS, json={"prompt": "a" * 100_000})
    assert answer.status_code == 422
    assert "10000" in errors(answer)["prompt"]["accepted"].replace(",", "").replace(" ", "")


def test_html_in_a_prompt_is_kept_as_it_is(client):
    prompt = "<script>alert(1)</script>"
    assert client.post(JOBS, json={"prompt": prompt}).get_json()["params"]["prompt"] == prompt


def test_duplicate_fields_count_once(client):
    assert post(client, '{"steps": 3, "steps": 4}').get_json()["params"]["steps"] == 4


def test_body_of_another_type_is_refused(client):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = post(client, "{}", content_type)
        assert answer.status_code == 415, content_type
        errors(answer)


def test_body_over_the_limit_is_refused(client):
    answer = post(client, b'{"prompt": "' + b"a" * (34 * 2**20) + b'"}')
    assert answer.status_code == 413
    errors(answer)


@pytest.mark.parametrize(
    "body",
    [
        b'{"styles": [' + b"[],[]," * 500_000 + b"[]]}",
        b"{" + b",".join(b'"data:%d":0' % number for number in range(500_000)) + b"}",
        b'{"img2img": {"picture": "data:x"}, "styles": [' + b'"data:,",' * 400_000 + b'"data:,"]}',
        b'{"a": [' + b'{"picture": "data:%s"},' % (b"x" * 100) * 40_000 + b"{}]}",
    ],
    ids=["lists", "fields like data URLs", "items like data URLs", "more pictures than a job has"],
)
def test_body_that_is_large_without_its_pictures_is_refused(client, body):
    answer = post(client, body)
    assert answer.status_code == 413
    errors(answer)


@pytest.mark.parametrize(
    "body",
    [
        b'{"styles": [' + b"1," * 900_000 + b"1]}",
        b'{"styles": [' + b'"",' * 600_000 + b'""]}',
        b"{" + b",".join(b'"a%d":0' % number for number in range(100_000)) + b"}",
        b'{"a": [' + b"{}," * 600_000 + b"{}]}",
        b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b', "b": [' + b"[[]]," * 10_000 + b"[]]}",
    ],
    ids=["numbers", "texts", "fields", "objects", "lists"],
)
def test_body_of_many_values_is_refused_before_anything_is_made_of_them(client, body):
    """Each would be an object here, and one more that says what is wrong with it: a gigabyte for two megabytes."""
    tracemalloc.start()
    try:
        answer = post(client, body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 400
    assert "far more values" in errors(answer)["body"]["message"]
    assert most < 5 * len(body) + 2**20


def test_commas_and_brackets_in_texts_are_no_values(client, checkpoint_factory):
    checkpoint_factory()
    answer = post(client, b'{"prompt": "' + b'\\", [b], {c}, ' * 100_000 + b'"}')
    assert answer.status_code == 422
    assert [*errors(answer)] == ["prompt"]


@pytest.mark.parametrize("part", [b'\\"', b"\\", b'"', b'"\\', b'"picture": "data:'])
def test_body_of_texts_without_an_end_is_looked_through_once(client, part):
    """Else two megabytes of it would keep the whole process busy for hours."""
    body = b'{"prompt": "' + part * (2_000_000 // len(part))
    assert post(client, body).status_code in {400, 413}


def test_many_wrong_values_are_told_of_as_soon_as_the_first_fifty(client):
    answer = client.post(JOBS, json={f"a{number}": number for number in range(4_000)})
    assert answer.status_code == 422
    assert len(errors(answer)) == 50


def test_form_of_many_fields_is_refused(client):
    answer = client.post("/sign-in", data=b"a&" * 1_000_000, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 400
    assert "1,000 fields" in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/images/0/cancel"),
        ("GET", "/events"),
        ("GET", "/zip"),
        ("GET", "/images/0/picture.png"),
        ("GET", "/images/0/thumbnail.webp"),
        ("GET", "/images/0/preview.webp"),
    ],
)
def test_unknown_job_is_not_found(client, method, path):
    for job_id in ("0", "999", str(2**63 - 1), str(2**63), "9" * 40, "-1", "1.5", "x", "1%00"):
        answer = client.open(f"{JOBS}/{job_id}{path}", method=method)
        assert answer.status_code == 404, job_id
        errors(answer)


@pytest.mark.parametrize(
    ("method", "action"), [("POST", "cancel"), ("POST", "retry"), ("GET", "picture.png"), ("GET", "preview.webp")]
)
def test_unknown_image_is_not_found(client, method, action):
    job_id = client.post(JOBS, json={}).get_json()["id"]
    for index in ("1", "-1", str(2**63), "9" * 40, "x", "..%2f..%2f0", "%2e%2e"):
        answer = client.open(f"{JOBS}/{job_id}/images/{index}/{action}", method=method)
        assert answer.status_code == 404, index
        errors(answer)


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1/jobs/1/images/0/..%2f..%2fsecret", "/api/v2/jobs", "/api/v1/jobs/"]
)
def test_unknown_path_is_a_problem(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    errors(answer)


def test_wrong_method_is_told_the_right_ones(client):
    answer = client.put(JOBS, json={})
    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))
    errors(answer)


@pytest.mark.parametrize(
    ("query", "field", "accepted"),
    [
        ("limit=0", "limit", "at least 1"),
        ("limit=201", "limit", "at most 200"),
        ("limit=x", "limit", "a whole number"),
        ("cursor=0", "cursor", "at least 1"),
        ("cursor=9223372036854775808", "cursor", "at most 9223372036854775807"),
        (f"cursor={'9' * 5000}", "cursor", "a whole number"),
        ("cursor=%00", "cursor", "a whole number"),
        ("state=done", "state", "'queued', 'running'"),
        ("page=2", "page", "/openapi.json"),
    ],
)
def test_bad_query_is_named_with_what_would_be_accepted(client, query, field, accepted):
    answer = client.get(f"{JOBS}?{query}")
    assert answer.status_code == 422
    ((name, error),) = errors(answer).items()
    assert name.partition(".")[0] == field
    assert accepted in error["accepted"]
    assert error["message"] != error["accepted"]


def test_fault_of_ours_has_an_id_that_is_in_the_log(client, monkeypatch, caplog, capsys):
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    link = client.post(JOBS, json={}).headers["Location"]
    monkeypatch.setattr("shared.queue.queries.job", fail)
    answer = client.get(link)
    assert answer.status_code == 500
    problem = json.loads(answer.data)
    assert "secret" not in answer.text
    logged = "".join(capsys.readouterr()) + caplog.text
    assert problem["error_id"] in logged
    assert "a secret of the inside" in logged
