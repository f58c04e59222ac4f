"""Small checkpoints of SDXL and Stable Diffusion 2 in the models folder of a worker, from the scan to the picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.db.sessions import transact
from shared.models import recording
from shared.models.inspection import Inspection, Scanned
from shared.models.scan import scan
from shared.params.render import RenderParams
from shared.queue.claim import Claim
from tests.support.checkpoints import fitting_decoder, inspected, located, without_vae
from tests.support.rendering import Seen
from tests.support.waiting import until
from worker.engine import devices
from worker.engine.images import previews
from worker.engine.loading import load
from worker.in_flight import Cancellation
from worker.render.engine_card import EngineCard
from worker.supervisor.gpus import Address

CPU = devices.device("cpu:0")
FILES = {"base": "sdxl", "refiner": "sdxl-refiner", "two": "sd2-velocity"}

Claims = Callable[..., Claim]


@pytest.fixture
def write(settings, small_file) -> Callable[[str], Path]:
    """Copies one of FILES into the models folder."""

    def write(name: str) -> Path:
        for part in small_file(FILES[name]).parent.glob(f"{FILES[name]}.*"):
            shutil.copy(part, settings.models / part.with_stem(name).name)
        return settings.models / f"{name}.safetensors"

    return write


@pytest.fixture
def claims(settings, sessions) -> Claims:
    """Makes claims of images by the file `checkpoint`; other files are named by `refiner`."""

    known: list[Scanned] = []

    def claim(checkpoint: str, **changes: Any) -> Claim:
        known[:] = scan(settings.models, known, inspected, locate=located)
        seen = {file.name: file for file in known}
        assert {file.inspection.reason for file in seen.values() if isinstance(file.inspection, Inspection)} <= {None}
        transact(sessions, lambda session: recording.record(session, list(seen.values())))
        titles = {name: f"{name} [{file.sha256[:10]}]" for name, file in seen.items()}
        if "refiner" in changes:
            changes["refiner"] = {"checkpoint": titles["refiner"], "switch_at": changes["refiner"]}
        params = RenderParams(
            **{"prompt": "sea", "checkpoint": titles[checkpoint], "width": 64, "height": 64, "steps": 4, "seed": 7}
            | changes
        )
        return Claim(
            image_id=5, job_id=17, index=0, attempt=1, owner="local", checkpoint=seen[checkpoint].sha256, cost=1,
            stored=params.model_dump(mode="json"), worker_id=3,
        )  # fmt: skip

    return claim


@pytest.fixture
def card(settings, sessions) -> Iterator[EngineCard]:
    card = EngineCard(Address("cpu:0"), settings.model_copy(update={"preview_steps": 2}), sessions, lambda: None)
    yield card
    card.stop()


def test_a_claim_of_sdxl_with_its_refiner_becomes_a_picture_with_previews_and_a_film(card, claims, write):
    write("base")
    write("refiner")
    claim = claims("base", refiner=0.5, film=True, original_size={"width": 1024, "height": 1024})
    seen = Seen()
    rendered = card.render(claim, seen.watch(claim), Cancellation())
    assert rendered.pixels.shape == (64, 64, 3)
    assert rendered.pixels.std() > 1
    assert [frame.pixels.shape for frame in rendered.frames] == [(64, 64, 3)] * 3
    assert [make().shape for make in seen.previews] == [(8, 8, 3)]
    alone = claims("base", original_size={"width": 1024, "height": 1024})
    assert not np.array_equal(card.render(alone, Seen().watch(alone), Cancellation()).pixels, rendered.pixels)


def test_a_claim_of_stable_diffusion_2_becomes_a_picture(card, claims, write):
    write("two")
    claim = claims("two", hires={"scale": 1.5, "steps": 2})
    seen = Seen()
    assert card.render(claim, seen.watch(claim), Cancellation()).pixels.shape == (96, 96, 3)
    assert seen.previews


def test_without_a_vae_inside_the_usual_colours_of_sdxl_make_the_previews(card, claims, write, settings):
    path = write("base")
    prefix = "first_stage_model."
    vae = {key.removeprefix(prefix): one for key, one in load_file(path).items() if key.startswith(prefix)}
    (settings.models / "VAE").mkdir()
    save_file(vae, settings.models / "VAE" / "own.safetensors")
    without_vae(path)
    claim = claims("base", vae="own")
    seen = Seen()
    assert card.render(claim, seen.watch(claim), Cancellation()).pixels.std() > 1
    _, weights = seen.previews[0].args
    assert torch.equal(weights.latent_rgb, torch.tensor(weights.architecture.usual_rgb))


def test_each_architecture_has_the_decoder_of_its_own_latents(card, claims, write, settings, monkeypatch):
    """A linear decoder reads these random latents a little, and those of the other VAE not at all."""
    monkeypatch.setattr("worker.render.preview_decoders.LEAST_FIT", 0.1)
    paths = {name: settings.models / "VAE-approx" / f"tae-{name}.safetensors" for name in ("base", "two")}
    paths["base"].parent.mkdir()
    for name, path in paths.items():
        save_file(fitting_decoder(load.load(write(name), CPU, torch.float32).sample), path)
    for name, path in paths.items():
        claim, seen = claims(name), Seen()
        card.render(claim, seen.watch(claim), Cancellation())
        _, weights = seen.previews[0].args
        expected = previews.decoded(weights.sample, load.load_decoder(path, CPU, torch.float32))
        show = partial(card._preview_decoders.picture, weights.sample, weights)
        until(lambda show=show, expected=expected: np.array_equal(show(), expected))
