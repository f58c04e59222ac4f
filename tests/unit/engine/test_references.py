"""Image to image, inpainting and the second pass against plain loops that share no code with the engine."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor

from bench import plain
from shared.media.arrays import Pixels
from shared.params.groups import Hires
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from tests.unit.engine.test_engine import assert_same_picture
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render

SECONDS = 120
PROMPT, SCALE, SEED, SIDE = "sea at night", 3.0, 11, 64
SHA = "0" * 64


@pytest.fixture(scope="module")
def networks(tiny_path: Path) -> plain.Networks:
    return plain.load(tiny_path)


@pytest.fixture
def params() -> RenderParams:
    size = {"width": SIDE, "height": SIDE}
    return RenderParams(prompt=PROMPT, checkpoint="tiny", seed=SEED, cfg_scale=SCALE, steps=6, sampler="Euler", **size)


@pytest.fixture
def source() -> Pixels:
    return np.random.default_rng(5).integers(60, 200, (SIDE, SIDE, 3)).astype(np.uint8)


def unit_noise(side: int = SIDE) -> Tensor:
    return torch.randn((1, 4, side // 8, side // 8), generator=torch.Generator().manual_seed(SEED))


def sigmas_of(networks: plain.Networks, steps: int) -> list[float]:
    """Evenly spaced timesteps, logarithms of sigma interpolated, then 0."""
    known = np.log(networks.sigmas)
    return [*np.exp(np.interp(np.linspace(len(known) - 1, 0, steps), np.arange(len(known)), known)).tolist(), 0.0]


def predicted(networks: plain.Networks, x: Tensor, timestep: float) -> Tensor:
    """The guided noise that the network sees in `x`, which stands at unit variance."""
    without, towards = networks.unet(x.repeat(2, 1, 1, 1), timestep, plain._contexts(networks, PROMPT)).sample.chunk(2)
    return without + SCALE * (towards - without)


def euler(networks: plain.Networks, x: Tensor, sigmas: list[float]) -> Tensor:
    known = np.log(networks.sigmas)
    for sigma, after in pairwise(sigmas):
        timestep = float(np.interp(np.log(sigma), known, np.arange(len(known))))
        x = x + predicted(networks, x / (sigma**2 + 1) ** 0.5, timestep) * (after - sigma)
    return x


def encoded(networks: plain.Networks, pixels: Pixels) -> Tensor:
    values = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    return networks.vae.encode(values).latent_dist.mode() * networks.latent_scale


def decoded(networks: plain.Networks, latent: Tensor) -> NDArray[np.uint8]:
    pixels = networks.vae.decode(latent / networks.latent_scale).sample[0].clamp(-1, 1)
    return ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


@torch.inference_mode()
@pytest.mark.parametrize(("denoising", "exact_steps"), [(0.5, False), (0.7, True)])
def test_image_to_image_is_the_end_of_a_longer_way(
    engine: Engine, tiny: Weights, networks: plain.Networks, params: RenderParams, source: Pixels,
    *, denoising: float, exact_steps: bool,
) -> None:  # fmt: skip
    total, run = (int(6 / denoising), 6) if exact_steps else (6, int(6 * denoising) + 1)
    sigmas = sigmas_of(networks, total)[total - run :]
    latent = euler(networks, encoded(networks, source) + unit_noise() * sigmas[0], sigmas)
    options = Img2Img(picture=SHA, denoising=denoising, exact_steps=exact_steps)
    wanted = params.model_copy(update={"img2img": options})
    picture = engine.render(render(wanted, Kit(tiny, source=source))).result(SECONDS)
    assert_same_picture(picture, decoded(networks, latent))


@torch.inference_mode()
def test_inpainting_with_ddim_is_that_of_latent_diffusion(
    engine: Engine, tiny: Weights, networks: plain.Networks, params: RenderParams, source: Pixels
) -> None:
    """diffusers' scheduler and its inpainting: the known part is noised again after each step, by the same noise."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip
    scheduler.set_timesteps(10)
    timesteps = scheduler.timesteps[-5:]  # strength 0.5 of 10
    known, noise = encoded(networks, source), unit_noise()
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 3:7] = 1
    x = scheduler.add_noise(known, noise, timesteps[:1])
    for timestep, after in pairwise(timesteps):
        x = scheduler.step(predicted(networks, x, float(timestep)), timestep, x).prev_sample
        x = x * mask + scheduler.add_noise(known, noise, after[None]) * (1 - mask)
    expected = decoded(networks, x * mask + known * (1 - mask))
    pixels_mask = np.kron(mask[0, 0].numpy(), np.full((8, 8), 255)).astype(np.uint8)
    cover = Mask(picture=SHA, blur=0.0)
    options = Img2Img(picture=SHA, denoising=0.5, mask=cover)
    wanted = params.model_copy(update={"img2img": options, "sampler": "DDIM", "steps": 10})
    picture = engine.render(render(wanted, Kit(tiny, source=source, mask=pixels_mask))).result(SECONDS)
    assert_same_picture(picture[pixels_mask > 0], expected[pixels_mask > 0])
    assert np.array_equal(picture[pixels_mask == 0], source[pixels_mask == 0])


@torch.inference_mode()
def test_a_second_pass_noises_the_enlarged_latent_anew(
    engine: Engine, tiny: Weights, networks: plain.Networks, params: RenderParams
) -> None:
    sigmas = sigmas_of(networks, 6)
    latent = euler(networks, unit_noise() * sigmas[0], sigmas)
    larger = torch.nn.functional.interpolate(latent, size=(12, 12), mode="bilinear")
    sigmas = sigmas_of(networks, int(4 / 0.6))[-5:]
    latent = euler(networks, larger + unit_noise(96) * sigmas[0], sigmas)
    wanted = params.model_copy(update={"hires": Hires(scale=1.5, steps=4, denoising=0.6)})
    picture = engine.render(render(wanted, Kit(tiny))).result(SECONDS)
    assert_same_picture(picture, decoded(networks, latent))
