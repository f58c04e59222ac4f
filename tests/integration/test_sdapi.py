"""The API of AUTOMATIC1111's clients: a request becomes a job, and the answer is in their form."""

from __future__ import annotations

import base64
import io
import json

import pytest
from flask import Flask
from PIL import Image

from api.compat.sdapi import bodies, generation, options
from api.compat.sdapi.bodies import Img2ImgRequest, Txt2Img
from api.use_cases import jobs
from shared.accounts.principal import LOCAL, Principal, Role
from shared.messaging.events import Progress
from tests.clients.recordings import body, kept
from tests.conftest import checkpoints_of
from tests.support.applications import application
from tests.support.instant_worker import InstantWorker, picture, scanned_worker

URL = "/sdapi/v1"
PNG = base64.b64encode(picture()).decode()


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


@pytest.fixture
def rendering(services, monkeypatch):
    """Jobs are rendered at once."""
    monkeypatch.setattr(services.tickets, "publish", InstantWorker(services))


@pytest.fixture
def asked(services):
    """Returns the job that a request asks for."""

    def ask(**sent):
        if "init_images" in sent:
            return generation.img2img(services, LOCAL, bodies.read(Img2ImgRequest, sent)).job
        return generation.txt2img(services, LOCAL, bodies.read(Txt2Img, sent)).job

    return ask


@pytest.fixture
def post(client):
    return lambda path, **sent: client.post(f"{URL}/{path}", json=sent)


def get(client, path):
    answer = client.get(f"{URL}/{path}")
    assert answer.status_code == 200
    return answer.get_json()


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def test_txt2img_answers_pictures_with_what_made_them(client, post, rendering):
    sent = {
        "prompt": "sea",
        "negative_prompt": "fog",
        "seed": 40,
        "steps": 4,
        "width": 64,
        "height": 64,
        "batch_size": 2,
    }
    answer = post("txt2img", **sent, sampler_name="DPM++ 2M", scheduler="Karras").get_json()
    assert [opened(one).getpixel((0, 0))[0] for one in answer["images"]] == [40, 41]
    info = json.loads(answer["info"])
    assert (info["seed"], info["all_seeds"], info["sampler_name"], info["width"]) == (40, [40, 41], "DPM++ 2M", 64)
    assert info["infotexts"][1].startswith("sea\nNegative prompt: fog\nSteps: 4, Sampler: DPM++ 2M, Schedule type: ")
    assert "Seed: 41" in info["infotexts"][1]
    assert answer["parameters"] == sent | {"sampler_name": "DPM++ 2M", "scheduler": "Karras"}
    job = client.get(f"/api/v1/jobs/{info['stepfarm']['job']}").get_json()
    assert (job["params"]["schedule"], job["params"]["count"]) == ("karras", 2)


def test_what_a_client_leaves_out_is_as_the_program_takes_it(asked):
    assert asked(prompt="sea") == {
        "prompt": "sea", "sampler": "Euler", "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"sampler_index": "LMS", "sampler_name": None}, {"sampler": "LMS"}),
        ({"sampler_index": "LMS", "sampler_name": "Heun"}, {"sampler": "Heun"}),
        ({"scheduler": "automatic"}, {"schedule": "automatic"}),
        ({"scheduler": ""}, {}),
        ({"subseed": 5, "subseed_strength": 0.25}, {"noise": {"variation_strength": 0.25, "variation_seed": 5}}),
        ({"subseed": 5, "subseed_strength": 0}, {}),
        ({"seed_resize_from_w": 64, "seed_resize_from_h": 0}, {}),
        ({"eta": 1.0, "s_noise": 1}, {"sampling": {"eta": 1.0, "s_noise": 1.0}}),
        ({"tiling": True, "styles": ["", "ink"]}, {"tiling": "both", "styles": ["ink"]}),
        ({"batch_size": 2, "n_iter": "3"}, {"count": 6}),
        ({"enable_hr": False, "hr_scale": 3, "denoising_strength": 0.7}, {}),
        (
            {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.4,
             "hr_sampler_name": "Use same sampler", "hr_second_pass_steps": 3, "hr_prompt": "wide sea"},
            {"hires": {"scale": 1.5, "upscaler": "Lanczos", "denoising": 0.4, "steps": 3, "prompt": "wide sea"}},
        ),
        (
            {"refiner_checkpoint": "late", "refiner_switch_at": 0.6},
            {"refiner": {"checkpoint": "late", "switch_at": 0.6}},
        ),
        ({"refiner_checkpoint": "None"}, {}),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2, "sd_vae": "None"}}, {"clip_skip": 2, "vae": "none"}),
        ({"override_settings": {"randn_source": "GPU", "forge_preset": "xl"}}, {"noise": {"source": "NV"}}),
        ({"override_settings": {"eta_ancestral": 0.5}}, {"sampling": {"eta": 0.5}}),
        (
            {"override_settings": {"eta_ddim": 0.5}, "sampler_name": "DDIM"},
            {"sampler": "DDIM", "sampling": {"eta": 0.5}},
        ),
        ({"override_settings": {"samples_format": "jpg"}, "unheard_of": {"a": 1}}, {"format": "jpeg"}),
        ({"script_name": "None", "script_args": []}, {}),
        ({"alwayson_scripts": {"ADetailer": {"args": [False]}, "ControlNet": {"args": []}}}, {}),
    ],
)  # fmt: skip
def test_fields_mean_here_what_they_mean_there(asked, sent, said):
    assert asked(prompt="sea", **sent) == asked(prompt="sea") | said


def test_img2img_starts_from_a_picture_and_repaints_what_is_white(asked):
    said = {"init_images": [PNG], "mask": f"data:image/png;base64,{PNG}", "inpainting_fill": 1, "mask_blur": 2}
    assert asked(**said, resize_mode=1, inpaint_full_res_padding=16, initial_noise_multiplier=1)["img2img"] == {
        "picture": f"data:image/png;base64,{PNG}",
        "denoising": 0.75,
        "resize_mode": "crop",
        "noise_multiplier": 1.0,
        "mask": {
            "picture": f"data:image/png;base64,{PNG}",
            "blur": 2.0,
            "invert": False,
            "content": "original",
            "area": "only masked",
            "padding": 16,
        },
    }


def test_a_text_says_what_the_request_does_not(asked):
    text = "sea\nNegative prompt: fog\nSteps: 9, Sampler: Heun, CFG scale: 4, Seed: 5, Size: 128x64, Clip skip: 2"
    told = asked(infotext=text, seed=6, steps=None)
    assert (told["prompt"], told["steps"], told["sampler"], told["width"]) == ("sea", 9, "Heun", 128)
    assert (told["seed"], told["clip_skip"]) == (6, 2)


def test_the_extension_says_what_there_is_and_shows_what_its_modules_make(client, services):
    checkpoints_of(services.sessions)("lines", kind="controlnet", details={"width": 320, "context": 768})
    told = {
        name: client.get(f"/controlnet/{name}").get_json()
        for name in ("version", "settings", "model_list", "module_list", "control_types")
    }
    assert (told["version"], told["settings"]) == ({"version": 3}, {"control_net_unit_count": 4})
    [net] = [one for one in told["model_list"]["model_list"] if one.startswith("lines [")]
    assert net in told["control_types"]["control_types"]["All"]["model_list"]
    assert [one["value"] for one in told["module_list"]["module_detail"]["canny"]["sliders"]] == [100, 200]
    sent = {"controlnet_module": "canny", "controlnet_input_images": [PNG], "controlnet_processor_res": 128}
    made = client.post("/controlnet/detect", json=sent).get_json()
    assert (made["info"], min(opened(made["images"][0]).size)) == ("Success", 128)


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"controlnet_module": "openpose"}, "controlnet_module"),
        ({"controlnet_module": "inpaint_only"}, "controlnet_module"),
        ({"controlnet_module": "canny", "controlnet_threshold_b": 999}, "controlnet_threshold_b"),
        ({"controlnet_processor_res": 10**6}, "controlnet_processor_res"),
        ({"controlnet_input_images": ["nothing"]}, "controlnet_input_images.0"),
    ],
)
def test_what_no_module_can_make_is_refused_by_its_name(client, sent, field):
    answer = client.post("/controlnet/detect", json={"controlnet_input_images": [PNG]} | sent)
    assert (answer.status_code, answer.get_json()["errors"].partition(":")[0]) == (422, field)


def test_units_of_controlnet_become_control_nets(asked):
    unit = {"image": PNG, "module": "canny", "model": "edges [12345678]", "weight": 0.5, "resize_mode": 2}
    more = {
        "control_mode": "ControlNet is more important",
        "guidance_end": 0.5,
        "threshold_a": 64,
        "pixel_perfect": True,
    }
    idle = [{"enabled": False, "model": "edges"}, {"model": "None", "module": "none"}]
    given = {"ControlNet": {"args": [*idle, unit | more, {"input_image": PNG, "model": "depth", "threshold_a": 64}]}}
    first, second = asked(prompt="sea", alwayson_scripts=given)["controlnet"]
    assert first == {
        "model": "edges", "preprocessor": "canny", "weight": 0.5, "resize": "fill", "mode": "control", "end": 0.5,
        "threshold_a": 64.0, "picture": f"data:image/png;base64,{PNG}",
    }  # fmt: skip
    assert second == {"model": "depth", "preprocessor": "none", "picture": f"data:image/png;base64,{PNG}"}


def test_a_plot_is_a_sweep_and_its_sheet_comes_first(asked, post, rendering):
    args = [9, "Euler a, LMS", [], 4, "", ["2", "3"], 0, "", [], "True", "False", "False", "False", 0]
    assert asked(script_name="X/Y/Z Plot", script_args=args)["sweep"] == {
        "axes": [{"field": "sampler", "values": "Euler a, LMS"}, {"field": "steps", "values": ["2", "3"]}],
        "seeds": "same",
    }
    varied = [*args[:9], True, True, False, False, True, False, False, 0, False]
    assert asked(script_name="x/y/z plot", script_args=varied)["sweep"]["seeds"] == "each"
    assert asked(script_name="prompt matrix", script_args=[False, True])["sweep"]["seeds"] == "each"
    sent = {"prompt": "sea", "seed": 9, "width": 64, "height": 64, "script_name": "x/y/z plot"}
    alone = post("txt2img", **sent, script_args=args).get_json()
    assert [opened(one).getpixel((0, 0))[0] for one in alone["images"]] == [200]
    every = post("txt2img", **sent, script_args=[*args[:10], "True"]).get_json()
    assert [opened(one).getpixel((0, 0))[0] for one in every["images"]] == [200, 9, 9, 9, 9]
    info = json.loads(every["info"])
    assert (info["index_of_first_image"], len(info["infotexts"]), len(info["all_seeds"])) == (1, 5, 4)


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        ({"width": 515, "steps": 0, "cfg_scale": 99}, ["width", "steps", "cfg_scale"]),
        ({"steps": "many", "seed": [1]}, ["seed", "steps"]),
        ({"sampler_index": "Eulre"}, ["sampler_index"]),
        ({"scheduler": "Kerras"}, ["scheduler"]),
        ({"styles": ["no such style"]}, ["styles"]),
        ({"subseed_strength": 2}, ["subseed_strength"]),
        ({"enable_hr": True, "hr_upscaler": "R-ESRGAN 5x"}, ["hr_upscaler"]),
        ({"refiner_checkpoint": "nowhere"}, ["refiner_checkpoint"]),
        ({"restore_faces": True}, ["restore_faces"]),
        ({"batch_size": 60, "n_iter": 2}, ["batch_size"]),
        ({"override_settings": {"sd_model_checkpoint": "nowhere"}}, ["override_settings.sd_model_checkpoint"]),
        ({"override_settings": {"CLIP_stop_at_last_layers": 99}}, ["override_settings.CLIP_stop_at_last_layers"]),
        ({"override_settings": {"randn_source": "dice"}}, ["override_settings.randn_source"]),
        ({"override_settings": {"sd_vae": 5}}, ["override_settings.sd_vae"]),
        ({"script_name": "sd upscale"}, ["script_name"]),
        ({"script_name": "x/y/z plot", "script_args": [99, "1"]}, ["script_args.0"]),
        ({"script_name": "x/y/z plot", "script_args": [4, "1, many"]}, ["script_args.1"]),
        ({"script_name": "x/y/z plot", "script_args": ["UniPC Order", "1"]}, ["script_args.0"]),
        ({"script_name": "x/y/z plot", "script_args": []}, ["script_args"]),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, {}]}}}, ["alwayson_scripts.ADetailer"]),
        ({"alwayson_scripts": {"controlnet": {"args": ["canny"]}}}, ["alwayson_scripts.controlnet.args.0"]),
        (
            {"alwayson_scripts": {"controlnet": {"args": [{"model": "a", "module": "openpose"}]}}},
            ["alwayson_scripts.controlnet.args.0.module"],
        ),
        (
            {"alwayson_scripts": {"controlnet": {"args": [{"model": "nowhere", "image": PNG}]}}},
            ["alwayson_scripts.controlnet.args.0.model"],
        ),
        ({"disable_extra_networks": True}, ["disable_extra_networks"]),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_the_names_that_the_client_knows(post, sent, names):
    answer = post("txt2img", prompt="sea", **sent)
    assert answer.status_code == 422
    told = answer.get_json()
    assert told.keys() == {"error", "detail", "body", "errors"}
    assert all(f"{name}: " in told["detail"] for name in names)
    assert "Accepted: " in told["errors"]


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ({}, "init_images"),
        ({"init_images": ["http://inside/picture.png"]}, "init_images.0"),
        ({"init_images": ["AAAA"]}, "init_images.0"),
        ({"init_images": [PNG], "mask": "AAAA"}, "mask"),
        ({"init_images": [PNG], "mask": PNG, "mask_blur": -1}, "mask_blur"),
        ({"init_images": [PNG], "denoising_strength": 3}, "denoising_strength"),
    ],
)
def test_wrong_pictures_are_named(post, sent, name):
    answer = post("img2img", prompt="sea", width=64, height=64, **sent)
    assert answer.status_code == 422
    assert f"{name}: " in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("sdapi/v1/img2img", "init_images"),
        ("sdapi/v1/extra-single-image", "image"),
        ("sdapi/v1/extra-batch-images", "imageList"),
        ("sdapi/v1/png-info", "image"),
        ("controlnet/detect", "controlnet_input_images"),
    ],
)
def test_the_document_requires_the_pictures_that_nothing_is_done_without(client, path, field):
    document = client.get("/openapi.json").get_json()
    content = document["paths"][f"/{path}"]["post"]["requestBody"]["content"]["application/json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][name]["required"] == [field]
    answer = client.post(f"/{path}", json={})
    assert (answer.status_code, f"{field}: " in answer.get_json()["detail"]) == (422, True)


def test_pictures_are_enlarged_with_the_text_that_they_carry(client, post, rendering):
    carries = base64.b64encode(
        picture(text="sea\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 16x16")
    ).decode()
    assert opened(post("extra-single-image", image=carries, upscaler_1="Lanczos").get_json()["image"]).size == (16, 16)
    newest = client.get("/api/v1/jobs").get_json()["jobs"][0]["params"]["upscale"]
    assert newest["pictures"][0]["parameters"].startswith("sea\nSteps: 4")
    assert (newest["upscaler"], newest["scale"]) == ("Lanczos", 2)
    batch = {"imageList": [{"data": PNG, "name": "a"}, {"data": PNG, "name": "b"}], "upscaler_1": "Nearest"}
    assert len(post("extra-batch-images", **batch, resize_mode=1).get_json()["images"]) == 2
    answer = post("extra-batch-images", imageList=[{"data": PNG}, {"data": "AAAA"}])
    assert (answer.status_code, "imageList.1.data" in answer.get_json()["detail"]) == (422, True)
    assert "upscaler_1: " in post("extra-single-image", image=PNG, upscaler_1="nowhere").get_json()["detail"]


def test_the_text_in_a_picture_is_read(post):
    text = "sea\nNegative prompt: fog\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 16x24"
    told = post("png-info", image=base64.b64encode(picture(text=text)).decode()).get_json()
    assert (told["info"], told["items"]) == (text, {"parameters": text})
    assert (told["parameters"]["Prompt"], told["parameters"]["Steps"], told["parameters"]["Size-2"]) == (
        "sea",
        "4",
        "24",
    )
    assert post("png-info", image=PNG).get_json() == {"info": "", "items": {}, "parameters": {}}


def test_what_the_farm_cannot_do_is_said(post):
    answer = post("interrogate", image=PNG, model="clip")
    assert (answer.status_code, answer.get_json()["error"]) == (404, "Not Found")


def test_a_job_that_fails_is_an_error_with_its_reason(post, rendering):
    answer = post("txt2img", prompt="fail: the card is tired", width=64, height=64)
    assert answer.status_code == 500
    assert "the card is tired" in answer.get_json()["detail"]


def test_a_job_that_is_interrupted_is_an_error(post, services, monkeypatch):
    monkeypatch.setattr(services.tickets, "publish", lambda *_: post("interrupt"))
    answer = post("txt2img", prompt="sea", width=64, height=64)
    assert answer.status_code == 409
    assert "cancelled" in answer.get_json()["detail"]


@pytest.fixture
def waiting(services):
    """A job of two images that came through this API and waits."""
    given = {"prompt": "sea", "count": 2, "width": 64, "height": 64, "steps": 4}
    job = jobs.submit(services, LOCAL, given, door=options.DOOR).job
    yield job
    if not jobs.state(services, LOCAL, job.id).is_final:
        jobs.cancel(services, LOCAL, job.id)


def test_progress_is_nothing_while_nothing_waits_here(client, services):
    other = jobs.submit(services, LOCAL, {"prompt": "sea"}).job
    told = get(client, "progress")
    assert (told["progress"], told["eta_relative"], told["current_image"]) == (0, 0, None)
    assert (told["state"]["job_count"], told["state"]["job_no"], told["state"]["sampling_steps"]) == (0, 0, 0)
    client.post(f"{URL}/interrupt")
    assert not jobs.state(services, LOCAL, other.id).is_final, "it came through another door"
    jobs.cancel(services, LOCAL, other.id)


def test_progress_follows_the_image_that_is_rendered(client, services, waiting):
    assert get(client, "progress")["progress"] == 0.01
    claim = scanned_worker(services.sessions).claim()
    services.events.publish(Progress(waiting.id, claim.index, claim.attempt, 2, 4, "steps"))
    services.events.put_preview(waiting.id, claim.index, b"preview")
    assert services.events.flush()
    told = get(client, "progress")
    assert told["progress"] == pytest.approx(0.26)
    assert told["eta_relative"] >= 0
    assert (told["state"]["job_count"], told["state"]["sampling_step"], told["state"]["sampling_steps"]) == (2, 2, 4)
    assert base64.b64decode(told["current_image"]) == b"preview"
    assert get(client, "progress?skip_current_image=true")["current_image"] is None


def test_progress_of_the_page_knows_its_task_and_sends_a_preview_once(client, services, waiting):
    def told(**sent):
        return client.post("/internal/progress", json=sent).get_json()

    name = f"job {waiting.id}"
    assert client.get("/internal/pending-tasks").get_json() == {"size": 1, "tasks": [name]}
    assert [told(id_task=name)[one] for one in ("active", "queued", "completed")] == [False, True, False]
    assert [told(id_task="job 4711")[one] for one in ("active", "queued", "completed")] == [False, False, True]
    claim = scanned_worker(services.sessions).claim()
    services.events.publish(Progress(waiting.id, claim.index, claim.attempt, 2, 4, "steps"))
    services.events.put_preview(waiting.id, claim.index, b"preview")
    assert services.events.flush()
    now = told(id_task="task(of somebody's page)")
    assert (now["active"], now["progress"]) == (True, pytest.approx(0.26))
    assert base64.b64decode(now["live_preview"].removeprefix("data:image/webp;base64,")) == b"preview"
    assert told(id_live_preview=now["id_live_preview"])["live_preview"] is None


def test_skip_ends_the_image_that_is_rendered_and_interrupt_all(client, services, waiting):
    assert client.post(f"{URL}/skip").get_json() is None
    assert jobs.job(services, LOCAL, waiting.id).counts["cancelled"] == 0, "none was rendered"
    claim = scanned_worker(services.sessions).claim()
    client.post(f"{URL}/skip")
    assert jobs.job(services, LOCAL, waiting.id).images[claim.index].state == "cancelled"
    assert client.post(f"{URL}/interrupt").get_json() == {}
    assert jobs.job(services, LOCAL, waiting.id).counts["cancelled"] == 2


def test_options_that_come_back_whole_change_what_differs_alone(client, services, asked, monkeypatch):
    checkpoints_of(services.sessions)("other", native_size=64)
    before = get(client, "options")
    assert before["sd_model_checkpoint"].startswith("demo [")
    set_ones = []
    monkeypatch.setattr(options.doors, "set_options", lambda *given: set_ones.append(given[-1]))
    assert client.post(f"{URL}/options", json=before).get_json() is None
    assert set_ones == []
    client.post(f"{URL}/options", json=before | {"sd_model_checkpoint": "other", "s_churn": 2, "unheard_of": 1})
    assert [given.keys() for given in set_ones] == [{"sd_model_checkpoint", "s_churn"}]
    monkeypatch.undo()
    client.post(f"{URL}/options", json=before | {"sd_model_checkpoint": "other.safetensors", "eta_ddim": 0.5})
    after = get(client, "options")
    assert after["sd_model_checkpoint"] == next(
        one["title"] for one in get(client, "sd-models") if one["model_name"] == "other"
    )
    assert {name for name in after if after[name] != before[name]} == {
        "sd_model_checkpoint", "sd_checkpoint_hash", "eta_ddim",
    }  # fmt: skip
    assert asked(prompt="sea")["checkpoint"] == after["sd_model_checkpoint"]
    assert asked(prompt="sea", sampler_name="DDIM", override_settings={"sd_model_checkpoint": "demo"}) == asked(
        prompt="sea"
    ) | {"sampler": "DDIM", "sampling": {"eta": 0.5}, "checkpoint": "demo"}
    client.post(f"{URL}/options", json=before)
    assert get(client, "options") == before
    client.post(f"{URL}/options", json={"sd_model_checkpoint": None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"sd_model_checkpoint": "nowhere"},
        {"sd_vae": "nowhere"},
        {"CLIP_stop_at_last_layers": 13},
        {"eta_noise_seed_delta": "x"},
        {"img2img_extra_noise": 2},
        {"samples_format": "avif"},
    ],
)
def test_wrong_options_are_named_and_none_is_set(client, wrong):
    answer = client.post(f"{URL}/options", json={"s_noise": 1.5} | wrong)
    assert answer.status_code == 422
    assert f"{next(iter(wrong))}: " in answer.get_json()["detail"]
    assert get(client, "options")["s_noise"] == 1.0


LISTS = {
    "sd-models": {"title", "model_name", "hash", "sha256", "filename", "config"},
    "samplers": {"name", "aliases", "options"},
    "schedulers": {"name", "label", "aliases", "default_rho", "need_inner_model"},
    "upscalers": {"name", "model_name", "model_path", "model_url", "scale"},
    "latent-upscale-modes": {"name"},
    "prompt-styles": {"name", "prompt", "negative_prompt"},
    "script-info": {"name", "is_alwayson", "is_img2img", "args"},
}


def test_lists_have_the_form_that_clients_read(client, services):
    make = checkpoints_of(services.sessions)
    for kind in ("vae", "lora", "hypernetwork", "embedding", "upscaler", "face-restorer"):
        make(f"a-{kind}", kind=kind, details={"vectors": {"clip": 2}} if kind == "embedding" else None)
    for path, names in LISTS.items():
        assert all(one.keys() == names for one in get(client, path)), path
    assert "Euler a" in [one["name"] for one in get(client, "samplers")]
    assert get(client, "sd-vae") == [{"model_name": "a-vae", "filename": "a-vae.safetensors"}]
    assert [one["name"] for one in get(client, "loras")] == ["a-lora"]
    assert [one["name"] for one in get(client, "hypernetworks")] == ["a-hypernetwork"]
    assert get(client, "embeddings")["loaded"]["a-embedding"]["vectors"] == 2
    assert "a-upscaler" in [one["name"] for one in get(client, "upscalers")]
    assert [one["name"] for one in get(client, "realesrgan-models")] == ["a-upscaler"]
    assert [one["name"] for one in get(client, "face-restorers")] == ["a-face-restorer"]
    assert get(client, "cmd-flags")["api"] is True
    assert get(client, "extensions") == []
    axes = next(one for one in get(client, "script-info") if one["name"] == "x/y/z plot")["args"][0]["choices"]
    assert axes[:5] == ["Nothing", "Seed", "Var. seed", "Var. strength", "Steps"]


@pytest.mark.parametrize("name", ["refresh-checkpoints", "refresh-vae", "unload-checkpoint", "reload-checkpoint"])
def test_what_concerns_one_card_is_answered_without_harm(client, name):
    answer = client.post(f"{URL}/{name}")
    assert (answer.status_code, answer.get_json()) == (200, None if "refresh" in name else {})


def test_what_the_newest_client_of_scripts_sends_is_answered(client, services, rendering):
    checkpoints_of(services.sessions)("edges", kind="controlnet", details={"width": 320, "context": 768})
    requests = kept("webuiapi")["requests"]
    told = [
        client.open(one["path"], method=one["method"], data=body(one), content_type=one["headers"].get("content-type"))
        for one in requests
    ]
    assert len({(one["method"], one["path"]) for one in requests}) >= 27
    wrong = [
        (one["path"], answer.status_code)
        for one, answer in zip(requests, told, strict=True)
        if answer.status_code != 200
    ]
    assert wrong == [(f"{URL}/interrogate", 404), (f"{URL}/txt2img", 422)]
    assert all(answer.is_json for answer in told)
    client.post(f"{URL}/options", json={"sd_model_checkpoint": None, "CLIP_stop_at_last_layers": 1})


def test_a_chat_with_open_webui(client, rendering):
    size = {"prompt": "a lake", "batch_size": 2, "width": 64, "height": 64}
    found = get(client, "options")
    assert client.post(f"{URL}/options", json=found | {"sd_model_checkpoint": get(client, "sd-models")[0]["title"]})
    sent = size | {"steps": 4, "negative_prompt": "fog"}
    assert len(client.post(f"{URL}/txt2img", json=sent).get_json()["images"]) == 2


def test_a_story_with_sillytavern(client, rendering):
    for path in ("options", "upscalers", "latent-upscale-modes", "sd-vae", "samplers", "schedulers", "sd-models"):
        get(client, path)
    assert client.post(f"{URL}/options", json={"sd_model_checkpoint": "demo"}).status_code == 200
    now = get(client, "progress")
    assert (now["progress"], now["state"]["job_count"]) == (0.0, 0)
    sent = {
        "prompt": "a lake", "negative_prompt": "", "sampler_name": "DPM++ 2M Karras", "scheduler": "karras", "steps": 4,
        "cfg_scale": 7, "width": 64, "height": 64, "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent",
        "hr_scale": 2, "hr_additional_steps": 0, "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": -1,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "", "forge_additional_modules": []},
        "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True,
        "do_not_save_grid": False, "do_not_save_samples": False,
    }  # fmt: skip
    assert len(client.post(f"{URL}/txt2img", json=sent).get_json()["images"]) == 1
    assert client.post(f"{URL}/interrupt", json={}).get_json() == {}
    client.post(f"{URL}/options", json={"sd_model_checkpoint": None})


@pytest.fixture(scope="module")
def keyed(home, tmp_path_factory):
    """The application of a farm with two keys."""
    keys = {"anns-long-key": "ann", "bobs-long-key": "bob"}
    with application(home, tmp_path_factory.mktemp("keyed"), port=0, api_keys=keys) as made:
        yield made


def test_the_key_is_the_password_of_any_user_and_here_alone(keyed):
    client = keyed.test_client()
    sent = client.get(f"{URL}/options", auth=("anybody", "anns-long-key"))
    assert sent.status_code == 200
    assert client.get(f"{URL}/options", headers={"Authorization": "Bearer anns-long-key"}).get_json() == sent.get_json()
    refused = client.get(f"{URL}/options", auth=("ann", "wrong"))
    assert (refused.status_code, refused.get_json()["error"]) == (401, "Unauthorized")
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    elsewhere = client.get("/api/v1/jobs", auth=("ann", "anns-long-key"))
    assert (elsewhere.status_code, elsewhere.headers["WWW-Authenticate"][:6]) == (401, "Bearer")


def test_everybody_has_options_and_progress_of_their_own(keyed):
    client, services = keyed.test_client(), keyed.extensions["stepfarm"]
    ann, bob = ("", "anns-long-key"), ("", "bobs-long-key")
    ann_herself = Principal("ann", Role.USER)
    assert client.post(f"{URL}/options", json={"CLIP_stop_at_last_layers": 2}, auth=ann).status_code == 200
    told = [client.get(f"{URL}/options", auth=who).get_json()["CLIP_stop_at_last_layers"] for who in (ann, bob)]
    assert told == [2, 1]
    job = jobs.submit(services, ann_herself, {"prompt": "sea"}, door=options.DOOR).job
    told = [client.get(f"{URL}/progress", auth=who).get_json()["state"]["job_count"] for who in (ann, bob)]
    assert told == [1, 0]
    client.post(f"{URL}/interrupt", auth=bob)
    assert not jobs.state(services, ann_herself, job.id).is_final


def test_a_chat_with_librechat_which_has_no_header_of_its_own(keyed, monkeypatch):
    services = keyed.extensions["stepfarm"]
    monkeypatch.setattr(services.tickets, "publish", InstantWorker(services))
    sent = {
        "prompt": "a lake", "negative_prompt": "fog", "cfg_scale": 4.5, "steps": 22, "width": 64, "height": 64,
    }  # fmt: skip
    answer = keyed.test_client().post(f"{URL}/txt2img", json=sent, auth=("user", "bobs-long-key")).get_json()
    info = json.loads(answer["info"])
    assert "Steps: 22" in info["infotexts"][0]
    assert isinstance(info["seed"], int)
