"""A submission as the database sees it: how often it asks, and that all of it is recorded or nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import insert

from shared.db.sessions import transact
from shared.db.tables import ModelFile
from shared.models.catalogue import Catalogue
from tests.support.statements import statements

JOBS = "/api/v1/jobs"
FILES = 5_000
EVERY_NAME = {
    "checkpoint": "model-2500",
    "vae": "model-3100",
    "refiner": {"checkpoint": "model-0001"},
    "hires": {"checkpoint": "model-0002", "scale": 1.5},
}
MISSPELT = {
    "checkpoint": "modle-25000",
    "vae": "modle-31000",
    "refiner": {"checkpoint": "modle-00010"},
    "hires": {"checkpoint": "modle-00020"},
}


@pytest.fixture
def many_files(sessions) -> None:
    """A models folder as large as collections become: 3,000 checkpoints, 500 VAEs, 1,500 files of other kinds."""
    kinds = ["checkpoint"] * 3000 + ["vae"] * 500 + ["other"] * 1500
    rows = [
        {
            "path": f"folder-{number % 50}/model-{number:04}.safetensors",
            "name": f"model-{number:04}",
            "kind": kind,
            "architecture": "sd1",
            "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
            "size": 2**31,
            "mtime_ns": 1,
            "native_size": 64,
            "usable": kind != "other",
            "reason": "is a LoRA" if kind == "other" else None,
        }
        for number, kind in enumerate(kinds)
    ]
    assert len(rows) == FILES
    transact(sessions, lambda session: session.execute(insert(ModelFile), rows))


@pytest.fixture
def asks(services):
    """The statements of one request that read the model files."""

    def ask(request: Callable[[], object]) -> list[str]:
        with statements(services.sessions) as sent:
            request()
        return [one for one in sent if "model_files" in one]

    return ask


def seconds(work: Callable[[], object]) -> float:
    """The least time on the processor of several tries."""

    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(4))


@pytest.mark.parametrize(("asked", "status"), [({}, 202), (EVERY_NAME, 202), (MISSPELT, 422)])
def test_a_submission_reads_the_model_files_once(client, asks, many_files, asked, status):
    answers = []
    assert len(asks(lambda: answers.append(client.post(JOBS, json={"steps": 2, **asked})))) == 1
    assert answers[0].status_code == status


@pytest.mark.parametrize("path", ["/", "/api/v1/checkpoints", "/size?source=" + "0" * 64])
def test_what_shows_the_model_files_reads_them_once(client, asks, many_files, path):
    assert len(asks(lambda: client.get(path))) == 1


def test_a_picture_of_another_program_has_its_names_looked_up_in_one_reading(client, asks, many_files):
    text = "a cat\nSteps: 12, Seed: 17, Size: 64x64, Model: modle-25, VAE: modle-31, Sampler: none such"
    picture, info, answers = BytesIO(), PngInfo(), []
    info.add_itxt("parameters", text)
    Image.new("RGB", (8, 8)).save(picture, "PNG", pnginfo=info)
    assert len(asks(lambda: answers.append(client.post("/api/v1/png-info", data=picture.getvalue())))) == 1
    assert len(answers[0].get_json()["left_out"]) >= 2


def test_a_submission_takes_little_longer_than_reading_so_many_files(client, sessions, many_files):
    read = seconds(lambda: transact(sessions, Catalogue.read))
    assert seconds(lambda: client.post(JOBS, json={"steps": 2, **EVERY_NAME})) < 3 * read + 0.1
    assert seconds(lambda: client.post(JOBS, json={"steps": 2, **MISSPELT})) < 10 * read + 0.1
