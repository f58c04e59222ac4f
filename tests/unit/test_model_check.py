"""`farm models check`: what a file is, what it needs, and why it cannot be used; no file takes it down."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import main as cli
from cli import model_check
from shared.confined.process import Confined
from shared.models.folders import ModelFolders
from shared.models.inspection import Inspection
from shared.models.report import FileReport
from shared.settings import Settings
from tests.support.file_fates import FOUND
from worker import check
from worker.render.inspector import LIMITS, Inspector

XL = Inspection(
    "checkpoint",
    "sdxl",
    1024,
    has_vae=False,
    prediction="velocity",
    networks={"unet": {"float16": 2_500_000_000, "float32": 9}, "text_encoder_2": {"bfloat16": 700_000_000}},
)


def report(path: Path, found: Inspection | Exception = XL, name: str = "") -> FileReport:
    def inspect(_: Path) -> Inspection:
        if isinstance(found, Exception):
            raise found
        return found

    return FileReport.of(path, name or path.name, inspect)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "noob.safetensors"
    path.write_bytes(b"1234")
    return path


def test_a_checkpoint_says_what_its_weights_take_on_a_card_and_what_it_needs(file: Path):
    found = report(file)
    assert (found.usable, found.architecture, found.prediction, found.size) == (True, "sdxl", "velocity", 4)
    assert found.memory()["unet"] == {"float16": 5_000_000_018, "float32": 10_000_000_036}
    assert found.to_json()["total_memory_bytes"] == {"float16": 6_400_000_018, "float32": 12_800_000_036}
    assert found.needs == ("a VAE: noob.vae.safetensors beside it, or one that each job names",)
    file.with_name("noob.vae.pt").touch()
    assert report(file).needs == ()
    assert report(file, replace(XL, has_vae=True)).has_vae is True
    refiner = report(file, replace(XL, architecture="sdxl-refiner")).needs
    assert refiner == ("a checkpoint that it takes over from as the refiner, or a picture to start from",)
    assert report(file, Inspection("vae")).has_vae is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("reading it was given up: it takes longer than 300 s"), "reading it was given up: it takes"),
        (ChildProcessError("reading it ended its process twice (SIGBUS)"), "reading it ended its process twice"),
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
    ],
)
def test_a_file_that_cannot_be_looked_into_says_why(file: Path, error: OSError, reason: str):
    found = report(file, error)
    assert not found.usable
    assert (found.reason or "").startswith(reason)


def test_what_is_no_file_says_so(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert report(tmp_path / "pipe.ckpt").reason == "is a pipe, not a regular file"
    assert report(tmp_path / "gone.ckpt").reason == "is not there"
    (tmp_path / "loop.ckpt").symlink_to("loop.ckpt")
    assert (report(tmp_path / "loop.ckpt").reason or "").startswith("cannot be read: ")


def test_a_folder_may_ask_for_another_kind(file: Path):
    assert report(file, name="VAE/noob.safetensors").reason == "is a whole checkpoint, where a VAE should lie"


def test_a_file_that_ends_its_reader_is_answered_like_any_other(tmp_path: Path):
    inspector = Inspector(replace(LIMITS, seconds=20))
    inspector._child = Confined("tests.support.file_fates", LIMITS)
    names = ("dies", "fine", "gone\udcff")
    for name in names[:2]:
        (tmp_path / name).touch()
    questions = "".join(json.dumps({"path": str(tmp_path / name), "place": name}) + "\n" for name in names)
    answers = io.StringIO()
    check.answer(io.StringIO(questions), answers, inspector)
    dies, fine, gone = (json.loads(line)["report"] for line in answers.getvalue().splitlines())
    assert dies["reason"] == "reading it ended its process twice (SIGBUS)"
    assert (fine["usable"], fine["kind"]) == (True, FOUND["kind"])
    assert gone["reason"] == "is not there"


def test_a_reader_that_does_not_start_is_told_once(tmp_path: Path):
    inspector, answers = Inspector(), io.StringIO()
    inspector._child = Confined("tests.unit.nothing_there", LIMITS)
    (tmp_path / "x").touch()
    check.answer(io.StringIO(json.dumps({"path": str(tmp_path / "x"), "place": "x"})), answers, inspector)
    assert "did not start" in json.loads(answers.getvalue())["error"]


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    """Runs commands whose reader answers at once."""

    def asked(_: object, file: model_check._File) -> FileReport:
        found = Inspection("other", reason="is a LoRA: …") if "lora" in file.name else XL
        return FileReport.of(file.path, file.place, lambda _: found)

    monkeypatch.setattr(model_check, "_asked", asked)
    return CliRunner()


def test_people_read_that_a_checkpoint_is_for_inpainting_or_begins_from_noise_alone(file: Path):
    for found, words in (
        (replace(XL, is_inpainting=True), "predicts velocity, for inpainting, 1024 px"),
        (replace(XL, has_zero_terminal_snr=True), "predicts velocity, zero terminal SNR, 1024 px"),
    ):
        assert words in model_check._kind(report(file, found))


def test_people_read_what_each_file_is_and_programs_get_json(farm: CliRunner, file: Path, tmp_path: Path):
    lora = tmp_path / "lora.safetensors"
    told = farm.invoke(cli.app, ["models", "check", str(file)])
    assert told.exit_code == 0
    assert "noob.safetensors: can be used" in told.stdout
    assert "checkpoint, Stable Diffusion XL, predicts velocity, 1024 px, no VAE inside, 4 bytes" in told.stdout
    assert "needs a VAE" in told.stdout
    assert [line.split()[:2] for line in told.stdout.splitlines() if "U-Net" in line] == [["U-Net", "float16,"]]
    lora.touch()
    told = farm.invoke(cli.app, ["models", "check", str(tmp_path), "--json"])
    assert told.exit_code == 1
    body = json.loads(told.stdout)
    assert body["usable"] is False
    assert [(Path(one["path"]).name, one["reason"]) for one in body["files"]] == [
        ("lora.safetensors", "is a LoRA: …"),
        ("noob.safetensors", None),
    ]
    assert body["files"][1]["memory_bytes"]["text_encoder_2"] == {"float16": 1_400_000_000, "float32": 2_800_000_000}


def test_a_folder_without_model_files_is_told(farm: CliRunner, tmp_path: Path):
    told = farm.invoke(cli.app, ["models", "check", str(tmp_path)])
    assert told.exit_code == 1
    assert f"No model file lies in {tmp_path}." in " ".join(told.output.split())


def test_files_go_by_their_place_in_the_models_folder(tmp_path: Path):
    (tmp_path / "models" / "VAE").mkdir(parents=True)
    path = tmp_path / "models" / "VAE" / "x.pt"
    path.touch()
    settings = Settings(models=tmp_path / "models")
    for given in (path, path.parent):
        assert [file.place for file in model_check._files(given, settings.models)] == ["models/VAE/x.pt"]
    elsewhere = ModelFolders((tmp_path / "elsewhere",))
    assert [file.place for file in model_check._files(path, elsewhere)] == ["x.pt"]
    assert [file.place for file in model_check._files(path.parent, elsewhere)] == ["VAE/x.pt"]


@pytest.mark.nightly
def test_every_architecture_and_a_broken_file_are_told_apart_by_the_real_reader(
    small_file: Callable[[str], Path], tmp_path: Path, capsys
):
    names = ("sd1", "sd2", "sdxl", "sdxl-refiner", "sdxl-velocity")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(small_file("sdxl").read_bytes()[:-1000])
    files = [*map(small_file, names), torn]
    assert model_check.check(Settings(), files, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)["files"]
    assert [(one["architecture"], one["prediction"], one["usable"]) for one in found] == [
        ("sd1", "noise", True), ("sd2", "noise", True), ("sdxl", "noise", True), ("sdxl-refiner", "noise", True),
        ("sdxl", "velocity", True), (None, None, False),
    ]  # fmt: skip
    xl = found[2]
    assert xl["networks"].keys() == {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert {*xl["networks"]["unet"]} == {"float16"}
    assert xl["total_memory_bytes"]["float16"] == pytest.approx(xl["size"], rel=0.01)
    assert "download" in found[5]["reason"]


def test_a_process_of_the_worker_answers_for_each_file(tmp_path: Path, capsys):
    os.mkfifo(tmp_path / "pipe.ckpt")
    paths = [tmp_path / "pipe.ckpt", tmp_path / "gone.ckpt"]
    assert model_check.check(Settings(), paths, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)["files"]
    assert [one["reason"] for one in found] == ["is a pipe, not a regular file", "is not there"]


@pytest.mark.nightly
def test_the_demo_checkpoint_and_a_broken_file_are_told_apart_by_the_real_reader(tmp_path: Path, capsys):
    demo = Path(__file__).parents[2] / "models" / "Stable-diffusion" / "scenes-v1.safetensors"
    (tmp_path / "torn.safetensors").write_bytes(demo.read_bytes()[:300_000])
    assert model_check.check(Settings(), [demo, tmp_path / "torn.safetensors"], as_json=True) == 1
    fine, torn = json.loads(capsys.readouterr().out)["files"]
    assert (fine["usable"], fine["architecture"], set(fine["networks"])) == (
        True, "sd1", {"unet", "vae", "text_encoder"},
    )  # fmt: skip
    assert fine["total_memory_bytes"]["float16"] == pytest.approx(fine["size"], rel=0.01)
    assert (torn["usable"], torn["kind"]) == (False, "checkpoint")
