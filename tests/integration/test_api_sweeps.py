"""Sweeps over HTTP: what is asked for is what is rendered, once, and a draft waits for its approval."""

from __future__ import annotations

import pytest

SWEEP = {
    "prompt": "a {red|blue} house in the __place__",
    "steps": 4,
    "sweep": {
        "axes": [
            {"field": "cfg_scale", "values": "5, 7"},
            {"field": "dynamic_prompts", "of": "random", "count": 3},
        ]
    },
}


@pytest.fixture(scope="module")
def client(standing_app):
    return standing_app.test_client()


def test_a_sweep_is_recorded_with_the_titles_of_its_images(client):
    job = client.post("/api/v1/jobs", json=SWEEP).get_json()
    assert [(axis["field"], len(axis["values"])) for axis in job["axes"]] == [("cfg_scale", 2), ("dynamic_prompts", 3)]
    assert job["params"]["prompt"] == SWEEP["prompt"]
    assert job["counts"]["queued"] == 6
    first, last = job["images"][0], job["images"][-1]
    assert (first["cell"], last["cell"]) == ([0, 0], [1, 2])
    assert last["titles"][0] == "7"
    assert last["changes"]["cfg_scale"] == 7
    assert "{" not in last["changes"]["prompt"]
    assert first["seed"] == last["seed"] == job["params"]["seed"]


def test_the_same_sweep_under_a_key_is_the_same_job_and_another_one_is_not(client):
    headers = {"Idempotency-Key": "sweep-1"}
    first = client.post("/api/v1/jobs", json=SWEEP, headers=headers).get_json()
    assert client.post("/api/v1/jobs", json=SWEEP, headers=headers).get_json()["id"] == first["id"]
    other = SWEEP | {"sweep": {"axes": [{"field": "steps", "values": "1,2"}]}}
    assert client.post("/api/v1/jobs", json=other, headers=headers).status_code == 409


def test_of_a_draft_only_some_images_are_queued_until_the_job_is_released(client):
    given = {"sweep": {"axes": [{"field": "steps", "values": "1-10"}], "draft": {"every": 4}}}
    job = client.post("/api/v1/jobs", json=given).get_json()
    assert [image["state"] for image in job["images"]] == [*["queued", "held", "held", "held"] * 2, "queued", "held"]
    assert job["images"][1]["reason"] == "waits for the draft's approval"
    changed = client.post(f"/api/v1/jobs/{job['id']}/release").get_json()
    assert (changed["images"], changed["job"]["counts"]["queued"]) == (7, 10)


def test_a_draft_with_fewer_steps_is_approved_once_and_is_rendered_with_all_of_them(client):
    draft = client.post("/api/v1/jobs", json=SWEEP | {"sweep": SWEEP["sweep"] | {"draft": {"steps": 2}}}).get_json()
    assert (draft["params"]["steps"], draft["full_steps"], draft["counts"]["queued"]) == (2, 4, 6)
    first, again = (client.post(f"/api/v1/jobs/{draft['id']}/approve") for _ in range(2))
    whole = first.get_json()
    assert (first.status_code, first.headers["Location"]) == (202, f"/api/v1/jobs/{whole['id']}")
    assert again.get_json()["id"] == whole["id"] != draft["id"]
    assert (whole["params"]["steps"], whole["full_steps"]) == (4, None)
    assert whole["params"] | {"steps": 2} == draft["params"]
    assert [image["changes"] for image in whole["images"]] == [image["changes"] for image in draft["images"]]
    refused = client.post(f"/api/v1/jobs/{whole['id']}/approve")
    assert (refused.status_code, refused.get_json()["detail"]) == (
        409, f"Job {whole['id']} is not a draft with fewer steps."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("draft", "axis", "field"),
    [
        ({"steps": 20}, {"field": "cfg", "values": "1,2"}, "sweep.draft.steps"),
        ({"steps": 0}, {"field": "cfg", "values": "1,2"}, "sweep.draft.steps"),
        ({"steps": 2}, {"field": "steps", "values": "10,20"}, "sweep.draft.steps"),
        ({"steps": 2}, {"field": "prompts", "values": "a lake --steps 9\na house"}, "sweep.draft.steps"),
        ({"steps": 2, "every": 2}, {"field": "cfg", "values": "1,2"}, "sweep.draft"),
        ({}, {"field": "cfg", "values": "1,2"}, "sweep.draft"),
    ],
)
def test_a_draft_that_makes_no_sense_is_refused(client, draft, axis, field):
    answer = client.post("/api/v1/jobs", json={"sweep": {"axes": [axis], "draft": draft}})
    assert (answer.status_code, [one["field"] for one in answer.get_json()["errors"]]) == (422, [field])


def test_a_refused_sweep_names_its_values_and_records_nothing(client):
    before = client.get("/api/v1/jobs").get_json()["jobs"][0]["id"]
    answer = client.post("/api/v1/jobs", json={"sweep": {"axes": [{"field": "sampler", "values": "Euler a, Oiler"}]}})
    (problem,) = answer.get_json()["errors"]
    assert (answer.status_code, problem["field"]) == (422, "sweep.axes.0.values.1")
    assert "Euler" in problem["accepted"]
    assert client.get("/api/v1/jobs").get_json()["jobs"][0]["id"] == before


def test_the_document_describes_sweeps(client):
    document = client.get("/openapi.json").get_json()
    assert "sweep" in document["components"]["schemas"]["NewJob"]["properties"]
    assert "AxisRequest" in document["components"]["schemas"]


def test_a_preview_says_what_a_sweep_would_be_and_records_nothing(client):
    before = client.get("/api/v1/jobs").get_json()["jobs"][0]["id"]
    given = {"sweep": {"axes": [{"field": "steps", "values": "10-30(+10)"}, {"field": "cfg", "values": "5,7"}]}}
    found = client.post("/api/v1/sweeps/preview", json=given).get_json()
    assert (found["images"], found["draft"], found["seconds"], found["problems"]) == (6, 0, None, [])
    assert found["axes"][1] == {"field": "cfg_scale", "label": "CFG scale", "of": "", "values": ["5", "7"]}
    assert (found["differs"], found["first"][:2]) == (["cfg_scale", "steps"], [["10", "5"], ["10", "7"]])
    assert client.get("/api/v1/jobs").get_json()["jobs"][0]["id"] == before


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"sweep": {"axes": [{"field": "steps", "values": "151"}]}}, "sweep.axes.0.values.0"),
        ({"sweep": {"axes": [{"field": "steps", "values": "1-1000000000"}]}}, "sweep.axes.0.values"),
        ({"sweep": 5}, "sweep"),
        ({"prompt": "no sweep"}, "sweep"),
        ([], "body"),
    ],
)
def test_a_preview_says_what_a_sweep_would_be_refused_for(client, given, field):
    answer = client.post("/api/v1/sweeps/preview", json=given)
    assert answer.status_code == 200
    assert field in [one["field"] for one in answer.get_json()["problems"]]
