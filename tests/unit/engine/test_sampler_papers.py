"""Samplers against diffusers' schedulers on a checkpoint, and against their papers' formulas written out again."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from numpy.typing import NDArray
from torch import Tensor

from bench import plain
from shared.params.groups import Guidance, Sampling
from shared.params.render import RenderParams
from tests.support.walks import Denoiser, finished
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.render import Kit, text_to_image
from worker.engine.sampling import schedules
from worker.engine.sampling.registry import SAMPLERS
from worker.engine.sigma_table import SigmaTable

SD1 = SigmaTable.scaled_linear()
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPT, SEED, SCALE, STEPS = "sea at night", 3, 4.0, 8

Predict = Callable[[Tensor, float], Tensor]  # x at unit variance and a timestep -> the noise in it


@pytest.fixture(scope="module")
def networks(tiny_path: Path) -> plain.Networks:
    return plain.load(tiny_path)


def predictor(networks: plain.Networks) -> Predict:
    """The U-Net with classifier-free guidance, written as one writes it first."""
    context = plain._contexts(networks, PROMPT)

    def predict(x: Tensor, timestep: float) -> Tensor:
        without, towards = networks.unet(x.repeat(2, 1, 1, 1), timestep, context).sample.chunk(2)
        return without + SCALE * (towards - without)

    return predict


def noise_of(seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn((1, 4, 8, 8), generator=generator)


def ddim(predict: Predict, draw: Callable[[], Tensor], eta: float) -> Tensor:
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(STEPS)
    x = draw()
    for timestep in scheduler.timesteps[:-1]:  # people's DDIM ends at timestep 1
        predicted = predict(x, timestep)
        variance = {"variance_noise": draw()} if eta else {}
        x = scheduler.step(predicted, timestep, x, eta=eta, **variance).prev_sample
    return x


def plms(predict: Predict, draw: Callable[[], Tensor]) -> Tensor:
    scheduler = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(STEPS)
    x = draw()
    for timestep in scheduler.timesteps[:-1]:
        x = scheduler.step(predict(x, timestep), timestep, x).prev_sample
    return x


def unipc(predict: Predict, draw: Callable[[], Tensor]) -> Tensor:
    scheduler = UniPCMultistepScheduler(
        **BETAS, solver_order=3, solver_type="bh1", lower_order_final=True, final_sigmas_type="sigma_min"
    )
    scheduler.set_timesteps(STEPS)
    timesteps = np.linspace(999, 0, STEPS + 1)  # diffusers rounds them
    scheduler.sigmas = torch.tensor([SD1.sigma(timestep) for timestep in timesteps])
    x = draw()
    for timestep, label in zip(timesteps, scheduler.timesteps, strict=False):
        x = scheduler.step(predict(x, timestep), label, x).prev_sample
    return x


def lcm(predict: Predict, draw: Callable[[], Tensor]) -> Tensor:
    scheduler = LCMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(timesteps=[999, 859, 719, 579, 439, 299, 159, 19])  # of every 20th, evenly to both ends
    x = draw() * SD1.highest / math.hypot(1, SD1.highest)  # people's LCM starts at sigma, not at unit variance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: draw())
        for timestep in scheduler.timesteps:
            found = scheduler.step(predict(x, timestep), timestep, x)
            x = found.prev_sample
    return found.denoised


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers' UniPC
@pytest.mark.parametrize(
    ("sampler", "eta", "walked"),
    [
        ("DDIM", None, lambda predict, draw: ddim(predict, draw, eta=0.0)),
        ("DDIM", 0.7, lambda predict, draw: ddim(predict, draw, eta=0.7)),
        ("PLMS", None, plms),
        ("UniPC", None, unipc),
        ("LCM", None, lcm),
    ],
)
def test_the_engine_paints_what_the_scheduler_of_diffusers_paints(  # noqa: PLR0917 - fixtures are arguments
    engine: Engine, tiny: Weights, networks: plain.Networks, sampler: str, eta: float | None, walked
) -> None:
    params = RenderParams(
        prompt=PROMPT, checkpoint="tiny", width=64, height=64, steps=STEPS, cfg_scale=SCALE, seed=SEED,
        sampler=sampler, sampling=Sampling(eta=eta),
    )  # fmt: skip
    found = engine.render(text_to_image(params, Kit(tiny))).result(60)
    with torch.inference_mode():
        expected = decoded(networks, walked(predictor(networks), noise_of(SEED)))
    distance = np.abs(found.astype(int) - expected.astype(int))
    assert (distance > 1).mean() <= 0.001
    assert distance.max() <= 8


@pytest.mark.parametrize("changes", [{"sampler": "DDIM CFG++"}, {"sampler": "DDIM", "guidance": Guidance(rescale=0.5)}])
def test_a_watcher_hears_of_every_call_where_more_than_one_sum_is_asked_for(engine, tiny, params, changes) -> None:
    heard: list[int] = []
    asked = params.model_copy(update={"steps": STEPS, **changes})
    engine.render(text_to_image(asked, Kit(tiny)), on_step=lambda step: heard.append(step.index)).result(60)
    assert heard == list(range(1, STEPS))


def decoded(networks: plain.Networks, latent: Tensor) -> NDArray[np.uint8]:
    pixels = networks.vae.decode(latent / networks.latent_scale).sample[0].clamp(-1, 1)
    return ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def test_ddim_cfgpp_puts_back_the_noise_that_the_unguided_model_saw() -> None:
    """Chung et al. 2024, algorithm 2, at the variance-preserving scale where it is written."""
    sigmas = schedules.sigmas(SD1, sampler="DDIM CFG++", schedule="automatic", steps=20)
    kept = [1 / (1 + sigma**2) for sigma in sigmas]  # ā
    x = start = torch.linspace(-2, 2, 7, dtype=torch.float64)
    for sigma, share, following in zip(sigmas, kept, kept[1:], strict=False):
        guided = torch.tanh(x / share**0.5 / (1 + sigma))
        noise_without = (x - share**0.5 * 0.9 * guided) / (1 - share) ** 0.5
        x = following**0.5 * guided + (1 - following) ** 0.5 * noise_without
    model = Denoiser(is_pair=True)
    found = finished(SAMPLERS["DDIM CFG++"](model, start * math.hypot(1, sigmas[0]), sigmas, nothing))
    torch.testing.assert_close(found / math.hypot(1, sigmas[-1]), x, rtol=0, atol=1e-9)
    assert len(model.sigmas) == 19


@pytest.mark.parametrize(
    ("steps", "base", "again", "times"),
    [(10, 10, 0, 0), (20, 11, 9, 1), (35, 26, 9, 1), (36, 18, 9, 2), (41, 21, 10, 2)],
)
def test_restart_walks_a_part_of_its_way_again(steps: int, base: int, again: int, times: int) -> None:
    """Xu et al. 2023, algorithm 1: Heun's method; at t_min, K times, noise up to t_max and down again."""
    draws = torch.randn(8, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    start = torch.linspace(-20, 20, 5, dtype=torch.float64)

    way = karras(SD1.highest, SD1.lowest, base)
    low = way[np.abs(way - 0.1).argmin()]
    high = way[np.abs(way - 2).argmin()]
    x, noise = start, iter(draws)
    for sigma, following in pairwise([*way, 0.0]):
        x = heun(x, sigma, following)
        if following == low:
            for _ in range(times):
                x = x + next(noise) * (high**2 - low**2) ** 0.5
                for above, below in pairwise(karras(high, low, again + 1)):
                    x = heun(x, above, below)

    model, noise = Denoiser(), iter(draws)
    sigmas = schedules.sigmas(SD1, sampler="Restart", schedule="automatic", steps=steps)
    found = finished(SAMPLERS["Restart"](model, start, sigmas, lambda *_: next(noise)))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-9)
    assert len(model.sigmas) == 2 * steps - 1


@pytest.mark.parametrize("lowest", [0.2, 0.5, 1.0])
def test_restart_goes_up_again_from_the_lowest_sigma_of_a_schedule_that_ends_early(lowest: float) -> None:
    sigmas = [*karras(SD1.highest, lowest, 20), 0.0]
    model, ups = Denoiser(), []

    def noise(sigma: float, sigma_next: float) -> Tensor:
        ups.append((sigma, sigma_next))
        return torch.zeros(5, dtype=torch.float64)

    found = finished(SAMPLERS["Restart"](model, torch.linspace(-20, 20, 5, dtype=torch.float64), sigmas, noise))
    assert len(model.sigmas) == 2 * 20 - 1
    assert min(model.sigmas) == pytest.approx(lowest)
    assert len(ups) == 1
    assert found.isfinite().all()


def karras(high: float, low: float, count: int) -> NDArray[np.float64]:
    return np.linspace(high ** (1 / 7), low ** (1 / 7), count) ** 7


def heun(x: Tensor, sigma: float, following: float) -> Tensor:
    def derivative(x: Tensor, sigma: float) -> Tensor:
        return (x - torch.tanh(x / (1 + sigma))) / sigma

    first = derivative(x, sigma)
    end = x + (following - sigma) * first
    return end if following == 0 else x + (following - sigma) * (first + derivative(end, following)) / 2


def nothing(sigma: float, sigma_next: float) -> Tensor:
    raise AssertionError("this walk needs no noise")
