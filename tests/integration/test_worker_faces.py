"""The real card of a worker restores faces, with a small network of a known architecture."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.db.sessions import transact
from shared.infotext.files import POSTPROCESSING
from shared.infotext.reader import read
from shared.media.storage import Storage, upload_key
from shared.models import recording
from shared.models.model_set import ModelSet
from shared.models.scan import scan
from shared.params.render import RenderParams
from shared.queue.claim import Claim
from tests.support import faces
from tests.support.checkpoints import NATIVE_SIZE, inspected, write_tiny
from tests.support.rendering import Seen, claim_of
from worker.in_flight import Cancellation
from worker.render.engine_card import EngineCard
from worker.render.outputs import outputs

SHA256 = "c" * 64
SIDE = 80


@pytest.fixture
def files(settings, sessions) -> dict[str, str]:
    """The SHA-256 of each model file, by name."""
    write_tiny(settings.models / "tiny.safetensors")
    faces.write_small(settings.models / "facerestore_models/RestoreFormer.safetensors")
    seen = scan(settings.models, [], inspected)
    transact(sessions, lambda session: recording.record(session, seen))
    return {one.name: one.sha256 for one in seen}


def made(card: EngineCard, claim: Claim):
    return card.render(claim, Seen().watch(claim), Cancellation())


def test_the_faces_of_a_stored_picture_are_restored_as_it_is_enlarged(card, files, settings):
    out = BytesIO()
    faces.astronaut(SIDE).save(out, "PNG")
    Storage(settings.storage).put(upload_key(SHA256), out.getvalue())
    wanted = {"pictures": [{"picture": SHA256}], "scale": 2.0}
    plain = made(card, claim_of(ModelSet(), RenderParams(upscale=wanted)))
    restorer = {"restorer": "RestoreFormer [0123456789]", "strength": 0.8}
    claim = claim_of(ModelSet(face_restorer=files["RestoreFormer"]), RenderParams(upscale=wanted | {"faces": restorer}))
    rendered = made(card, claim)
    changed = (rendered.pixels != plain.pixels).any(axis=2)
    left, top, right, bottom = (int(side * 2 * SIDE / 512) for side in faces.BOX)
    assert changed[top:bottom, left:right].mean() > 0.4
    changed[top - 1 : bottom + 1, left - 1 : right + 1] = False
    assert not changed.any()
    said = Image.open(BytesIO(outputs(claim, rendered)[0].data)).text[POSTPROCESSING]
    assert said.endswith("Postprocess RestoreFormer visibility: 0.8")


def test_a_render_without_a_face_is_the_same_with_a_restorer(card, files):
    params = RenderParams(
        prompt="sea", checkpoint="tiny", width=NATIVE_SIZE, height=NATIVE_SIZE, steps=2, seed=7,
        faces={"restorer": "RestoreFormer [0123456789]"},
    )  # fmt: skip
    models = ModelSet(checkpoint=files["tiny"], face_restorer=files["RestoreFormer"])
    plain = made(card, claim_of(ModelSet(checkpoint=files["tiny"]), params.model_copy(update={"faces": None})))
    assert np.array_equal(made(card, claim_of(models, params)).pixels, plain.pixels)


@pytest.mark.nightly
def test_a_stored_picture_with_a_restored_face_is_rendered_again_to_the_pixel(card, settings, sessions):
    """By the shipped checkpoint, whose VAE keeps the face: a picture that is hardly painted over, read back."""
    shipped = Path(__file__).parents[2] / "models/Stable-diffusion/scenes-v1.safetensors"
    for file in (shipped, shipped.with_suffix(".yaml")):
        shutil.copy(file, settings.models / file.name)
    faces.write_small(settings.models / "facerestore_models/RestoreFormer.safetensors")
    seen = {one.name: one for one in scan(settings.models, [], inspected)}
    transact(sessions, lambda session: recording.record(session, [*seen.values()]))
    out = BytesIO()
    faces.astronaut(256).save(out, "PNG")
    Storage(settings.storage).put(upload_key(SHA256), out.getvalue())
    models = ModelSet(checkpoint=seen["scenes-v1"].sha256, face_restorer=seen["RestoreFormer"].sha256)
    titles = {name: f"{name} [{one.sha256[:10]}]" for name, one in seen.items()}
    params = RenderParams(
        prompt="a portrait", checkpoint=titles["scenes-v1"], width=256, height=256, seed=7,
        img2img={"picture": SHA256, "denoising": 0.0}, faces={"restorer": titles["RestoreFormer"], "strength": 0.8},
    )  # fmt: skip

    def file(wanted: RenderParams) -> Image.Image:
        claim = claim_of(models, wanted)
        return Image.open(BytesIO(outputs(claim, made(card, claim))[0].data))

    stored, plain = file(params), file(params.model_copy(update={"faces": None}))
    found = read(stored.text["parameters"])
    assert found.left_out == ()
    again = RenderParams(**found.params)
    assert again.faces == params.faces
    assert np.array_equal(np.asarray(file(again)), np.asarray(stored))
    assert not np.array_equal(np.asarray(plain), np.asarray(stored))
