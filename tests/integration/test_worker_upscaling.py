"""The real card of a worker enlarges pictures: by themselves, and between two passes."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from shared.db.sessions import transact
from shared.errors import RenderError
from shared.infotext.files import POSTPROCESSING
from shared.media.storage import Storage, upload_key
from shared.models import recording
from shared.models.model_set import ModelSet
from shared.models.scan import scan
from shared.params.render import RenderParams
from shared.params.upscale import Upscale, UpscalePicture
from shared.queue.claim import Claim
from tests.support import upscalers
from tests.support.checkpoints import NATIVE_SIZE, inspected, write_tiny
from tests.support.rendering import Seen, claim_of
from worker.engine.upscaling import architectures
from worker.in_flight import Cancellation
from worker.render.engine_card import EngineCard
from worker.render.outputs import outputs

SHA256 = "c" * 64


@pytest.fixture
def files(settings, sessions) -> dict[str, str]:
    """The SHA-256 of each model file, by name."""
    write_tiny(settings.models / "tiny.safetensors")
    for name in ("4x-sharp", "4x-soft"):
        path = settings.models / f"ESRGAN/{name}.pth"
        upscalers.write(path, upscalers.weights("Compact", seed=len(name)), "params")
    seen = scan(settings.models, [], inspected)
    transact(sessions, lambda session: recording.record(session, seen))
    return {one.name: one.sha256 for one in seen}


@pytest.fixture
def source(settings) -> np.ndarray:
    """A stored picture [h, w, 4] that is half transparent in its left half."""
    pixels = np.random.default_rng(3).integers(0, 255, (10, 12, 4)).astype(np.uint8)
    pixels[:, :, 3] = np.where(np.arange(12) < 6, 128, 255)
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    Storage(settings.storage).put(upload_key(SHA256), out.getvalue())
    return pixels


def enlarged(card: EngineCard, models: ModelSet, **options) -> tuple[Claim, np.ndarray]:
    kept = UpscalePicture(picture=SHA256, parameters="a cat\nSteps: 4")
    claim = claim_of(models, RenderParams(upscale=Upscale(pictures=(kept,), **options)))
    return claim, card.render(claim, Seen().watch(claim), Cancellation()).pixels


def test_a_picture_is_enlarged_by_the_network_and_keeps_its_transparency(card, files, source):
    models = ModelSet(upscaler=files["4x-sharp"])
    claim, made = enlarged(card, models, scale=4.0, upscaler="4x-sharp [0123456789]")
    network = architectures.built(upscalers.weights("Compact", seed=len("4x-sharp")))
    with torch.inference_mode():
        whole = network(torch.from_numpy(source[:, :, :3]).permute(2, 0, 1)[None] / 255)[0]
    assert made.shape == (40, 48, 4)
    assert np.abs(made[:, :, :3] - whole.mul(255).round().permute(1, 2, 0).numpy()).max() <= 1
    assert abs(int(made[20, 5, 3]) - 128) <= 1
    assert made[20, 40, 3] == 255
    assert card.resident() == [files["4x-sharp"]]
    picture = Image.open(BytesIO(outputs(claim, card.render(claim, Seen().watch(claim), Cancellation()))[0].data))
    assert picture.mode == "RGBA"
    assert picture.text["parameters"] == "a cat\nSteps: 4"
    assert picture.text[POSTPROCESSING] == "Postprocess upscale by: 4, Postprocess upscaler: 4x-sharp"


def test_a_second_upscaler_is_mixed_in(card, files, source):
    names = {"upscaler": "4x-sharp [0123456789]", "second": "4x-soft [0123456789]", "scale": 2.0}
    both = ModelSet(upscaler=files["4x-sharp"], second_upscaler=files["4x-soft"])
    first, second, mixed = (
        enlarged(card, both, **names, second_share=share)[1][:, :, :3].astype(int) for share in (0.0, 1.0, 0.25)
    )
    assert np.abs(first - second).max() > 5
    assert np.abs(mixed - (0.75 * first + 0.25 * second)).max() <= 1


def test_lanczos_needs_no_model(card, source):
    _, made = enlarged(card, ModelSet(), width=30, height=20)
    expected = Image.fromarray(source[:, :, :3]).resize((30, 20), Image.Resampling.LANCZOS)
    assert np.array_equal(made[:, :, :3], expected)
    assert card.resident() == []


def test_a_picture_that_is_gone_fails_with_the_reason(card):
    with pytest.raises(RenderError, match="no longer stored"):
        enlarged(card, ModelSet())


def test_a_second_pass_starts_from_the_upscalers_picture(card, files):
    hires = {"scale": 1.5, "steps": 1, "upscaler": "4x-sharp [0123456789]"}
    params = RenderParams.model_validate(
        {"prompt": "sea", "checkpoint": "tiny", "width": NATIVE_SIZE, "height": NATIVE_SIZE, "steps": 2, "seed": 7}
        | {"hires": hires}
    )
    with_file, without = (
        card.render(claim, Seen().watch(claim), Cancellation()).pixels
        for claim in (
            claim_of(ModelSet(checkpoint=files["tiny"], upscaler=files["4x-sharp"]), params),
            replace(claim_of(ModelSet(checkpoint=files["tiny"]), params), job_id=18),
        )
    )
    assert with_file.shape == without.shape == (NATIVE_SIZE * 3 // 2, NATIVE_SIZE * 3 // 2, 3)
    assert not np.array_equal(with_file, without)
