"""The list of checkpoints by architecture and prediction: over HTTP, on its page and by `farm models`."""

from __future__ import annotations

from html import unescape

import httpx
import pytest

from cli import models
from client.client import Client
from shared.errors import FarmError
from tests.support.browsing import look, page, send

ALL = {
    "one": ("sd1", "noise"), "waves": ("sd1", "velocity"), "xl": ("sdxl", "noise"), "noob": ("sdxl", "velocity"),
    "torn": (None, None),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _catalogue(checkpoint_factory) -> None:
    for name, (architecture, prediction) in ALL.items():
        broken = {} if architecture else {"usable": False, "reason": "is cut off", "sha256": None}
        checkpoint_factory(name, architecture=architecture, prediction=prediction, **broken)


@pytest.fixture
def listed(client):
    def ask(query: str = "") -> tuple[list[str], dict]:
        body = client.get(f"/api/v1/checkpoints{query}").get_json()
        return sorted(one["name"] for one in body["checkpoints"]), body

    return ask


@pytest.mark.parametrize(
    ("query", "names", "architectures", "predictions"),
    [
        ("", set(ALL), {"sd1": 2, "sdxl": 2}, {"noise": 2, "velocity": 2}),
        ("?architecture=sdxl", {"xl", "noob"}, {"sd1": 2, "sdxl": 2}, {"noise": 1, "velocity": 1}),
        ("?architecture=SDXL&prediction=", {"xl", "noob"}, {"sd1": 2, "sdxl": 2}, {"noise": 1, "velocity": 1}),
        ("?prediction=velocity", {"waves", "noob"}, {"sd1": 1, "sdxl": 1}, {"noise": 2, "velocity": 2}),
        ("?architecture=sd1&prediction=noise", {"one"}, {"sd1": 1, "sdxl": 1}, {"noise": 1, "velocity": 1}),
        ("?architecture=sd2", set(), {"sd1": 2, "sdxl": 2}, {"noise": 0, "velocity": 0}),
    ],
)
def test_a_filter_lists_some_and_counts_what_every_other_choice_would_list(
    listed, query, names, architectures, predictions
):
    found, body = listed(query)
    assert set(found) == names
    assert body["counts"] == {"architecture": architectures, "prediction": predictions}
    assert body["total"] == len(ALL)


def test_a_value_that_nothing_has_is_refused_with_those_that_are_known(client):
    problem = client.get("/api/v1/checkpoints?architecture=sd9&prediction=noize").get_json()
    assert problem["status"] == 422
    assert problem["errors"] == [
        {
            "field": "architecture",
            "message": "There is no architecture 'sd9'",
            "accepted": "sd1, sd2, sdxl or sdxl-refiner",
        },
        {"field": "prediction", "message": "There is no prediction 'noize'", "accepted": "noise or velocity"},
    ]
    assert client.get("/api/v1/checkpoints?architectur=sd1").status_code == 422


def test_a_value_of_a_newer_version_can_be_listed(listed, checkpoint_factory):
    checkpoint_factory("later", architecture="sd9", prediction="flow")
    assert listed("?architecture=sd9&prediction=flow")[0] == ["later"]
    assert listed()[1]["counts"]["prediction"] == {"noise": 2, "velocity": 2, "flow": 1}


def test_the_page_shows_so_many_checkpoints_and_leads_to_the_others(client, monkeypatch):
    monkeypatch.setattr("api.pages.models.FILES_OF_A_PAGE", 2)
    shown = [look(client, f"/models?page={page}").text for page in (1, 2, 3, 99, "x")]
    found = [{name for name in ALL if f"{name}.safetensors" in text} for text in shown]
    assert [len(names) for names in found] == [2, 2, 1, 1, 2]
    assert found[0] | found[1] | found[2] == {*ALL}
    assert (found[3], found[4]) == (found[2], found[0])
    assert "Page 2 of 3" in shown[1]
    assert "Stable Diffusion XL 2" in shown[2], "counts are those of the whole list"
    assert "Page" not in look(client, "/models?architecture=sdxl").text
    monkeypatch.setattr("api.pages.models.FILES_OF_A_PAGE", 1)
    page = client.get("/models?prediction=noise").get_data(as_text=True)
    assert 'rel="next" href="/models?prediction=noise&amp;page=2"' in page
    assert 'rel="prev"' not in page


def test_the_page_shows_badges_and_filters_with_counts(client):
    shown = look(client, "/models")
    for words in ("Stable Diffusion XL 2", "Stable Diffusion 1 2", "Velocity 2", "predicts velocity", "is cut off"):
        assert words in shown.text
    some = look(client, "/models?architecture=sdxl&prediction=velocity")
    assert "noob.safetensors" in some.text
    assert "xl.safetensors" not in some.text.replace("noob.safetensors", "")
    links = {one.attributes["href"] for one in some.all("a") if one.attributes.get("href", "").startswith("/models")}
    assert {"/models?architecture=sd1&prediction=velocity", "/models?architecture=sdxl", "/models"} <= links


def test_the_page_takes_an_unknown_filter_for_none(client):
    shown = look(client, "/models?architecture=nonsense&prediction=velocity")
    assert "waves.safetensors" in shown.text
    assert "one.safetensors" not in shown.text
    assert "No checkpoint is like that" in look(client, "/models?architecture=sd2").text


def test_the_form_groups_checkpoints_by_architecture_and_hands_over_what_each_is(client):
    form = look(client, "/")
    assert [one.attributes["label"] for one in form.all("optgroup")][:2] == [
        "Stable Diffusion XL",
        "Stable Diffusion 1",
    ]
    noob = next(one for one in form.all("option") if one.attributes["value"].startswith("noob ["))
    facts = {name: noob.attributes[f"data-{name}"] for name in ("architecture", "prediction", "native", "traits")}
    assert facts == {
        "architecture": "sdxl", "prediction": "velocity", "native": "512",
        "traits": "Stable Diffusion XL, predicts velocity",
    }  # fmt: skip


@pytest.fixture
def farm(client):
    """A client of the command line that asks the application itself."""

    def answer(request: httpx.Request) -> httpx.Response:
        got = client.get(request.url.raw_path.decode())
        return httpx.Response(got.status_code, headers={"Content-Type": got.mimetype}, content=got.data)

    return Client("http://farm", None, httpx.MockTransport(answer))


def test_farm_models_lists_some_and_says_how_many_there_are(farm, capsys):
    models.show(farm, {"architecture": "sdxl", "prediction": None}, rescan=False, as_json=False)
    told = capsys.readouterr().out
    assert "noob" in told
    assert "waves" not in told
    assert "2 of 5 checkpoints; architecture: sd1 2, sdxl 2; prediction: noise 1, velocity 1" in told
    models.show(farm, {"architecture": None, "prediction": None}, rescan=False, as_json=False)
    assert "5 checkpoints; architecture: sd1 2, sdxl 2" in capsys.readouterr().out
    models.show(farm, {"architecture": "sd2", "prediction": "noise"}, rescan=False, as_json=False)
    assert "No checkpoint is like that." in capsys.readouterr().out


def test_farm_models_shows_what_an_older_api_knows(capsys):
    old = {"name": "demo", "path": "demo.ckpt", "sha256": "a" * 64, "architecture": "sd1", "size": 7, "usable": True}
    body = {"checkpoints": [old | {"native_size": 512, "reason": None, "has_vae": True}], "others": []}

    def answer(request: httpx.Request) -> httpx.Response:
        missing = {"detail": "There is no such page."}
        is_newer = request.url.path.endswith("/models")
        return httpx.Response(404, json=missing) if is_newer else httpx.Response(200, json=body)

    farm = Client("http://farm", None, httpx.MockTransport(answer))
    models.show(farm, {"architecture": None, "prediction": None}, rescan=False, as_json=False)
    assert "demo" in capsys.readouterr().out
    with pytest.raises(FarmError, match="older version, which lists all checkpoints: leave the filters out"):
        models.show(farm, {"architecture": "sdxl", "prediction": None}, rescan=False, as_json=False)
    with pytest.raises(FarmError, match="older version"):
        models.show(farm, {"kind": "lora"}, rescan=False, as_json=False)


def test_farm_models_lists_every_kind_with_its_details(farm, checkpoint_factory, capsys):
    details = {"form": "rows", "algorithm": "LoCon", "rank": 8, "alias": "Moss [2]", "trigger_words": ["moss", "fern"]}
    checkpoint_factory("green", kind="lora", path="Lora/green.pt", details=details)
    checkpoint_factory("calm", kind="embedding", path="embeddings/calm.pt", details={"vectors": {"text_encoder": 4}})
    checkpoint_factory("x", kind="other", path="unet/x.pt", usable=False, reason="is a U-Net alone", sha256=None)

    def told(**filters: str) -> str:
        models.show(farm, filters, rescan=False, as_json=False)
        return " ".join(capsys.readouterr().out.split())

    everything = told()
    for words in (
        "noob",
        "LoRA hash",
        "LoCon,",
        "[2];",
        "4 vectors",
        "is a U-Net alone",
    ):
        assert words in everything
    assert "green" in told(kind="lora")
    assert "noob" not in told(kind="lora")
    assert "green" in told(search="fern")
    assert "No file is like that." in told(search="nothing")


@pytest.fixture
def adapters(checkpoint_factory):
    """Files that prompts can name, of both architectures, and one that cannot be used."""
    details = {"form": "rows", "algorithm": "LoCon", "rank": 8, "trigger_words": ["moss", "fern<b>"]}
    checkpoint_factory("green", kind="lora", path="Lora/green.pt", details=details)
    checkpoint_factory("large", kind="lora", path="Lora/large.pt", architecture="sdxl")
    checkpoint_factory("odd=name", kind="lora", path="Lora/odd=name.pt", sha256="5" * 64)
    checkpoint_factory("wash", kind="lora", path="Lora/one/wash.pt", sha256="6" * 64)
    checkpoint_factory("wash", kind="lora", path="Lora/two/wash.pt", sha256="7" * 64)
    checkpoint_factory("haze", kind="hypernetwork", path="hypernetworks/haze.pt")
    checkpoint_factory("calm", kind="embedding", path="embeddings/calm.pt", details={"vectors": {"text_encoder": 4}})
    checkpoint_factory("torn", kind="lora", path="Lora/torn.pt", usable=False, reason="is cut off", sha256=None)


TEXTS = {
    "<lora:green:0.8>", "<lora:large:0.8>", "<lora:5555555555:0.8>", "<lora:one/wash:0.8>", "<lora:two/wash:0.8>",
    "<hypernet:haze:1>", "calm",
}  # fmt: skip


def test_the_form_lists_what_a_prompt_can_name_for_people_without_scripts(client, adapters):
    page = client.get("/").get_data(as_text=True)
    listed = unescape(page[page.index("data-adapters") :])
    assert {text for text in TEXTS if f">{text}</code>" in listed} == TEXTS
    assert "torn" not in listed[: listed.index("</details>")]
    shown = look(client, "/").text
    assert "7 files" in shown
    assert "LoCon · rank 8" in shown
    assert "fern<b>" in shown
    for text in TEXTS:
        asked = client.post("/api/v1/jobs", json={"prompt": text, "checkpoint": "xl" if "large" in text else "one"})
        assert asked.status_code == 202, asked.get_json()


def test_what_does_not_fit_the_checkpoint_comes_last_and_says_why(client, adapters):
    def named(query: str) -> list[str]:
        page = look(client, f"/adapters?{query}")
        return [one.attributes["data-name"] for one in page.all("li") if "data-name" in one.attributes]

    assert set(named("checkpoint=xl")[1:]) == {*named("checkpoint=one")[:-1]}
    assert named("checkpoint=xl")[0] == named("checkpoint=one")[-1] == "large"
    assert (
        "green (Stable Diffusion 1) does not fit xl (Stable Diffusion XL)"
        in look(client, "/adapters?checkpoint=xl").text
    )
    assert named("search=moss") == ["green"]
    assert named("search=nothing+like+it") == []
    assert "No LoRA, hypernetwork or embedding is like that." in look(client, "/adapters?search=nothing").text


def test_a_form_without_adapters_shows_no_list(client):
    assert "adapters-search" not in client.get("/").get_data(as_text=True)


def test_the_page_lists_files_of_a_kind_and_searches_all(client, adapters, monkeypatch):
    whole = look(client, "/models")
    for words in ("LoRAs 6", "Hypernetworks 1", "Embeddings 1", "in a prompt: <lora:green:0.8>", "is cut off", "noob"):
        assert words in whole.text
    loras = look(client, "/models?kind=lora")
    assert "LoCon, rank 8; moss, fern<b>" in loras.text
    assert "noob.safetensors" not in loras.text
    found = look(client, "/models?search=FERN")
    assert "green.pt" in found.text
    assert "wash.pt" not in found.text
    assert "No file is like that" in look(client, "/models?kind=lora&search=noob").text
    assert "noob.safetensors" in look(client, "/models?kind=nonsense").text
    monkeypatch.setattr("api.pages.models.FILES_OF_A_PAGE", 2)
    page = client.get("/models?kind=lora&search=a&page=2").get_data(as_text=True)
    assert 'rel="prev" href="/models?kind=lora&amp;search=a&amp;page=1"' in page
    monkeypatch.setattr("api.pages.models._FEW", 2)
    assert "All 6 LoRAs" in look(client, "/models").text


SEARCHES = {
    "moss FERN": ["Lora/green.pt"],
    "one/": ["Lora/one/wash.pt"],
    "100%": ["Lora/100%_of.pt"],
    "%_": ["Lora/100%_of.pt"],
    "_": ["Lora/100%_of.pt"],
    "ÉTANG": ["Lora/étang.pt"],
    "étang": ["Lora/étang.pt"],
    "ö.b[": ["Lora/Mö.b[1].pt"],
    "MÖ.B[1]": ["Lora/Mö.b[1].pt"],
    "möxb": [],
    "\\": [],
    "' OR true --": [],
}


def test_the_database_finds_words_as_they_are_written_in_any_case(client, adapters, checkpoint_factory):
    for name in ("100%_of", "étang", "Mö.b[1]"):
        checkpoint_factory(name, kind="lora", path=f"Lora/{name}.pt")
    for search, paths in SEARCHES.items():
        found = client.get("/api/v1/models", query_string={"search": search}).get_json()
        assert [file["path"] for file in found["models"]] == paths, search
        assert found["total"] == len(paths)


def test_lists_read_what_they_show_and_never_the_whole_catalogue(client, adapters, monkeypatch):
    look(client, "/models")  # the line about the farm is remembered for a while

    def read(*_: object, **__: object) -> None:
        raise AssertionError("the whole catalogue was read")

    monkeypatch.setattr("shared.models.catalogue.Catalogue.read", read)
    for path in ("/models", "/models?kind=lora", "/models?search=a&page=2", "/models?architecture=sd1", "/"):
        look(client, path)
    others = {"/adapters?search=a&checkpoint=one": 200, "/choices?field=checkpoint&search=a": 200, "/size": 404}
    assert {path: client.get(path).status_code for path in others} == others
    body = client.get("/api/v1/models?limit=3&cursor=2").get_json()
    assert (len(body["models"]), body["next"]) == (3, 5)
    assert client.get("/api/v1/models?limit=3&cursor=9999").get_json()["next"] is None
    assert client.get("/api/v1/checkpoints?limit=1").get_json()["next"] == 1


@pytest.fixture
def many(client, checkpoint_factory, monkeypatch):
    """A farm with more files of each kind than a form offers."""
    monkeypatch.setattr("api.use_cases.catalogue.OFFERED", 3)
    for number in range(6):
        for kind in ("upscaler", "controlnet", "ip-adapter", "vae", "lora"):
            checkpoint_factory(f"{kind}-{number}", kind=kind, path=f"{kind}/{kind}-{number}.pt")
        checkpoint_factory(f"torn-{number}", usable=False, reason="is cut off", sha256=None)


def test_the_form_offers_the_first_files_of_each_kind_and_those_that_it_names(client, many):
    def files_of(shown, kind: str) -> list[str]:
        values = (one.attributes.get("value", "") for one in shown.all("option"))
        return sorted({value.split(" [")[0] for value in values if value.startswith(f"{kind}-")})

    form = look(client, "/")
    for kind in ("upscaler", "controlnet", "vae"):
        assert files_of(form, kind) == [f"{kind}-{number}" for number in range(3)]
    more = {one.attributes["name"] for one in form.all("select") if "data-more" in one.attributes}
    assert {"checkpoint", "vae", "hires.upscaler", "controlnet.0.model"} <= more
    assert "3 files or more in the models folder cannot be used" in form.text
    asked = {"checkpoint": "one", "vae": "vae-5", "hires": {"upscaler": "upscaler-4"}}
    job = client.post("/api/v1/jobs", json={"prompt": "a", **asked}).get_json()
    again = look(client, f"/?from={job['id']}")
    for kind, number in (("vae", 5), ("upscaler", 4)):
        assert files_of(again, kind) == [f"{kind}-{one}" for one in (0, 1, 2, number)]
    assert "(not here)" not in again.text


def test_choices_of_a_field_are_searched(client, many, checkpoint_factory):
    def found(field: str, search: str) -> list[str]:
        shown = look(client, f"/choices?field={field}&search={search}")
        return [one.attributes["value"].split(" [")[0] for one in shown.all("option")]

    assert found("hires.upscaler", "SCALER+-4") == ["upscaler-4"]
    assert found("hires.upscaler", "lanczos") == ["Lanczos"]
    assert found("hires.upscaler", "upscaler/")[-3:] == ["upscaler-0", "upscaler-1", "upscaler-2"]
    assert found("controlnet.7.model", "-5") == ["controlnet-5"]
    assert found("ip_adapters.0.model", "-5") == ["ip-adapter-5"]
    assert "image encoder missing" in look(client, "/choices?field=ip_adapters.0.model&search=-5").text
    assert found("checkpoint", "noob") == ["noob"]
    assert found("checkpoint", "torn") == []
    for field in ("prompt", "sampler", "nonsense", ""):
        assert client.get(f"/choices?field={field}&search=a").status_code == 404


@pytest.mark.parametrize("title", ["ÉCOLE", "straße", "ſet"])
def test_a_file_beyond_the_first_is_here_in_a_refused_form_however_it_is_written(
    client, many, checkpoint_factory, title
):
    checkpoint_factory(title, kind="vae", sha256="f4b91a0d35" + "0" * 54)
    checkpoint_factory(title, kind="lora", path=f"z/{title}.pt")
    chosen = f"{title} [f4b91a0d35]"
    refused = send(client, "/jobs", steps="none", vae=chosen)
    assert refused.status_code == 422
    page = refused.get_data(as_text=True)
    assert f"{chosen}</option>" in page
    assert "(not here)" not in page
    assert f"&lt;lora:{title}:0.8&gt;" in client.get("/adapters", query_string={"search": title}).get_data(as_text=True)


def test_a_file_beyond_the_first_is_chosen_by_its_name_without_scripts(client, many):
    form = look(client, "/")
    assert {one.attributes.get("placeholder") for one in form.all("input", name="vae")} == {
        "or the name of another file"
    }
    fields = {"hires": "on", "hires.upscaler": ["Latent", "UPSCALER-5"], "vae": ["Automatic", "vae-5"]}
    fields |= {"controlnet.0.model": ["", " "], "checkpoint": ["one", ""]}
    refused = page(send(client, "/jobs", steps="none", **fields))
    chosen = [one.attributes["value"].split(" [")[0] for one in refused.all("option") if "selected" in one.attributes]
    assert {"one", "vae-5", "upscaler-5"} <= {*chosen}
    assert "(not here)" not in refused.text
    answer = send(client, "/jobs", prompt="a", **fields)
    job = client.get(f"/api/v1{answer.headers['Location']}").get_json()["params"]
    assert [job["vae"][:5], job["hires"]["upscaler"][:10], job["checkpoint"][:3]] == ["vae-5", "upscaler-5", "one"]


def test_a_nul_in_a_name_or_a_search_finds_nothing(client, adapters):
    for path in ("/adapters?checkpoint=a%00b", "/adapters?search=%00", "/models?search=a+%00", "/?search=%00"):
        assert client.get(path).status_code == 200, path
    for path in ("/size?checkpoint=%00", "/choices?field=%00"):
        assert client.get(path).status_code == 404, path
    for field in ("checkpoint", "vae", "hires.upscaler"):
        assert look(client, f"/choices?field={field}&search=%00").all("option") == [], field
    assert client.get("/api/v1/models?search=one%00").get_json()["models"] == []
    for name in ("checkpoint", "vae", "hires.upscaler", "controlnet.0.model"):
        assert send(client, "/typed", **{name: "a\0b"}).status_code == 200, name
        assert send(client, "/jobs", steps="none", **{name: "a\0b"}).status_code == 422, name


def test_a_search_finds_what_the_lists_show(client, many, checkpoint_factory):
    checkpoint_factory("zz", kind="controlnet", architecture="sdxl", sha256="f4b91a0d35" + "0" * 54)
    checkpoint_factory("newer", kind="controlnet", architecture="sd9")
    for search in ("f4b91a0d35", "ZZ [F4B9", "[f4b9", "diffusion xl", "Stable XL zz"):
        shown = look(client, f"/choices?field=controlnet.0.model&search={search}")
        assert [one.attributes["value"] for one in shown.all("option")] == ["zz [f4b91a0d35]"], search
    found = client.get("/api/v1/models?search=sd9").get_json()["models"]
    assert [one["name"] for one in found] == ["newer"]


def test_files_that_cannot_be_used_are_few_on_the_page_and_all_in_their_own_list(client, checkpoint_factory):
    for number in range(30):
        checkpoint_factory(f"odd-{number:02}", kind="other", usable=False, reason="is a T2I-Adapter")
    page = look(client, "/models").text
    assert page.count("is a T2I-Adapter") == 20
    assert "All 30" in page
    assert look(client, "/models?kind=other").text.count("is a T2I-Adapter") == 30
