"""The whole form without scripts: every field through admission and back, pictures as files, refusals in place."""

from __future__ import annotations

import re
from functools import partial
from io import BytesIO

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from werkzeug.datastructures import MultiDict

from api.pages import fieldsets
from api.pages.fields import EVERY
from shared.db.sessions import transact
from shared.media.storage import key
from shared.queue import transitions
from shared.settings import Limits
from tests.conftest import CheckpointFactory
from tests.support.browsing import look, page, send
from tests.support.queueing import Farmhand

SET = {
    "prompt": "a lake (at dawn:1.2)",
    "negative_prompt": "people",
    "emphasis": "No norm",
    "clip_skip": "2",
    "width": "128",
    "height": "64",
    "sampler": "Heun",
    "schedule": "karras",
    "steps": "9",
    "cfg_scale": "6.5",
    "seed": "7",
    "count": "2",
    "exact": "on",
    "tiling": "x",
    "film": "on",
    "format": "webp",
    "sampling.s_churn": "3.5",
    "sampling.rho": "5",
    "sampling.discard_next_to_last_sigma": "no",
    "guidance.rescale": "0.7",
    "noise.source": "NV",
    "noise.variation_seed": "8",
    "noise.variation_strength": "0.25",
    "hires": "on",
    "hires.scale": "1.5",
    "hires.denoising": "0.4",
    "hires.upscaler": "Lanczos",
    "hires.sampler": "Euler",
    "hires.prompt": "closer",
}


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory: CheckpointFactory) -> None:
    checkpoint_factory("demo", native_size=64)
    checkpoint_factory("other", native_size=64)


def file(colour: str = "red", text: str = "") -> tuple[BytesIO, str]:
    """Return a picture, with `text` for its parameters, as a file input sends it."""
    data, info = BytesIO(), PngInfo()
    if text:
        info.add_text("parameters", text)
    Image.new("RGB", (64, 48), colour).save(data, "PNG", pnginfo=info)
    data.seek(0)
    return data, "picture.png"


def submitted(client, **fields: object) -> str:
    answer = send(client, "/jobs", **fields)
    assert answer.status_code == 303, page(answer).text
    return answer.location.rpartition("/")[2]


def params(client, job: str) -> dict[str, object]:
    return client.get(f"/api/v1/jobs/{job}").get_json()["params"]


def shown(form) -> MultiDict[str, str]:
    """Return what a browser would send of the form as it is."""
    values = {one.attributes["name"]: one.attributes.get("value") for one in form.all("input") if _is_sent(one)}
    return MultiDict(values)


def _is_sent(one) -> bool:
    name, kind = one.attributes.get("name"), one.attributes.get("type")
    return bool(name) and kind != "file" and (kind != "checkbox" or "checked" in one.attributes)


def test_every_group_reaches_the_job_and_fills_the_form_again(client):
    job = submitted(client, **SET)
    stored = params(client, job)
    assert stored["sampling"]["s_churn"] == 3.5
    assert stored["sampling"]["discard_next_to_last_sigma"] is False
    assert stored["noise"] | {"source": "NV", "variation_seed": 8, "variation_strength": 0.25} == stored["noise"]
    assert stored["hires"] | {"scale": 1.5, "upscaler": "Lanczos", "prompt": "closer"} == stored["hires"]
    assert (stored["tiling"], stored["film"], stored["format"], stored["clip_skip"]) == ("x", True, "webp", 2)
    form = look(client, f"/?from={job}")
    typed = shown(form)
    for name in ("sampling.s_churn", "sampling.rho", "noise.variation_seed", "hires.scale", "guidance.rescale"):
        assert typed[name] == SET[name]
    chosen = {one.attributes["value"] for one in form.all("option", selected=None)}
    assert {"No norm", "x", "webp", "NV", "Lanczos", "no", "Euler", "karras"} <= chosen
    opened = {one.attributes["id"] for one in form.all("details", open=None)}
    assert opened == {"group-hires", "group-sampling", "group-guidance", "group-noise", "group-output"}


def test_the_largest_seed_keeps_its_digits_from_a_file_through_form_and_api(client):
    seed = 2**64 - 2
    text = f"a castle\nSteps: 12, Seed: {seed}, Size: 64x64, Variation seed: {seed}, Variation seed strength: 0.5"
    typed = shown(page(send(client, "/from-picture", file=file(text=text))))
    assert (typed["seed"], typed["noise.variation_seed"]) == (str(seed), str(seed))
    job = submitted(client, seed=typed["seed"], count="2")
    answer = client.get(f"/api/v1/jobs/{job}")
    assert [image["seed"] for image in answer.get_json()["images"]] == [seed, seed + 1]
    assert f'"seed":{seed}'.encode() in answer.data.replace(b": ", b":")
    assert look(client, f"/?from={job}").value("seed") == str(seed)
    assert look(client, "/").all("article", **{"data-seed": str(seed)})


def test_refusal_of_a_nested_field_stands_beside_its_input_in_an_open_group(client):
    wrong = {"hires": "on", "hires.scale": "wide", "sampling.s_noise": "-1", "noise.variation_strength": "7"}
    answer = send(client, "/jobs", **wrong)
    assert answer.status_code == 422
    form = page(answer)
    fields = set(wrong) - {"hires"}
    assert {one.attributes["id"] for one in form.all("p", **{"class": "error"})} == {f"{name}-error" for name in fields}
    assert {one.attributes["href"] for one in form.all("a") if one.attributes["href"].startswith("#")} >= {
        f"#{name}" for name in fields
    }
    for name in fields:
        (box,) = form.all("input", name=name)
        assert box.attributes["value"] == wrong[name]
        assert f"{name}-error" in box.attributes["aria-describedby"]
    opened = {one.attributes["id"] for one in form.all("details", open=None)}
    assert opened == {"group-hires", "group-sampling", "group-noise"}
    assert "Hires: Scale" in form.text


def test_folded_group_tells_what_is_set_in_it(client):
    form = look(client, f"/?from={submitted(client, film='on', format='jpeg')}")
    assert "Format JPEG · Film" in form.text


def test_what_hangs_on_an_unticked_box_is_left_out(client):
    stored = params(client, submitted(client, prompt="a", **{"hires.scale": "3", "img2img.denoising": "0.2"}))
    assert stored["hires"] is None
    assert stored["img2img"] is None


def test_source_and_mask_come_as_files(client):
    job = submitted(
        client,
        prompt="a red boat",
        **{"img2img.denoising": "0.5", "img2img.mask.content": "fill", "img2img.mask.invert": "on"},
        **{"img2img.file": file(), "img2img.mask.file": file("white")},
    )
    img2img = params(client, job)["img2img"]
    assert img2img["denoising"] == 0.5
    assert img2img["mask"] | {"content": "fill", "invert": True} == img2img["mask"]
    picture = Image.open(BytesIO(client.get(f"/api/v1/uploads/{img2img['picture']}").data))
    assert picture.size == (64, 48)
    pictures = [one.attributes.get("src") for one in look(client, f"/jobs/{job}").all("img")]
    for upload in (img2img["picture"], img2img["mask"]["picture"]):
        assert f"/api/v1/uploads/{upload}" in pictures


def test_refused_form_keeps_the_pictures_that_came_with_it(client):
    answer = send(client, "/jobs", steps="none", **{"img2img.file": file()})
    form = page(answer)
    (kept,) = form.all("input", name="img2img.picture")
    assert "checked" in kept.attributes
    job = submitted(client, prompt="a", **{"img2img.picture": kept.attributes["value"]})
    assert params(client, job)["img2img"]["picture"] == kept.attributes["value"]


@pytest.mark.parametrize("name", ["img2img.file", "img2img.mask.file"])
def test_file_that_is_no_picture_is_told_beside_its_field(client, name):
    answer = send(client, "/jobs", prompt="a", **{name: (BytesIO(b"<svg onload=alert(1)>"), "a.png")})
    assert answer.status_code == 422
    form, error = page(answer), f"{name.replace('file', 'picture')}-error"
    assert form.all("p", id=error)
    assert form.all("input", **{"name": name, "id": name, "aria-describedby": error})
    assert form.all("a", href=f"#{name}")
    assert "No jobs yet" in look(client, "/jobs").text


def test_all_that_is_wrong_beside_a_file_is_told_with_it(client):
    files = {name: (BytesIO(b"<svg>"), "a.svg") for name in ("img2img.file", "img2img.mask.file")}
    answer = send(client, "/jobs", steps="none", **{"img2img.denoising": "2", "img2img.mask.blur": "65"}, **files)
    assert answer.status_code == 422
    form = page(answer)
    for field in ("steps", "img2img.picture", "img2img.denoising", "img2img.mask.picture", "img2img.mask.blur"):
        assert form.all("p", id=f"{field}-error")
    assert "SVG, HTML or XML" in form.text
    assert "neither an upload nor a data URL" not in form.text


# ControlNets, each with fields of its own.


def test_a_control_net_comes_with_its_picture_as_a_file(client, checkpoint_factory):
    checkpoint_factory("edges", kind="controlnet", path="ControlNet/edges.pth", sha256="5" * 64)
    form = look(client, "/")
    assert "ControlNet 1" in form.text
    assert not form.all("select", name="controlnet.1.model")
    assert form.all("option", value=f"edges [{'5' * 10}]")
    given = {"controlnet.0.model": "edges", "controlnet.0.preprocessor": "canny", "controlnet.0.weight": "0.5"}
    job = submitted(client, prompt="a", **given, **{"controlnet.0.picture.file": file()})
    (unit,) = params(client, job)["controlnet"]
    assert (unit["model"][:5], unit["preprocessor"], unit["weight"], unit["mode"]) == (
        "edges",
        "canny",
        0.5,
        "balanced",
    )
    assert client.get(f"/api/v1/uploads/{unit['picture']}").status_code == 200
    again = look(client, f"/?from={job}")
    assert "ControlNet 2" in again.text
    assert not again.all("select", name="controlnet.2.model")
    assert again.all("input", name="controlnet.0.picture", value=unit["picture"])
    page = look(client, f"/jobs/{job}")
    assert "Canny edges" in page.text
    assert "ControlNet 1 follows this picture" in page.text
    assert page.all("img", src=f"/api/v1/uploads/{unit['picture']}")


def test_a_control_net_that_nobody_fills_in_is_not_asked_for(client, checkpoint_factory):
    """A browser sends of each list the chosen entry, or else the first one."""
    checkpoint_factory("edges", kind="controlnet", path="ControlNet/edges.pth", sha256="5" * 64)
    markup = look(client, "/").markup
    selects = re.findall(r'<select[^>]* name="(controlnet\.0\.[^"]+)"[^>]*>(.*?)</select>', markup, re.DOTALL)
    assert len(selects) > 3
    sent = {}
    for name, options in selects:
        chosen = re.search(r'<option value="([^"]*)"[^>]* selected', options)
        sent[name] = (chosen or re.search(r'<option value="([^"]*)"', options))[1]
    empty = {"controlnet.0.picture.file": (BytesIO(b""), "")}
    assert params(client, submitted(client, prompt="a", **sent, **empty))["controlnet"] == []


def test_what_is_wrong_with_a_control_net_is_told_beside_its_field(client, checkpoint_factory):
    checkpoint_factory("edges", kind="controlnet", path="ControlNet/edges.pth", sha256="5" * 64)
    given = {"controlnet.0.model": "edges", "controlnet.0.weight": "9"}
    answer = send(client, "/jobs", prompt="a", **given, **{"controlnet.0.picture.file": (BytesIO(b"<svg>"), "a.svg")})
    assert answer.status_code == 422
    form = page(answer)
    assert form.all("p", id="controlnet.0.weight-error")
    assert form.all("p", id="controlnet.0.picture-error")
    assert "ControlNet 1: Weight" in form.text


ADAPTER = {"image_features": "projected", "image_width": 1024, "tokens": 4, "form": "plain"}


@pytest.fixture
def with_ip_adapter(checkpoint_factory):
    path, hashes = "ipadapter/plain.bin", {"sha256": "5" * 64}
    checkpoint_factory("plain", kind="ip-adapter", path=path, details=ADAPTER, **hashes)
    path, widths = "clip_vision/vit-h.safetensors", {"projected": 1024, "hidden": 1280}
    checkpoint_factory("vit-h", kind="image-encoder", path=path, architecture=None, sha256="6" * 64, details=widths)


def test_an_ip_adapter_comes_with_its_pictures_as_files(client, with_ip_adapter):
    form = look(client, "/")
    assert form.all("option", value=f"plain [{'5' * 10}]")
    assert not form.all("select", name="ip_adapters.1.model")
    encoder = f"vit-h [{'6' * 10}]"
    assert form.all("option", value=encoder)
    defaults = {"weight": "1", "start": "0", "end": "1"}
    assert {name: form.value(f"ip_adapters.0.{name}") for name in defaults} == defaults
    files = {"ip_adapters.0.pictures.file": [file(), file("blue")]}
    given = {"ip_adapters.0.model": "plain", "ip_adapters.0.weight": "0,6", "ip_adapters.0.end": "0.8"}
    job = submitted(client, prompt="a", **given, **files)
    (unit,) = params(client, job)["ip_adapters"]
    assert (unit["model"], unit["weight"], unit["start"], unit["end"]) == (f"plain [{'5' * 10}]", 0.6, 0, 0.8)
    assert unit["image_encoder"] == encoder
    assert len(set(unit["pictures"])) == 2
    page = look(client, f"/jobs/{job}")
    assert "IP-Adapter 1 follows these pictures" in page.text
    assert "IP-Adapter 1 plain [5555555555] IP-Adapter 1: Weight 0.6" in page.text
    assert all(page.all("img", src=f"/api/v1/uploads/{one}") for one in unit["pictures"])
    again = look(client, f"/?from={job}")
    assert "IP-Adapter 2" in again.text
    assert all(again.all("input", name="ip_adapters.0.pictures", value=one) for one in unit["pictures"])
    assert again.all("option", value=encoder, selected=None)

    kept = {**given, "ip_adapters.0.pictures": unit["pictures"][1:], "ip_adapters.0.pictures.file": file("green")}
    (changed,) = params(client, submitted(client, prompt="a", **kept))["ip_adapters"]
    assert changed["pictures"][0] == unit["pictures"][1]
    assert len(changed["pictures"]) == 2


def test_an_ip_adapter_without_its_image_encoder_is_offered_as_that(client, with_ip_adapter, checkpoint_factory):
    details = ADAPTER | {"image_width": 1280}
    checkpoint_factory("large", kind="ip-adapter", path="ipadapter/large.bin", sha256="7" * 64, details=details)
    form = look(client, "/")
    assert "large [7777777777], image encoder missing" in form.text
    assert "plain [5555555555], image encoder missing" not in form.text


def test_what_is_wrong_with_an_ip_adapter_is_told_beside_its_field(client, with_ip_adapter):
    given = {"ip_adapters.0.model": "plain", "ip_adapters.0.weight": "9"}
    bad = {"ip_adapters.0.pictures.file": [file(), (BytesIO(b"<svg>"), "a.svg")]}
    answer = send(client, "/jobs", prompt="a", **given, **bad)
    assert answer.status_code == 422
    form = page(answer)
    assert form.all("p", id="ip_adapters.0.weight-error")
    assert form.all("p", id="ip_adapters.0.pictures-error")
    assert "IP-Adapter 1: Pictures" in form.text
    assert "SVG, HTML or XML" in form.text


def test_an_ip_adapter_without_a_picture_or_with_too_many_is_refused(client, services, with_ip_adapter, monkeypatch):
    form = page(send(client, "/jobs", prompt="a", **{"ip_adapters.0.model": "plain"}))
    assert form.all("p", id="ip_adapters.0.pictures-error")
    assert "a list of 1 to 4" in form.text
    monkeypatch.setattr("api.use_cases.images.upload", None)  # nothing is uploaded
    many = {"ip_adapters.0.model": "plain", "ip_adapters.0.pictures.file": [file() for _ in range(5)]}
    form = page(send(client, "/jobs", prompt="a", **many))
    assert "holds too many pictures" in form.text
    assert "at most 4" in form.text


def test_a_group_whose_files_are_missing_says_where_to_put_them(client, checkpoint_factory):
    form = look(client, "/")
    assert "There is no IP-Adapter here. Put the file of an IP-Adapter in the folder ipadapter of" in form.text
    assert "There is no ControlNet here. Put the file of a ControlNet in the folder ControlNet of" in form.text
    assert not form.all("select", name="ip_adapters.0.model")
    checkpoint_factory("plain", kind="ip-adapter", path="ipadapter/plain.bin", sha256="5" * 64, details=ADAPTER)
    form = look(client, "/")
    assert "Put CLIP-ViT-H-14-laion2B-s32B-b79K (model.safetensors) in the folder clip_vision" in form.text
    assert not form.all("select", name="ip_adapters.0.model")
    given = {"ip_adapters.0.model": "plain", "ip_adapters.0.pictures.file": file()}
    form = page(send(client, "/jobs", prompt="a", **given))
    assert "plain needs the image encoder CLIP-ViT-H-14-laion2B-s32B-b79K, which is not here" in form.text
    assert form.all("option", value=f"plain [{'5' * 10}]")


def test_file_that_is_too_large_is_told_as_that_with_the_rest(client, services, monkeypatch):
    monkeypatch.setattr(services.picture_reader, "_limits", Limits(max_upload_mb=0))
    answer = send(client, "/jobs", steps="none", **{"img2img.file": file()})
    assert answer.status_code == 413
    assert all(page(answer).all("p", id=f"{field}-error") for field in ("steps", "img2img.picture"))


def test_mask_without_a_picture_is_refused_beside_the_picture(client):
    answer = send(client, "/jobs", prompt="a", **{"img2img.mask.file": file("white")})
    assert answer.status_code == 422
    assert page(answer).all("p", id="img2img.picture-error")


@pytest.mark.parametrize(
    ("name", "beside"),
    [("img2img.picture", {}), ("img2img.mask.picture", {"img2img.file": file()})],
    ids=["source", "mask"],
)
def test_ticked_box_without_its_picture_is_refused_with_what_to_do(client, name, beside):
    answer = send(client, "/jobs", prompt="a", **{name: ""}, **beside)
    assert answer.status_code == 422
    assert page(answer).all("p", id=f"{name}-error")
    assert "The page no longer has the" in page(answer).text
    assert "No jobs yet" in look(client, "/jobs").text


def test_refusals_are_listed_in_the_order_of_the_form_with_labels_as_links(client):
    wrong = {"count": "0", "width": "99999", "hires": "on", "hires.denoising": "3", "seed": "x", "prompt": "<lora:x:1>"}
    form = page(send(client, "/jobs", priority="1000", **wrong))
    listed = [one.attributes["href"] for one in form.all("a") if one.attributes["href"].startswith("#")]
    assert listed == ["#main", "#prompt", "#width", "#seed", "#count", "#hires.denoising", "#priority", "#strips"]
    assert "6 settings cannot be accepted." in form.text
    assert "Hires denoising:" in form.text
    assert "Hires: Hires" not in form.text
    (summary,) = form.all("div", id="notice")
    assert {"tabindex", "autofocus", "role"} <= summary.attributes.keys()


def test_every_field_has_its_place_on_the_form():
    places = [fieldsets.place(name) for name in (*EVERY, *fieldsets.SWITCHES)]
    assert len({*places}) == len(places)
    assert max(places) < fieldsets.place("body")


def test_refused_form_is_still_the_form_and_looks_again_at_itself(client):
    form = page(send(client, "/jobs", prompt="a", steps="none"))
    (current,) = [one for one in form.all("a") if "aria-current" in one.attributes]
    assert current.attributes["href"] == "/"
    assert form.all("main", **{"data-live": "/"})


def test_picture_of_nobody_is_refused_beside_its_field(client):
    answer = send(client, "/jobs", prompt="a", **{"img2img.picture": "0" * 64})
    assert answer.status_code == 422
    assert page(answer).all("p", id="img2img.picture-error")


@pytest.fixture
def finished(client, services, sessions) -> str:
    """A job of two images, the second of which is finished with a real picture."""
    job = submitted(client, prompt="a hill", seed="7", count="2", steps="4")
    worker = Farmhand(sessions).worker()
    for _ in range(2):
        claim = worker.claim()
        services.storage.put(key(claim.job_id, claim.index, claim.attempt, "picture"), file("green")[0].read())
        transact(sessions, partial(transitions.finish, claim=claim, picture_bytes=9))
    return job


@pytest.mark.parametrize("to", ["img2img", "inpaint"])
def test_finished_picture_is_sent_on_as_the_one_to_start_from(client, finished, to):
    answer = send(client, f"/jobs/{finished}/images/1/send", to="img2img")
    assert answer.status_code == 303
    assert answer.location.endswith("#img2img")
    form = look(client, answer.location.replace("to=img2img", f"to={to}"))
    (kept,) = form.all("input", name="img2img.picture")
    assert "checked" in kept.attributes
    assert client.get(f"/api/v1/uploads/{kept.attributes['value']}").status_code == 200
    assert form.value("seed") == "-1"
    assert form.value("count") == "1"
    assert f"Starts from picture 2 of job {finished}, with a new seed" in form.text
    assert [one for one in form.elements if one.attributes.get("id") == to]


def test_finished_picture_is_sent_on_to_a_second_pass_with_its_own_seed(client, finished):
    form = look(client, f"/?from={finished}&image=1&to=hires")
    assert form.value("seed") == "8"
    assert "checked" in form.all("input", name="hires")[0].attributes
    assert form.value("hires.denoising") == "0.35"  # the defaults would paint another picture
    assert "Lanczos" in {one.attributes["value"] for one in form.all("option", selected=None)}
    assert f"Enlarges picture 2 of job {finished}" in form.text


def test_picture_that_is_not_there_is_not_sent_on(client, finished):
    assert send(client, f"/jobs/{finished}/images/7/send", to="inpaint").status_code == 404


def test_picture_that_cannot_be_sent_on_is_told_on_the_page_of_its_job(client, services, finished, monkeypatch):
    monkeypatch.setattr(services.picture_reader, "_limits", Limits(max_upload_mb=0))
    answer = send(client, f"/jobs/{finished}/images/1/send", to="img2img")
    assert (answer.status_code, answer.location) == (303, f"/jobs/{finished}")
    assert "The file is too large." in look(client, answer.location).text


@pytest.mark.parametrize("query", ["image=2", "image=-1", "image=x", "image=0&to=img2img&source=../x", "to=hires"])
def test_address_that_asks_for_what_is_not_there_fills_in_what_is(client, finished, query):
    form = look(client, f"/?from={finished}&{query}")
    assert not form.all("input", name="img2img.picture", checked=None)
    assert "a hill" in form.text


def test_picture_fills_the_form_in_and_tells_what_cannot_be_honoured(client):
    text = (
        "<b>a castle</b>\nNegative prompt: fog\nSteps: 12, Sampler: Heun, Schedule type: Karras, CFG scale: 5.5, "
        "Seed: 42, Size: 64x128, Hires upscale: 1.5, Hires upscaler: Lanczos, Denoising strength: 0.4, "
        "Token merging ratio: 0.5"
    )
    answer = send(client, "/from-picture", file=file(text=text))
    assert answer.status_code == 200
    form = page(answer)
    assert "Filled in from picture.png" in form.text
    assert "Token merging ratio" in form.text
    assert "<b>" not in form.markup
    names = ("steps", "cfg_scale", "seed", "width", "height", "hires.scale", "hires.denoising")
    assert [form.value(name) for name in names] == ["12", "5.5", "42", "64", "128", "1.5", "0.4"]
    assert {"Heun", "karras", "Lanczos"} <= {one.attributes["value"] for one in form.all("option", selected=None)}
    assert "checked" in form.all("input", name="hires")[0].attributes


def test_what_was_typed_can_be_put_back_after_a_picture_filled_the_form_in(client):
    typed = {"prompt": 'a "hill"\nat dawn', "steps": "33", "hires": "on", "hires.scale": "1.7", "film": "on"}
    sent = {f"typed.{name}": text for name, text in typed.items()}
    form = page(send(client, "/from-picture", file=file(text="a castle\nSteps: 12, Sampler: Euler, Seed: 42"), **sent))
    assert form.value("steps") == "12"
    assert form.all("button", form="typed-before")
    kept = MultiDict((one.attributes["name"], one.attributes["value"]) for one in form.all("input", type="hidden"))
    assert {name: kept[name] for name in typed} == typed
    back = page(client.post("/typed", data=kept))
    assert [back.value(name) for name in ("steps", "hires.scale", "seed")] == ["33", "1.7", "-1"]
    assert "a &#34;hill&#34;\nat dawn</textarea>" in back.markup
    assert all("checked" in back.all("input", name=name)[0].attributes for name in ("hires", "film"))
    assert client.get("/typed").location == "/"


def test_what_was_typed_stays_where_a_file_is_refused(client):
    answer = send(client, "/from-picture", file=(BytesIO(b"GIF89a"), "a.gif"), **{"typed.steps": "33"})
    assert answer.status_code == 422
    assert page(answer).value("steps") == "33"


def test_nothing_is_put_back_where_nothing_was_typed(client):
    assert not page(send(client, "/from-picture", file=file(text="a castle"))).all("button", form="typed-before")


def test_picture_that_says_nothing_leaves_the_defaults(client):
    form = page(send(client, "/from-picture", file=file()))
    assert "picture.png has no parameters" in form.text
    assert form.value("steps") == "20"


def test_picture_whose_text_cannot_be_read_says_whose_it_is_and_leaves_the_defaults(client):
    form = page(send(client, "/from-picture", file=file(text='{"nodes": [], "links": []}')))
    assert "has no parameters that can be read" in form.text
    assert "a text of ComfyUI: it cannot be read" in form.text
    assert form.value("steps") == "20"
    assert "nodes" not in form.text


def test_file_that_is_no_picture_is_told_on_the_form(client):
    answer = send(client, "/from-picture", file=(BytesIO(b"GIF89a"), "a.gif"))
    assert answer.status_code == 422
    assert page(answer).all("div", role="alert")
    assert client.get("/from-picture").location == "/"


def test_styles_of_the_farm_are_there_to_tick(client, settings):
    settings.styles_path.parent.mkdir(parents=True, exist_ok=True)
    settings.styles_path.write_text('name,prompt,negative_prompt\n"Oil <i>","{prompt}, oil",photo\n')
    (box,) = look(client, "/").all("input", name="styles")
    assert box.attributes["value"] == "Oil <i>"
    stored = params(client, submitted(client, prompt="a hill", styles="Oil <i>"))
    assert (stored["prompt"], stored["negative_prompt"], stored["styles"]) == ("a hill, oil", "photo", [])
    refused = send(client, "/jobs", prompt="a hill", styles="Ink")
    assert page(refused).all("fieldset", **{"id": "styles", "aria-describedby": "styles-error"})
    assert page(refused).all("p", id="styles-error")
    assert page(refused).all("a", href="#styles")


def test_every_field_of_the_parameters_has_its_place_in_the_page(client, settings, checkpoint_factory):
    checkpoint_factory("GFPGANv1.4", kind="face-restorer", architecture=None)
    settings.styles_path.parent.mkdir(parents=True, exist_ok=True)
    settings.styles_path.write_text("name,prompt,negative_prompt\nInk,ink,\n")
    form = look(client, "/")
    named = [one.attributes.get("name") for tag in ("input", "select", "textarea") for one in form.all(tag)]
    assert {name: named.count(name) for name in EVERY} == dict.fromkeys(EVERY, 1)


def test_every_group_has_a_title_in_the_page(client):
    form = look(client, "/")
    for group in fieldsets.FOLDED:
        assert group.title in form.text


def test_file_that_fills_nothing_in_is_told_by_its_name(client):
    answer = send(client, "/from-picture", file=(BytesIO(b"hello"), "notes.txt"))
    assert answer.status_code == 422
    told = page(answer).text
    assert "notes.txt is" in told
    assert "Accepted: a PNG, JPEG, WebP, BMP or GIF" in told
    assert "file:" not in told


def test_page_that_is_not_there_is_told_in_the_farms_words(client):
    told = look(client, "/nowhere", 404).text
    assert "There is nothing here" in told
    assert "entered the URL manually" not in told
