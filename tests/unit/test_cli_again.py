"""`farm again`: what is sent, what is compared, what is said. A farm of paper answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cli import again
from cli.again import Difference
from client.client import Client
from shared.errors import FarmError, Refused
from shared.infotext.writer import text
from shared.media.decode import PictureReader
from shared.params.fields import FileFormat
from shared.params.render import RenderParams
from shared.settings import Settings
from worker.encode import picture

PIXELS = np.random.default_rng(7).integers(8, 240, (64, 64, 3), dtype=np.uint8)
PARAMS = RenderParams(prompt="a lake", checkpoint="demo [0123456789]", width=64, height=64, seed=7, film=True)
Answer = dict[str, Any]
Run = Callable[..., tuple[int, Answer]]


class PaperFarm:
    """Answers as a farm whose every job ends at once, with the picture `pixels`."""

    def __init__(self, pixels: np.ndarray, form: FileFormat = "png", state: str = "succeeded") -> None:
        self.asked: list[Answer] = []
        self.embeddings: list[Answer] = []
        self._file = picture(pixels, "", form)
        image = {"index": 0, "state": state, "reason": "the card is full", "links": {"picture": "/picture"}}
        self._job = {"id": 17, "state": state, "progress": 1.0, "images": [image], "position": None}
        self._job["links"] = {"page": "/jobs/17", "events": "/events"}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.asked.append(json.loads(request.content))
        if request.url.path == "/picture":
            return httpx.Response(200, content=self._file)
        if request.url.path == "/api/v1/models":
            assert request.url.params["kind"] == "embedding"
            return httpx.Response(200, json={"models": self.embeddings, "next": None})
        return httpx.Response(200, json=self._job)


class KeptReader(PictureReader):
    """Reads with the same process again after it was closed: to start one takes half a second."""

    def close(self) -> None:
        """Leave it to the end of the module."""


@pytest.fixture(scope="module")
def reader() -> Iterator[PictureReader]:
    reader = KeptReader(again._LIMITS)
    yield reader
    PictureReader.close(reader)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reader: PictureReader
) -> Run:
    """Runs `farm again` on a file, against a farm; returns the exit status and the answer."""
    monkeypatch.setattr(again, "PictureReader", lambda _: reader)

    def run(farm: PaperFarm, data: bytes) -> tuple[int, Answer]:
        @contextmanager
        def joined(*_: object) -> Iterator[Client]:
            with Client("http://127.0.0.1:1", transport=httpx.MockTransport(farm)) as client:
                yield client

        monkeypatch.setattr(again, "joined", joined)
        file = tmp_path / "a picture"
        file.write_bytes(data)
        status = again.again(Settings(home=tmp_path), file, as_json=True)
        return status, json.loads(capsys.readouterr().out)

    return run


def stored(form: FileFormat = "png", written: str = "") -> bytes:
    return picture(PIXELS, written or text(PARAMS, version="1"), form)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_same_picture_is_identical(run: Run, form: FileFormat):
    status, answer = run(PaperFarm(PIXELS, form), stored(form))
    assert (status, answer["identical"], answer["largest"], answer["values"]) == (0, True, 0, 64 * 64 * 3)


def test_what_the_file_says_is_submitted_but_for_its_film(run: Run):
    farm = PaperFarm(PIXELS)
    run(farm, stored())
    [asked] = farm.asked
    assert RenderParams(**asked) == PARAMS.model_copy(update={"film": False})


def test_a_picture_within_the_promise_is_told_so(run: Run):
    near = PIXELS + 1
    near[0, 0] += 7
    status, answer = run(PaperFarm(near), stored())
    assert (status, answer["identical"], answer["keeps_promise"]) == (0, False, True)
    assert (answer["largest"], answer["by_more_than_one"], answer["different"]) == (8, 3, 64 * 64 * 3)


@pytest.mark.parametrize(("changed", "by"), [(1, 9), (20, 2)])
def test_a_picture_beyond_the_promise_is_an_error(run: Run, changed: int, by: int):
    far = PIXELS.copy()
    far.reshape(-1)[:changed] += np.uint8(by)
    status, answer = run(PaperFarm(far), stored())
    assert (status, answer["keeps_promise"]) == (1, False)


def test_what_is_left_out_is_told(run: Run):
    written = text(PARAMS, version="1") + ", Token merging ratio: 0.5"
    _, answer = run(PaperFarm(PIXELS), stored(written=written))
    assert answer["left_out"] == ["Token merging ratio: 0.5"]


def learned(path: str, letter: str = "a", *, usable: bool = True) -> Answer:
    return {"path": path, "sha256": letter * 64 if usable else None, "usable": usable}


WITH_WORD = text(PARAMS, version="1", hashes={"embedding:Bad": "a" * 12})


@pytest.mark.parametrize(
    "here",
    [
        [learned("embeddings/bad.pt")],
        [learned("embeddings/easyneg.pt"), learned("embeddings/sd1/BAD.safetensors")],  # one content, two names
    ],
)
def test_a_picture_with_an_embedding_that_is_here_is_rendered(run: Run, here: list[Answer]):
    farm = PaperFarm(PIXELS)
    farm.embeddings = here
    status, _ = run(farm, stored(written=WITH_WORD))
    assert (status, len(farm.asked)) == (0, 1)


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        ([learned("embeddings/easyneg.pt")], "embedding bad, which is called easyneg here. Call its file bad, then"),
        (
            [learned("embeddings/bad.pt", "b")],
            f"embedding bad, but no usable file here has its hash {'a' * 10}. Put it",
        ),
        ([learned("embeddings/bad.pt", usable=False)], "embedding bad, but no usable file here has its hash"),
        ([], "embedding bad, but no usable file here has its hash"),
    ],
    ids=["renamed", "another file of that name", "damaged", "gone"],
)
def test_a_word_that_would_be_plain_text_is_an_error_before_anything_is_rendered(
    run: Run, here: list[Answer], reason: str
):
    farm = PaperFarm(PIXELS)
    farm.embeddings = here
    with pytest.raises(FarmError, match=reason):
        run(farm, stored(written=WITH_WORD))
    assert farm.asked == []


def test_a_picture_that_fails_is_told_with_its_reason(run: Run):
    with pytest.raises(FarmError, match=r"failed: the card is full .*/jobs/17"):
        run(PaperFarm(PIXELS, state="failed"), stored())


def test_a_picture_of_another_size_is_told(run: Run):
    with pytest.raises(FarmError, match="64x64 pixels, rendered again it has 64x32"):
        run(PaperFarm(PIXELS[:32]), stored())


def test_a_picture_without_parameters_is_told_before_a_farm_is_asked(run: Run):
    farm = PaperFarm(PIXELS)
    with pytest.raises(FarmError, match="has no parameters"):
        run(farm, stored(written="a lake"))
    assert farm.asked == []


def test_a_text_that_cannot_be_read_is_told_for_whose_it_is(run: Run):
    with pytest.raises(FarmError, match="has no parameters to render again: a text of ComfyUI: it cannot be read"):
        run(PaperFarm(PIXELS), stored(written='{"nodes": [], "links": []}'))


def test_a_file_that_is_no_picture_is_told(run: Run):
    with pytest.raises(Refused, match="is not a picture of a format"):
        run(PaperFarm(PIXELS), b"a lake")


def test_the_difference_in_words():
    near = PIXELS.copy()
    near[0, 0] += 3
    assert str(Difference.between(PIXELS, PIXELS)) == "identical: all 12,288 values"
    assert str(Difference.between(PIXELS, near)) == (
        "different: 3 of 12,288 values (0.02%), 3 by more than 1/255, at most 3/255: within what the farm promises"
    )
