"""The groups of parameters inside `RenderParams`, each field with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from shared.params.codecs import HASH, NAME, SCHEDULE, SIZE, choice
from shared.params.facts import Fact, Key, Option, Takes
from shared.params.fields import (
    MAX_SEED,
    OF_ONE,
    RANDOM_SEED,
    CheckpointName,
    NoiseSource,
    Parameters,
    Positive,
    Prompt,
    SamplerName,
    ScheduleName,
    Seed,
    Share,
    Side,
    Sigma,
    UpscalerName,
)
from shared.params.samplers import SAMPLERS

_AS_THE_FIRST = "as the first pass"


def _has_timesteps(params: Any) -> bool:  # noqa: ANN401 - RenderParams, which is made of these groups
    """True for samplers that put no noise back unless asked to: their eta has a name of its own."""
    return SAMPLERS[params.sampler].default_eta == 0


class Sampling(Parameters):
    """What few people touch of samplers and schedules; a sampler ignores the options that it has no use for."""

    eta: Annotated[
        Share | None,
        Fact(
            "Share of noise put back at each step",
            means={None: "1, for DDIM and DDIM CFG++ 0"},
            placeholder="the sampler's",
            keys=(
                Key("Eta", applies=lambda params: not _has_timesteps(params)),
                Key("Eta DDIM", applies=_has_timesteps),
            ),
        ),
    ] = None
    s_churn: Annotated[
        Positive,
        Field(le=1000),
        Fact("Noise added before each step (Euler, Heun, DPM2)", label="Churn", keys=(Key("Sigma churn"),)),
    ] = 0.0
    s_tmin: Annotated[
        Sigma, Fact("Churn only above this sigma", label="Churn above sigma", keys=(Key("Sigma tmin"),))
    ] = 0.0
    s_tmax: Annotated[
        Sigma,
        Fact(
            "Churn only below this sigma",
            means={0: "no bound"},
            label="Churn below sigma",
            keys=(Key("Sigma tmax"),),
        ),
    ] = 0.0
    s_noise: Annotated[
        Positive,
        Field(le=10),
        Fact("Strength of the noise that is put back", label="Noise strength", keys=(Key("Sigma noise"),)),
    ] = 1.0
    sigma_min: Annotated[
        Sigma,
        Fact(
            "Lowest sigma of the schedule",
            means={0: "the checkpoint's"},
            label="Lowest sigma",
            keys=(Key("Schedule min sigma"),),
        ),
    ] = 0.0
    sigma_max: Annotated[
        Sigma,
        Fact(
            "Highest sigma of the schedule",
            means={0: "the checkpoint's"},
            label="Highest sigma",
            keys=(Key("Schedule max sigma"),),
        ),
    ] = 0.0
    rho: Annotated[
        Positive,
        Field(le=100),
        Fact(
            "Bend of Karras and Polyexponential schedules",
            means={0: "their own, 7 and 1"},
            placeholder="the schedule's",
            keys=(Key("Schedule rho"),),
        ),
    ] = 0.0
    discard_next_to_last_sigma: Annotated[
        bool | None,
        Fact(
            "Leave out the last sigma but one",
            means={None: "the sampler's own way"},
            label="Last sigma but one",
            labels={None: "the sampler's own way", True: "leave it out", False: "keep it"},
            keys=(Key("Discard penultimate sigma"),),
        ),
    ] = None
    zero_terminal_snr: Annotated[
        bool,
        Fact(
            "Rescale the sigmas so that the first step sees noise alone",
            label="Zero terminal SNR",
            keys=(Key("Noise Schedule", choice({"Zero Terminal SNR": True, "Default": False})),),
        ),
    ] = False


class Guidance(Parameters):
    """Ways to guide less, or less harshly."""

    rescale: Annotated[
        Share,
        Fact(
            "Bring the guided prediction's contrast back to the prompt's (CFG rescale)",
            label="CFG rescale",
            keys=(Key("CFG rescale"),),
        ),
    ] = 0.0
    skip_below_sigma: Annotated[
        Sigma,
        Fact(
            "Leave the negative prompt out of every other step below this sigma (NGMS)",
            label="NGMS below sigma",
            keys=(Key("NGMS"),),
        ),
    ] = 0.0
    skip_all_steps: Annotated[
        bool,
        Fact("NGMS at every step, not at every other one", label="NGMS at every step", keys=(Key("NGMS all steps"),)),
    ] = False
    skip_early: Annotated[
        Share,
        Fact(
            "Leave the negative prompt out of this first share of the steps",
            label="Skip guidance early",
            keys=(Key("Skip Early CFG"),),
        ),
    ] = 0.0


class Noise(Parameters):
    """Where a picture's noise comes from."""

    source: Annotated[
        NoiseSource,
        Fact(
            "Generator of the noise",
            means={"CPU": "torch's on the host", "NV": "the portable imitation of a CUDA card's"},
            label="Noise source",
            labels={"CPU": "CPU", "NV": "NV: as a CUDA card's"},
            keys=(Key("RNG", choice({"CPU": "CPU", "NV": "NV"}), is_always=True),),
        ),
    ] = "CPU"
    variation_seed: Annotated[
        Seed,
        Fact(
            "Second seed, which the noise leans to; image i uses it + i",
            means={RANDOM_SEED: "random"},
            option=Option("--variation-seed"),
            keys=(Key("Variation seed"),),
        ),
    ] = RANDOM_SEED
    variation_strength: Annotated[
        Share,
        Fact(
            "How far to lean to the variation seed; all images then share the first seed",
            slider=OF_ONE,
            option=Option("--variation", metavar="STRENGTH"),
            keys=(Key("Variation seed strength"),),
        ),
    ] = 0.0
    resize_width: Annotated[
        Side,
        Fact(
            "Keep the picture that the seed gives at this width",
            means={0: "off"},
            label="Seed's width",
            keys=(Key("Seed resize from", SIZE, beside=("resize_height",)),),
        ),
    ] = 0
    resize_height: Annotated[
        Side,
        Fact("Keep the picture that the seed gives at this height", means={0: "off"}, label="Seed's height"),
    ] = 0
    eta_seed_delta: Annotated[
        int,
        Field(ge=-MAX_SEED, le=MAX_SEED),
        Fact("Added to the seed for all noise after the first (ENSD)", label="ENSD", keys=(Key("ENSD"),)),
    ] = 0


class Refiner(Parameters):
    """A second checkpoint that takes over on the way."""

    checkpoint: Annotated[
        CheckpointName,
        Takes("checkpoint", role="refiner"),
        Fact(
            "Name or hash of the checkpoint that takes over, such as the refiner of SDXL",
            label="Refiner",
            option=Option("--refiner"),
            keys=(Key("Refiner"),),
        ),
    ]
    switch_at: Annotated[
        Share,
        Fact(
            "Share of the noise's way down after which the refiner takes over",
            slider=OF_ONE,
            option=Option("--refiner-at"),
            keys=(Key("Refiner switch at", is_always=True),),
            is_listed=True,
        ),
    ] = 0.8


class Hires(Parameters):
    """A second pass at a larger size over what the first pass made."""

    scale: Annotated[
        float,
        Field(ge=1, le=8),
        Fact(
            "Factor of both sides, unless a target width or height is given",
            slider=(1, 4, 0.25),
            option=Option("--hires", metavar="SCALE", help="Factor of both sides."),
            keys=(Key("Hires upscale", is_always=True, is_sign=True),),
            is_listed=True,
        ),
    ] = 2.0
    width: Annotated[
        Side,
        Fact(
            "Width to enlarge to",
            means={0: "by the scale"},
            label="Hires width",
            keys=(Key("Hires resize", SIZE, beside=("height",), is_sign=True),),
        ),
    ] = 0
    height: Annotated[
        Side,
        Fact("Height to enlarge to", means={0: "by the scale"}, label="Hires height"),
    ] = 0
    steps: Annotated[
        int,
        Field(ge=0),
        Takes(most="max_steps"),
        Fact(
            "Steps of the second pass",
            means={0: _AS_THE_FIRST},
            label="Hires steps",
            option=Option("--hires-steps"),
            keys=(Key("Hires steps"),),
        ),
    ] = 0
    denoising: Annotated[
        Share,
        Fact(
            "How much of the first pass is repainted",
            label="Hires denoising",
            slider=OF_ONE,
            option=Option("--hires-denoising"),
            keys=(Key("Denoising strength", is_always=True),),
            is_listed=True,
        ),
    ] = 0.7
    upscaler: Annotated[
        UpscalerName,
        Takes("upscaler", role="upscaler"),
        Fact(
            "How the picture is enlarged before the second pass",
            option=Option("--hires-upscaler"),
            keys=(Key("Hires upscaler", NAME, is_always=True, is_sign=True), Key("Hires upscaler hash", HASH)),
            is_listed=True,
        ),
    ] = "Latent"
    sampler: Annotated[
        SamplerName,
        Fact(
            "Sampler of the second pass",
            means={"": _AS_THE_FIRST},
            label="Hires sampler",
            keys=(Key("Hires sampler"),),
        ),
    ] = ""
    schedule: Annotated[
        ScheduleName,
        Fact(
            "Schedule of the second pass",
            means={"": _AS_THE_FIRST},
            label="Hires schedule",
            keys=(Key("Hires schedule type", SCHEDULE),),
        ),
    ] = ""
    prompt: Annotated[
        Prompt,
        Fact("Prompt of the second pass", means={"": _AS_THE_FIRST}, label="Hires prompt", keys=(Key("Hires prompt"),)),
    ] = ""
    negative_prompt: Annotated[
        Prompt,
        Fact(
            "Negative prompt of the second pass",
            means={"": _AS_THE_FIRST},
            label="Hires negative prompt",
            keys=(Key("Hires negative prompt"),),
        ),
    ] = ""
    checkpoint: Annotated[
        CheckpointName,
        Takes("checkpoint", role="hires"),
        Fact(
            "Checkpoint of the second pass",
            means={"": _AS_THE_FIRST},
            label="Hires checkpoint",
            keys=(Key("Hires checkpoint"),),
        ),
    ] = ""
