"""What a picture's file says about itself, over HTTP."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from shared.db.tables import Job, ModelFile
from shared.infotext.reader import read
from shared.infotext.writer import text
from shared.params.render import RenderParams
from worker.encode import picture

PIXELS = np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8)
FOREIGN = """a cat
Negative prompt: bad
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.0, Seed: 43, Face restoration: CodeFormer, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, RNG: CPU, Version: v1.5.1"""


@pytest.fixture
def ask(client):
    """Sends a file in a form, and returns the answer."""

    def send(data: bytes, name: str = "a.png") -> Any:
        return client.post("/api/v1/png-info", data={"file": (BytesIO(data), name)})

    return send


@pytest.fixture
def checkpoint(checkpoint_factory):
    return checkpoint_factory("demo", native_size=64)


@pytest.fixture
def job(client, checkpoint):
    """A job as it was admitted."""
    asked = {"prompt": "a lake\nat dawn", "sampler": "DPM++ 2M", "schedule": "karras", "seed": 7, "clip_skip": 2}
    return client.post("/api/v1/jobs", json=asked).get_json()


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_picture_of_the_farm_can_be_asked_for_again(client, ask, job, form):
    params = RenderParams.from_stored(job["params"]).model_copy(update={"format": form})
    written = text(params, version="1")
    answer = ask(picture(PIXELS, written, form)).get_json()
    assert answer["text"] == written
    assert answer["left_out"] == []
    again = client.post("/api/v1/jobs", json=answer["params"]).get_json()
    assert RenderParams.from_stored(again["params"]) == params


def test_a_picture_of_another_program_is_read_as_far_as_it_goes(client, ask, checkpoint):
    answer = ask(picture(PIXELS, FOREIGN, "png")).get_json()
    assert answer["text"] == FOREIGN
    assert answer["params"]["schedule"] == "karras"
    assert "checkpoint" not in answer["params"]
    assert "faces" not in answer["params"]
    assert "v1-5-pruned-emaonly" in answer["left_out"][0]
    assert answer["left_out"][1] == "faces.restorer: There is no face restorer 'CodeFormer'"
    assert client.post("/api/v1/jobs", json=answer["params"]).status_code == 202


def test_a_source_that_nobody_uploaded_is_left_out(ask, job):
    painted = RenderParams.from_stored(job["params"] | {"img2img": {"picture": "a" * 64}})
    answer = ask(picture(PIXELS, text(painted, version="1"), "png")).get_json()
    assert "img2img" not in answer["params"]
    assert answer["left_out"][0].startswith("img2img.picture: ")


def test_a_farm_without_checkpoints_still_reads(ask):
    answer = ask(picture(PIXELS, FOREIGN, "png")).get_json()
    assert answer["params"]["seed"] == 43


def test_the_file_may_be_the_body(client):
    answer = client.post("/api/v1/png-info", data=picture(PIXELS, FOREIGN, "webp"), content_type="image/webp")
    assert answer.get_json()["text"] == FOREIGN


def test_a_picture_without_parameters_has_none(ask):
    assert ask(picture(PIXELS, "", "jpeg")).get_json() == {"text": "", "params": {}, "left_out": []}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that claims a size, whatever is in it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


WHOLE = picture(PIXELS, FOREIGN, "png")
BOMB = zlib.compress(bytes(100_000_000))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"a cat", "is not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (WHOLE[:40], "is not a picture"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (picture(PIXELS, FOREIGN, "jpeg")[:700], "damaged"),
        (picture(PIXELS, FOREIGN, "webp")[:700], ""),
        (png(20_000, 20_000, chunk(b"IDAT", BOMB)), "pixels"),
        (png(8, 8, chunk(b"zTXt", b"parameters\x00\x00" + BOMB)), ""),
        (png(8, 8, chunk(b"iTXt", b"parameters\x00\x01\x00\x00\x00" + BOMB)), ""),
        (png(8, 8), "damaged"),
    ],
    ids=range(12),
)
def test_a_bad_file_is_refused_by_its_name(ask, data, told):
    answer = ask(data)
    assert answer.status_code == 422, answer.get_json()
    [error] = answer.get_json()["errors"]
    assert error["field"] == "file"
    assert told in error["message"]
    assert "PNG" in error["accepted"]


def test_a_form_without_a_file_is_refused(client):
    answer = client.post("/api/v1/png-info", data={"picture": "a"}, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "file"


def test_looking_submits_nothing(client, ask, checkpoint):
    ask(WHOLE)
    assert client.get("/api/v1/jobs").get_json()["jobs"] == []


# Tags: each finds its file again, whatever the file is called by now.


@pytest.fixture
def lora(checkpoint_factory):
    """Makes the row of a LoRA."""

    def make(name: str, sha256: str, **columns: object) -> None:
        columns = {"kind": "lora", "path": f"Lora/{name}.pt", "native_size": None, "details": {}} | columns
        checkpoint_factory(name, sha256=sha256, **columns)

    return make


@pytest.fixture
def read_again(client, ask, checkpoint, lora):
    """Reads the picture of a job with a tag, whose file may have another name by then."""
    lora("ink", "a" * 64)
    job = client.post("/api/v1/jobs", json={"prompt": "a boat <lora:ink:0.8>", "seed": 7}).get_json()
    assert job["hashes"] == {"lora:ink": "a" * 12}
    params = RenderParams.from_stored(job["params"])
    file = picture(PIXELS, text(params, version="1", hashes=job["hashes"]), "png")
    return lambda: ask(file).get_json()


@pytest.fixture
def adapters(client, sessions):
    """Submits parameters, and returns the files that their tags name."""

    def submit(params: dict[str, Any]) -> dict[str, str]:
        job = client.post("/api/v1/jobs", json=params).get_json()
        with sessions() as session:
            return session.get(Job, job["id"]).models["adapters"]

    return submit


@pytest.fixture
def files(sessions, lora):
    """Gives the LoRA `ink` another name, and adds others of some names."""

    def change(name: str, *others: str) -> None:
        with sessions.begin() as session:
            now = {"name": name, "path": f"Lora/{name}.pt"}
            session.execute(update(ModelFile).where(ModelFile.name == "ink").values(**now))
        for number, other in enumerate(others):
            lora(other, f"{number}" * 64, path=f"Lora/other/{other}.pt")

    return change


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (("ink",), "<lora:ink:0.8>"),
        (("pencil",), "<lora:pencil [aaaaaaaaaa]:0.8>"),
        (("pencil", "ink"), "<lora:pencil [aaaaaaaaaa]:0.8>"),
        (("ink", "ink"), "<lora:ink [aaaaaaaaaa]:0.8>"),
    ],
    ids=["as it was", "renamed", "renamed, and the name is another file's", "two of that name"],
)
def test_a_tag_means_the_file_that_its_picture_was_made_with(read_again, adapters, files, names, tag):
    files(*names)
    answer = read_again()
    assert (answer["params"]["prompt"], answer["left_out"]) == (f"a boat {tag}", [])
    assert [*adapters(answer["params"]).values()] == ["a" * 64]
    as_read = read(answer["text"]).params  # what `farm again` submits
    assert [*adapters(as_read).values()] == ["a" * 64]


def test_a_file_is_found_by_the_hash_of_its_metadata(ask, checkpoint, adapters, lora):
    lora("water", "b" * 64, details={"short_hash": "0123456789ab"})
    said = '<lora:ink:1>\nSteps: 4, Seed: 7, Size: 64x64, RNG: CPU, Lora hashes: "ink: 0123456789ab"'
    answer = ask(picture(PIXELS, said, "png")).get_json()
    assert answer["params"]["prompt"] == "<lora:water [bbbbbbbbbb]:1>"
    assert [*adapters(answer["params"]).values()] == ["b" * 64]


def test_tags_that_no_file_fits_are_left_out_and_the_rest_of_the_prompt_is_kept(ask, client, checkpoint, lora):
    lora("ink", "a" * 64)
    lora("xl", "b" * 64, architecture="sdxl")
    prompt = "a boat <lora:ink:0.5> <lora:gone:1> <lora:xl:1> <mood:blue>"
    said = f'{prompt}\nSteps: 4, Seed: 7, Size: 64x64, RNG: CPU, Lora hashes: "ink: 0123456789ab"'
    answer = ask(picture(PIXELS, said, "png")).get_json()
    assert answer["params"]["prompt"] == "a boat <lora:ink:0.5>   "
    notes = "; ".join(answer["left_out"])
    for note in (
        "mood blue: the prompt has a tag <mood:…>, which means nothing here",
        "prompt: lora ink: no file here has the hash 0123456789; ink [aaaaaaaaaa] is taken by its name",
        "prompt: lora gone: There is no LoRA 'gone'",
        "prompt: lora xl: xl (Stable Diffusion XL) does not fit demo (Stable Diffusion 1)",
    ):
        assert note in notes
    assert client.post("/api/v1/jobs", json=answer["params"]).status_code == 202


def test_many_tags_are_tried_no_longer_than_a_prompt_may_have(ask, checkpoint):
    said = f"{'<lora:gone:1>' * 9000}\nSteps: 4, Seed: 7, Size: 64x64, RNG: CPU"
    answer = ask(picture(PIXELS, said, "png")).get_json()
    assert answer["params"]["prompt"] == ""
    assert answer["left_out"][-1] == "prompt: 8984 more tags: a prompt has at most 16"


def test_embeddings_are_found_by_their_hashes_and_called_as_they_are_here(client, ask, checkpoint, lora):
    for name, sha256 in (("calm", "a" * 64), ("soft-v2", "b" * 64)):
        details = {"vectors": {"text_encoder": 2}}
        lora(name, sha256, kind="embedding", path=f"embeddings/{name}.pt", details=details)
    hashes = "calm: aaaaaaaaaaaa, Soft: bbbbbbbbbbbb, gone: cccccccccccc"
    said = f'calm soft (SOFT:1.2) software\nSteps: 4, Seed: 7, Size: 64x64, RNG: CPU, TI hashes: "{hashes}"'
    answer = ask(picture(PIXELS, said, "png")).get_json()
    assert answer["params"]["prompt"] == "calm soft-v2 (soft-v2:1.2) software"
    assert answer["left_out"] == [
        "embedding soft: it is called soft-v2 here", "embedding gone: no file here has the hash cccccccccc",
    ]  # fmt: skip
    job = client.post("/api/v1/jobs", json=answer["params"]).get_json()
    assert job["hashes"] == {"embedding:calm": "a" * 12, "embedding:soft-v2": "b" * 12}
    params = RenderParams.from_stored(job["params"])
    assert f'TI hashes: "calm: {"a" * 12}, soft-v2: {"b" * 12}"' in text(params, version="1", hashes=job["hashes"])
