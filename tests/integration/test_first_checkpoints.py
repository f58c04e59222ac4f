"""The first checkpoint of a person who may use some alone: the first of these, wherever one is shown or taken."""

from __future__ import annotations

import re

import pytest

from tests.conftest import checkpoints_of
from tests.support.applications import application

OPTIONS = "/sdapi/v1/options"
JOB = {"prompt": "sea", "width": 64, "height": 64, "steps": 2}


@pytest.fixture(scope="module")
def app(home, tmp_path_factory):
    keys = {"anns-long-key": "ann", "roots-long-key": "root"}
    with application(home, tmp_path_factory.mktemp("limited"), port=0, api_keys=keys, admins="root") as made:
        make = checkpoints_of(made.extensions["stepfarm"].sessions)
        for name, size in {"alpha": 64, "beta": 128, "zeta": 192}.items():
            make(name, native_size=size)
        yield made


@pytest.fixture
def get(app):
    def asked(path, **ways):
        answer = app.test_client().open(path, headers={"X-API-Key": "anns-long-key"}, **ways)
        assert answer.status_code < 300, answer.get_data(as_text=True)
        return answer

    return asked


@pytest.fixture
def allow(app):
    """Sets the checkpoints that `ann` may use."""

    def set_them(*names):
        headers = {"X-API-Key": "roots-long-key"}
        given = {"checkpoints": list(names)}
        assert app.test_client().patch("/api/v1/limits/owners/ann", json=given, headers=headers).status_code == 200

    return set_them


def titles(html):
    return list(re.findall(r"\b(alpha|beta|demo|zeta) \[", html))


LISTS = {
    "/api/v1/models": lambda answer: [one["name"] for one in answer.get_json()["models"]],
    "/api/v1/checkpoints": lambda answer: [one["name"] for one in answer.get_json()["checkpoints"]],
    "/v1/models": lambda answer: [one["id"] for one in answer.get_json()["data"]],
    "/sdapi/v1/sd-models": lambda answer: [one["model_name"] for one in answer.get_json()],
    "/models": lambda answer: re.findall(r"\b(alpha|beta|demo|zeta)\.safetensors", answer.text),
    "/lessons": lambda answer: titles(answer.text),
    "/": lambda answer: titles(answer.text),
}
"""Lists of checkpoints by their paths, and how the names are read in the answers."""
OF_THE_WHOLE_FARM = {"/api/v1/models", "/api/v1/checkpoints", "/models"}


@pytest.mark.parametrize("path", LISTS)
def test_every_list_begins_with_the_first_checkpoint_that_its_reader_may_use(allow, get, path):
    allow("zeta", "beta")
    names = LISTS[path](get(path))
    assert (names[0], "beta" in names) == ("zeta", True)
    assert ("alpha" in names) is (path in OF_THE_WHOLE_FARM)


@pytest.mark.parametrize(
    "path", ["/v1/models/{}", "/replicate/v1/models/stepfarm/{}", "/replicate/v1/models/stepfarm/{}/versions"]
)
def test_a_checkpoint_that_its_reader_may_not_use_is_no_model_of_other_systems_doors(app, allow, path):
    allow("zeta", "beta")
    client, headers = app.test_client(), {"X-API-Key": "anns-long-key"}
    names = ("zeta", "beta", "alpha", "demo")
    assert [client.get(path.format(name), headers=headers).status_code for name in names] == [200, 200, 404, 404]
    assert client.get(path.format("alpha"), headers={"X-API-Key": "roots-long-key"}).status_code == 200


def test_a_size_that_is_left_open_is_that_of_the_first_checkpoint_of_its_owner(allow, get):
    allow("zeta")
    job = get("/api/v1/jobs", method="POST", json={"prompt": "sea", "steps": 2}).get_json()
    assert (job["params"]["width"], job["params"]["checkpoint"].partition(" ")[0]) == (192, "zeta")
    assert 'placeholder="192"' in get("/").text


def test_a_first_checkpoint_that_is_gone_gives_way_to_the_next_that_may_be_used(allow, get):
    allow("gone", "zeta")
    told = get(OPTIONS).get_json()["sd_model_checkpoint"]
    job = get("/api/v1/jobs", method="POST", json=JOB).get_json()
    assert job["params"]["checkpoint"] == told
    assert told.startswith("zeta [")


def test_options_name_no_checkpoint_that_would_be_refused(app, allow, get):
    allow("zeta", "beta")
    assert get(OPTIONS).get_json()["sd_model_checkpoint"].startswith("zeta [")
    get(OPTIONS, method="POST", json={"sd_model_checkpoint": "beta"})
    assert get(OPTIONS).get_json()["sd_model_checkpoint"].startswith("beta [")
    allow("zeta")
    told = get(OPTIONS).get_json()["sd_model_checkpoint"]
    assert told.startswith("zeta [")
    assert get("/api/v1/jobs", method="POST", json=JOB | {"checkpoint": told}).status_code == 202
    refused = app.test_client().post(
        OPTIONS, json={"sd_model_checkpoint": "alpha"}, headers={"X-API-Key": "anns-long-key"}
    )
    assert refused.status_code == 422
    assert "sd_model_checkpoint: " in refused.get_json()["detail"]
    assert "is not among the checkpoints of your jobs" in refused.get_json()["detail"]
