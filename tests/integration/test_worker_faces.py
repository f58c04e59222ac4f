"""The real card of a worker restores faces, with a small network of a known architecture."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from shared.db.sessions import transact
from shared.infotext.files import POSTPROCESSING
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
