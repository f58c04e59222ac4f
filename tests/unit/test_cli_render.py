"""`farm render`: what its options ask the farm for, and the files that it sends along."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import httpx
import pytest
from typer.testing import CliRunner

from cli import main as cli
from cli import render, render_request
from client.client import Client
from client.errors import NotRunning, Refused, Unavailable
from shared.errors import FarmError

UPLOADS, JOBS = "/api/v1/uploads", "/api/v1/jobs"


class Farm:
    """A farm that takes what it is sent and renders at once."""

    def __init__(self) -> None:
        self.uploaded: list[bytes] = []
        self.asked: list[dict[str, object]] = []
        self.state = "succeeded"
        self.early = 0  # submissions before it knows its models
        self.lost = 0  # answers to submissions
        self.keys: set[str] = set()
        self.notes: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.content == b"no picture":
            message = "is not a picture of a format that the farm reads"
            problem = {"field": "file", "message": message, "accepted": "a PNG"}
            return httpx.Response(422, json={"detail": "The picture is not a picture.", "errors": [problem]})
        if request.url.path == UPLOADS:
            self.uploaded.append(request.content)
            return httpx.Response(201, json={"id": f"{len(self.uploaded)}" * 64, "width": 8, "height": 8, "bytes": 1})
        if request.method == "POST" and self.early:
            self.early -= 1
            return httpx.Response(503, json={"detail": "The farm is still reading its models."})
        if request.method == "POST":
            self.asked.append(json.loads(request.content))
            self.keys.add(request.headers["Idempotency-Key"])
        if request.method == "POST" and self.lost:
            self.lost -= 1
            raise httpx.ReadError("reset")
        if request.url.path.endswith("picture.webp"):
            return httpx.Response(200, content=b"a picture")
        links = {"picture": f"{JOBS}/17/images/0/picture.webp"}
        image = {"index": 0, "seed": 5, "state": "succeeded", "links": links, "reason": None}
        job = {"id": 17, "state": self.state, "progress": 1.0, "images": [image], "links": {"page": "/jobs/17"}}
        job |= {"notes": self.notes, "position": None, "counts": {"succeeded": 1}}
        return httpx.Response(200, json=job)


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Farm:
    made = Farm()

    def joined(*_: object) -> Client:
        return Client("http://127.0.0.1:8321", transport=httpx.MockTransport(made), patience_seconds=0)

    monkeypatch.setattr(render, "joined", joined)
    return made


def run(*arguments: str, status: int = 0) -> str:
    answer = CliRunner().invoke(cli.app, ["render", *arguments], catch_exceptions=False)
    assert answer.exit_code == status, answer.output
    return answer.output


def test_prompt_alone_asks_for_nothing_else(farm, tmp_path):
    run("a lake", "--out", str(tmp_path))
    assert farm.asked == [{"prompt": "a lake"}]


def test_every_option_sets_its_parameter(farm, tmp_path):
    options = {
        "negative": "fog", "checkpoint": "demo", "vae": "none", "size": "512x768", "steps": "30", "cfg": "5.5",
        "sampler": "DPM++ 2M", "schedule": "karras", "seed": "-1", "count": "2", "clip-skip": "2", "tiling": "x",
        "format": "webp", "hires": "1.5", "hires-upscaler": "Lanczos", "hires-steps": "9", "hires-denoising": "0.5",
        "denoising": "0.6", "resize": "crop", "mask-blur": "2", "mask-content": "fill", "variation": "0.3",
        "variation-seed": "4", "refiner": "other", "refiner-at": "0.7", "original-size": "1500x1001",
        "crop": "64,0", "target-size": "1024x768", "style": "ink", "out": str(tmp_path),
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    run(
        "a lake",
        *words,
        "--style",
        "night",
        "--mask-invert",
        "--only-masked",
        "--exact",
        "--film",
        "--sdxl-clip-l-skip",
    )
    mask = {"blur": 2.0, "content": "fill", "invert": True, "area": "only masked"}
    assert farm.asked == [
        {
            "prompt": "a lake", "negative_prompt": "fog", "styles": ["ink", "night"], "checkpoint": "demo",
            "vae": "none", "width": 512, "height": 768, "steps": 30, "cfg_scale": 5.5, "sampler": "DPM++ 2M",
            "schedule": "karras", "seed": -1, "count": 2, "clip_skip": 2, "tiling": "x", "exact": True, "film": True,
            "format": "webp", "hires": {"scale": 1.5, "upscaler": "Lanczos", "steps": 9, "denoising": 0.5},
            "img2img": {"denoising": 0.6, "resize_mode": "crop", "mask": mask},
            "noise": {"variation_strength": 0.3, "variation_seed": 4},
            "refiner": {"checkpoint": "other", "switch_at": 0.7},
            "original_size": {"width": 1500, "height": 1001}, "crop": {"left": 64, "top": 0},
            "target_size": {"width": 1024, "height": 768}, "sdxl_clip_l_skip": True,
        }
    ]  # fmt: skip


def test_adapters_become_tags_behind_the_prompt(farm, tmp_path):
    run("a lake", "--lora", "ink:0.8", "--lora", "style/wash", "--hypernet", "haze:0.5", "--out", str(tmp_path))
    assert farm.asked == [{"prompt": "a lake <lora:ink:0.8> <lora:style/wash> <hypernet:haze:0.5>"}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ink:loud", "'loud' is not a number"), ("ink:99", "from -10 to 10"), ("", "is not a name and a weight"),
        ("ink> <lora:x", "is not a name and a weight"), ("ink#", "is not a name and a weight"),
    ],
)  # fmt: skip
def test_an_adapter_that_cannot_be_read_is_refused_before_anything_is_asked(farm, text, reason):
    answer = run("a lake", "--lora", text, status=2)
    assert reason in " ".join(answer.split())
    assert farm.asked == []


@pytest.mark.parametrize("option", ["--original-size=1024", "--target-size=1024,768", "--crop=64x0", "--crop=-1,0"])
def test_size_in_another_form_is_refused_before_anything_is_asked(farm, option):
    answer = run("a lake", option, status=2)
    assert "must be " in answer
    assert farm.asked == []


def test_terms_are_sent_beside_the_parameters_with_their_zone(farm, tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    instants = ("--expires", "2030-01-31T03:00", "--hold-until", "2030-01-31T03:00Z")
    queue = ("--pool", "large", "--priority", "-3", "--urgent")
    run("a lake", *instants, "--hold-behind", "12", *queue, "--out", str(tmp_path))
    monkeypatch.undo()
    time.tzset()

    [asked] = farm.asked
    assert asked["expires_at"] == "2030-01-31T03:00:00+09:00"
    assert datetime.fromisoformat(asked["hold_until"]) == datetime(2030, 1, 31, 3, tzinfo=UTC)
    assert (asked["hold_behind"], asked["pool"], asked["priority"], asked["urgent"]) == (12, "large", -3, True)


def test_job_that_is_held_by_hand_is_not_waited_for(farm, tmp_path):
    farm.state = "held"
    output = run("a lake", "--hold", "--out", str(tmp_path))
    assert farm.asked == [{"prompt": "a lake", "hold": True}]
    assert "farm release 17" in output
    assert list(tmp_path.iterdir()) == []


def test_instant_that_is_none_is_refused_before_anything_is_asked(farm):
    output = run("a lake", "--expires", "tomorrow", status=2)
    assert "is not an instant" in output
    assert farm.asked == []


def test_pictures_are_uploaded_and_named_by_their_ids(farm, tmp_path):
    source, mask = tmp_path / "source.png", tmp_path / "mask.png"
    source.write_bytes(b"source")
    mask.write_bytes(b"mask")
    run("a lake", "--init", str(source), "--mask", str(mask), "--denoising", "0.4", "--out", str(tmp_path))
    assert farm.uploaded == [b"source", b"mask"]
    assert farm.asked[0]["img2img"] == {"picture": "1" * 64, "mask": {"picture": "2" * 64}, "denoising": 0.4}


def test_control_nets_are_named_with_their_pictures_by_one_option_each(farm, tmp_path):
    edges = tmp_path / "ed,ges.png"
    edges.write_bytes(b"edges")
    first = f"model=canny [0123456789],picture={edges},weight=0.8,mode=prompt"
    second = f"model=a, b, picture={'e' * 64},preprocessor=canny,threshold_a=50"
    run("a lake", "--control", first, "--control", second, "--param", "controlnet.1.end=0.5", "--out", str(tmp_path))
    assert farm.uploaded == [b"edges"]
    assert farm.asked[0]["controlnet"] == [
        {"model": "canny [0123456789]", "picture": "1" * 64, "weight": 0.8, "mode": "prompt"},
        {"model": "a, b", "picture": "e" * 64, "preprocessor": "canny", "threshold_a": 50, "end": 0.5},
    ]


def test_ip_adapters_are_named_with_their_pictures_by_one_option_each(farm, tmp_path):
    cat, sea = tmp_path / "ca,t.png", tmp_path / "sea.png"
    cat.write_bytes(b"cat")
    sea.write_bytes(b"sea")
    options = [
        f"ip-adapter_sd15 [0123456789]={cat}:0.6",
        f"plus={sea},{'e' * 64}:1.5,start=0.2,end=0.8,image_encoder=vit-h [0123456789]",
        f"model=plus,pictures={cat},pictures={sea}, {sea},weight=0.4",
    ]
    given = [part for one in options for part in ("--ip-adapter", one)]
    run("a lake", *given, "--param", "ip_adapters.2.end=0.5", "--out", str(tmp_path))
    assert farm.uploaded == [b"cat", b"sea", b"cat", b"sea", b"sea"]
    ids = [str(number) * 64 for number in range(1, 6)]
    assert farm.asked[0]["ip_adapters"] == [
        {"model": "ip-adapter_sd15 [0123456789]", "pictures": ids[:1], "weight": 0.6},
        {
            "model": "plus",
            "pictures": [ids[1], "e" * 64],
            "weight": 1.5,
            "start": 0.2,
            "end": 0.8,
            "image_encoder": "vit-h [0123456789]",
        },
        {"model": "plus", "pictures": ids[2:], "weight": 0.4, "end": 0.5},
    ]


def test_a_control_net_has_the_same_short_form(farm, tmp_path):
    edges = tmp_path / "edges.png"
    edges.write_bytes(b"edges")
    run("a lake", "--control", f"canny={edges}:0.8,mode=prompt", "--control", f"depth={edges}", "--out", str(tmp_path))
    assert farm.asked[0]["controlnet"] == [
        {"model": "canny", "picture": "1" * 64, "weight": 0.8, "mode": "prompt"},
        {"model": "depth", "picture": "2" * 64, "weight": 1},
    ]


def test_a_misspelt_field_of_an_item_is_left_to_the_farm_to_refuse(farm, tmp_path):
    run("a lake", "--control", f"modle=canny,picture={'e' * 64}", "--out", str(tmp_path))
    assert farm.asked[0]["controlnet"] == [{"modle": "canny", "picture": "e" * 64}]


@pytest.mark.parametrize("text", ["plus", "", "=5", "plus=nowhere.png", "plus=nowhere.png,too.png:1"])
def test_an_ip_adapter_that_cannot_be_understood_is_refused_before_anything_is_asked(farm, text):
    with pytest.raises(FarmError, match=r"NAME=VALUE|nowhere\.png is neither"):
        run("a lake", "--ip-adapter", text)
    assert farm.asked == []


@pytest.mark.parametrize("text", ["canny", "", "=5", "model=canny,picture=nowhere.png"])
def test_a_control_net_that_cannot_be_understood_is_refused_before_anything_is_asked(farm, text):
    with pytest.raises(FarmError, match=r"NAME=VALUE|nowhere\.png is neither"):
        run("a lake", "--control", text)
    assert farm.asked == []


def test_file_keeps_the_suffix_of_its_format(farm, tmp_path):
    output = run("a lake", "--out", str(tmp_path))
    saved = tmp_path / "00017-0-seed5.webp"
    assert saved.read_bytes() == b"a picture"
    assert str(saved) in output


def test_file_that_the_farm_refuses_is_named(farm, tmp_path):
    (tmp_path / "source.png").write_bytes(b"no picture")
    with pytest.raises(Refused, match=r"source\.png cannot be used") as caught:
        run("a lake", "--init", str(tmp_path / "source.png"), "--out", str(tmp_path))
    assert caught.value.fields[0].field == str(tmp_path / "source.png")
    assert farm.asked == []


def test_file_that_is_not_there_is_named_before_anything_is_asked(farm, tmp_path):
    output = run("a lake", "--init", str(tmp_path / "away.png"), status=2)
    assert "away.png" in output.replace("\n", "")
    assert farm.asked == []


def test_any_other_parameter_is_set_by_its_dotted_name(farm, tmp_path):
    given = ["sampling.eta=0.5", "hires.prompt=12", "guidance.skip_all_steps=true", 'styles=["a"]', "nonsense=x=y"]
    run("a lake", *(word for pair in given for word in ("--param", pair)), "--out", str(tmp_path))
    assert farm.asked == [
        {
            "prompt": "a lake", "sampling": {"eta": 0.5}, "hires": {"prompt": "12"},
            "guidance": {"skip_all_steps": True}, "styles": ["a"], "nonsense": "x=y",
        }
    ]  # fmt: skip


def test_a_text_that_schedules_the_job_stays_a_text():
    pairs = ["pool=7", "hold_until=2030", "priority=5", "hold=true", "hold_behind=null"]
    assert render_request.read_pairs(pairs) == {
        "pool": "7", "hold_until": "2030", "priority": 5, "hold": True, "hold_behind": None,
    }  # fmt: skip


@pytest.mark.parametrize("pair", ["steps", "=5", " =5", ""])
def test_parameter_without_a_name_or_a_value_is_refused(pair):
    with pytest.raises(FarmError, match="must be NAME=VALUE"):
        render_request.read_pairs([pair])


def test_group_that_is_given_whole_and_in_part_contradicts_itself():
    with pytest.raises(FarmError, match=r"hires is given as a whole and by hires\.scale"):
        render_request.nested({"hires": None, "hires.scale": 2.0})


def test_help_fits_a_terminal_of_eighty_columns_and_has_sections():
    output = CliRunner().invoke(cli.app, ["render", "--help"], terminal_width=80).output
    assert max(map(len, output.splitlines())) <= 80
    headings = [line for line in output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Arguments:", "Settings:", "img2img & inpainting: start from a picture, or repaint a part of one:",
        "ControlNet: follow the edges, depths or poses of a picture:",
        "IP-Adapter: follow what pictures show, and their style:",
        "Hires: a second pass at a larger size:", "Restore faces: sharpen the faces of the finished picture:",
        "Guidance: emphasis, clip skip, guiding less:",
        "Noise & variation: a picture close to another seed's, seeds of other programs:",
        "Refiner & VAE: a second checkpoint for the end, another decoder:",
        "SDXL: original size, crop, target size, clip skip:",
        "Output: file format, film, seamless tiles, exactness:", "Queue: which workers, and what goes first:",
        "When: a deadline, or a reason to wait:",
        "Axes:", "Adapters: files that change what a checkpoint draws:", "Other parameters:", "Pictures:", "Options:",
    ]  # fmt: skip


def test_submission_whose_answer_is_lost_is_sent_once_more_with_its_key(farm, monkeypatch, tmp_path):
    monkeypatch.setattr(render, "_PAUSE_SECONDS", 0.0)
    farm.lost = 1
    run("a lake", "--out", str(tmp_path))
    assert (len(farm.asked), len(farm.keys)) == (2, 1)
    farm.lost = 2
    with pytest.raises(NotRunning):
        run("a lake", "--out", str(tmp_path))
    assert (len(farm.asked), len(farm.keys)) == (4, 2)


def test_farm_that_does_not_know_its_models_yet_is_waited_for(farm, monkeypatch, tmp_path):
    monkeypatch.setattr(render, "_PAUSE_SECONDS", 0.0)
    farm.early = 2
    told = run("a hill", "--out", str(tmp_path))
    assert told.count("The farm is still reading its models. Waiting.") == 1
    assert len(farm.asked) == 1
    farm.early = 1
    assert "Waiting" not in run("a hill", "--out", str(tmp_path), "--json")
    monkeypatch.setattr(render, "_PATIENCE_SECONDS", -1.0)
    farm.early = 1
    with pytest.raises(Unavailable):  # told by the command as any error of the farm
        run("a hill", "--out", str(tmp_path))


def test_size_that_was_chosen_is_told(farm, tmp_path):
    farm.notes = ["Rendered at 624 × 416: the proportions of the source picture."]
    assert "Rendered at 624 × 416" in run("a hill", "--out", str(tmp_path))
    assert json.loads(run("a hill", "--out", str(tmp_path), "--json"))["job"]["notes"] == farm.notes
