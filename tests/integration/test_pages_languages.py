"""Every page in Chinese, as a person without scripts reads it: no English is left but names."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.browsing import look, page, send
from tests.support.page_texts import shown

_NAMES: Final = """
Stepfarm Discord Slack English API JSON HTTP ID SHA UTC PNG JPEG WebP BMP GIF URL CSV data zip px MB KB GB
NV VRAM Redis FARM MODELS Prompt Negative prompt Checkpoint VAE Sampler Schedule Seed CFG Steps Clip skip Tiling Hires
Upscaler img2img Mask Denoising Outpaint Outpainting Inpainting Variation seed strength Refiner Restore faces
Embedding Hypernetwork LoRA CLIP SDXL SD ControlNet IP Adapter Canny canny Tile tile Inpaint blur threshold
union Eta eta Churn sigma Rho NGMS SNR Zero terminal rescale ENSD torch CodeFormer GFPGANv refiner words null
automatic none Ctrl Enter Euler LMS Heun DPM DPM2 SDE DDIM PLMS UniPC LCM TCD Restart ER Karras Exponential
Polyexponential SGM Uniform KL Optimal Align Your Simple Normal Beta Turbo fast adaptive Stable Diffusion XL
Kandinsky IPNDM DEIS ancestral Latent nearest exact bicubic antialiased bilinear Lanczos Nearest None scale to
demo sd local host cpu default MiB GPU CPU CUDA
Original No norm Ignore Shift Delete ipadapter GFPGAN pth safetensors many nan name
"""
NAMES: Final = frozenset(_NAMES.split())
"""Words that are names in Chinese too, or stands behind a Chinese word to teach the English one."""
EXAMPLE: Final = "a painting of the desert at sunset, pyramids, sun"
_WORD: Final = re.compile(r"[A-Za-z]{2,}")
_STYLES: Final = re.compile(r'<fieldset class="field styles.*?</fieldset>', re.DOTALL)  # a file of the farm's own
_NOT_PAGES: Final = re.compile(r"/(api|static|livez|readyz|metrics|openapi|reference|size|choices)\b")
"""Elements that programs and scripts read, and the description of the API, which is English."""


@pytest.fixture
def app(standing_app: Flask) -> Flask:
    return standing_app


@pytest.fixture
def reader(client: FlaskClient) -> FlaskClient:
    """A browser that asks for Chinese."""
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "zh-CN,zh;q=0.9,en;q=0.5"
    return client


def english(markup: str) -> dict[str, str]:
    """Return the English words of a page that are not names, each with the text that it stands in."""
    texts = (text.replace(EXAMPLE, "") for text in shown(_STYLES.sub("", markup)))
    return {word: " ".join(text.split()) for text in texts for word in _WORD.findall(text) if word not in NAMES}


def test_no_page_has_english_left(app, reader):
    """Every address without a place in it, and the pages of a job."""
    rules = (rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ()) and not rule.arguments)
    paths = {rule.rule for rule in rules if not _NOT_PAGES.match(rule.rule)}
    job = send(reader, "/jobs", prompt=EXAMPLE, steps="4", seed="7", count="2", hires="on").location
    left = {}
    for path in sorted(paths | {job, f"{job}/delete", "/jobs?state=failed", "/models?search=nothing", "/nowhere"}):
        answer = reader.get(path)
        if answer.mimetype == "text/html" and answer.status_code != HTTPStatus.SEE_OTHER:
            left |= {f"{word} ({path})": text for word, text in english(answer.text).items()}
    assert left == {}


def test_refusals_are_in_chinese_beside_their_fields(reader):
    wrong = {"steps": "many", "cfg_scale": "nan", "seed": "9" * 40, "count": "0", "width": "130"}
    answer = send(reader, "/jobs", prompt=EXAMPLE, **wrong)
    assert answer.status_code == 422
    assert english(answer.text) == {}


def test_what_a_button_did_is_told_in_chinese(reader):
    job = send(reader, "/jobs", prompt=EXAMPLE).location
    send(reader, f"{job}/cancel")
    told = look(reader, job)
    assert "已取消1 张图片" in told.text
    assert english(told.markup) == {}


def test_a_language_that_was_chosen_is_kept_and_the_api_stays_english(reader):
    assert "Start one" in look(reader, "/jobs?state=failed&lang=en").text
    assert reader.get("/jobs").headers["Content-Language"] == "en"
    reader.get("/?lang=zh")
    problem = reader.post("/api/v1/jobs", json={"steps": "many"}).json
    assert "whole number" in problem["errors"][0]["message"]
    assert page(reader.get("/jobs")).all("html", lang="zh")


def test_caches_know_that_a_page_hangs_on_the_language(reader):
    chinese = reader.get("/jobs")
    assert {"accept-language", "cookie"} <= {name.lower() for name in chinese.vary}
    answer = reader.get("/jobs?lang=en", headers={"If-None-Match": chinese.headers["ETag"]})
    assert answer.status_code == 200
