"""Presets: kept, listed, replaced and deleted by their owner, over the API and on the form."""

from __future__ import annotations

import pytest

from shared.jobs import presets
from tests.support.browsing import page, send

URL = "/api/v1/presets"


def kept(client, name, **params):
    return client.put(f"{URL}/{name}", json=params)


def test_a_preset_is_kept_replaced_and_deleted(client):
    first = kept(client, "Night, wide", prompt="the sea", steps=30, hires={"scale": 1.5})
    assert first.status_code == 201
    assert first.get_json()["params"] == {"prompt": "the sea", "steps": 30, "hires": {"scale": 1.5}}
    assert kept(client, "Night, wide", steps=12).status_code == 200
    assert client.get(f"{URL}/Night, wide").get_json()["params"] == {"steps": 12}
    assert kept(client, "day").status_code == 201
    assert [one["name"] for one in client.get(URL).get_json()["presets"]] == ["day", "Night, wide"]
    assert client.delete(f"{URL}/day").status_code == 204
    assert client.delete(f"{URL}/day").status_code == 404
    assert client.get(f"{URL}/day").status_code == 404


def test_presets_are_their_owners_alone(sessions):
    with sessions.begin() as session:
        presets.keep(session, "ann", "sea", {"steps": 5})
        assert presets.every(session, "bob") == []
        presets.keep(session, "bob", "sea", {"steps": 9})
        presets.drop(session, "bob", "sea")
        assert presets.find(session, "ann", "sea").params == {"steps": 5}


@pytest.mark.parametrize("name", ["a" * 61, "%20sea", "a%00b", "a%0Ab", "%20"])
def test_names_that_nobody_could_type_are_refused(client, name):
    [problem] = kept(client, name, steps=5).get_json()["errors"]
    assert problem["field"] == "name"
    assert client.get(f"{URL}/{name}").status_code == 404
    assert client.delete(f"{URL}/{name}").status_code == 404
    assert client.get(URL).get_json()["presets"] == []


def test_wrong_parameters_are_named_and_nothing_is_kept(client):
    answer = kept(client, "sea", steps=0, colour="red")
    assert answer.status_code == 422
    assert {problem["field"] for problem in answer.get_json()["errors"]} == {"steps", "colour"}
    assert client.get(f"{URL}/sea").status_code == 404


def test_a_preset_of_many_pages_is_refused(client):
    [problem] = kept(client, "sea", prompt="x" * presets.LARGEST).get_json()["errors"]
    assert problem["accepted"] == "at most 65,536 characters of parameters"
    assert client.get(URL).get_json()["presets"] == []


def test_groups_with_pictures_are_left_out_and_named(client):
    answer = kept(client, "over", steps=5, img2img={"picture": "0" * 64, "denoising": 0.5}).get_json()
    assert (answer["params"], answer["left_out"]) == ({"steps": 5}, ["img2img"])


def test_an_owner_has_a_bounded_number(client, monkeypatch):
    monkeypatch.setattr(presets, "MOST", 2)
    assert [kept(client, name).status_code for name in ("a", "b", "a", "c")] == [201, 201, 200, 422]


def test_form_keeps_fills_in_and_deletes(client, checkpoint_factory):
    checkpoint_factory("demo")
    saved = page(send(client, "/presets/keep", preset_name="wide sea", prompt="the sea", width="768", height="512"))
    assert "Kept as the preset “wide sea”." in saved.text
    assert saved.value("width") == "768"
    filled = page(send(client, "/presets/fill", preset="wide sea", steps="44"))
    assert (filled.value("width"), filled.value("steps")) == ("768", "20")
    assert "Filled in from the preset “wide sea”." in filled.text
    assert "44" in [one.attributes.get("value") for one in filled.all("input", name="steps", type="hidden")]
    gone = page(send(client, "/presets/delete", preset="wide sea", steps="44"))
    assert "Deleted the preset" in gone.text
    assert gone.value("steps") == "44"
    assert page(send(client, "/presets/fill", preset="wide sea")).text.count("Choose a preset first.") == 1


def test_form_says_what_a_preset_cannot_be(client, checkpoint_factory):
    checkpoint_factory("demo")
    assert send(client, "/presets/keep", preset_name="", steps="44").status_code == 422
    wrong = send(client, "/presets/keep", preset_name="sea", steps="many")
    assert wrong.status_code == 422
    assert client.get(URL).get_json()["presets"] == []
