"""`RenderParams`: what a person asked for. Frozen, validated once at admission, stored and rendered as it is."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from shared.params import facts, paths
from shared.params.codecs import HASH, NAME, SCHEDULE, SIZE, TEXT, TILING, VAE
from shared.params.controlnet import MOST_UNITS, ControlUnit
from shared.params.faces import Faces
from shared.params.facts import Fact, Key, Option, Takes
from shared.params.fields import (
    AUTOMATIC_VAE,
    NATIVE_SIZE,
    RANDOM_SEED,
    CheckpointName,
    Emphasis,
    FileFormat,
    Parameters,
    Positive,
    Prompt,
    SamplerName,
    ScheduleName,
    Seed,
    Side,
    StyleName,
    Tiling,
    VaeName,
)
from shared.params.groups import Guidance, Hires, Noise, Refiner, Sampling
from shared.params.img2img import Img2Img
from shared.params.ip_adapter import MOST_IP_ADAPTERS, IPAdapterUnit
from shared.params.samplers import AUTOMATIC, SAMPLERS
from shared.params.size_conditioning import Crop, OriginalSize, TargetSize
from shared.params.upscale import Upscale


class RenderParams(Parameters):
    """The complete parameters of a job, or of one image of it (`image`).

    A person names a checkpoint by name or hash, and may leave seed (-1), size (0) and styles to the farm. Admission
    resolves them: to `name [short hash]`, to numbers, to texts in the prompts. Stored parameters are always resolved.
    The order of the fields stays as it is, because the digest of an idempotency key depends on it.
    """

    prompt: Annotated[
        Prompt,
        Fact(
            "What the picture shows",
            group=facts.EVERYDAY,
            placeholder="a painting of the desert at sunset, pyramids, sun",
            option=Option("PROMPT"),
            more="What the picture shows, in your own words. Short parts with commas between them work best; earlier "
            "parts weigh more.",
        ),
    ] = ""
    negative_prompt: Annotated[
        Prompt,
        Fact(
            "What the picture should not show",
            group=facts.EVERYDAY,
            placeholder="what the picture should not show",
            option=Option("--negative"),
            more="What the picture should not show. It has no effect at a CFG scale of 1.",
        ),
    ] = ""
    styles: Annotated[
        tuple[StyleName, ...],
        Field(strict=False, max_length=32),
        Fact(
            "Names of styles whose texts join the prompts",
            group=facts.EVERYDAY,
            option=Option("--style", metavar="NAME", help="Style whose texts join the prompts; may be repeated."),
        ),
    ] = ()
    emphasis: Annotated[
        Emphasis,
        Fact(
            "How (words:1.2) weigh",
            means={"None": "brackets are plain text"},
            group=facts.GUIDANCE,
            keys=(Key("Emphasis", TEXT),),
        ),
    ] = "Original"
    checkpoint: Annotated[
        CheckpointName,
        Takes("checkpoint", role="checkpoint"),
        Fact(
            "Name or hash of the checkpoint",
            means={"": "the farm's own choice"},
            group=facts.EVERYDAY,
            option=Option("--checkpoint", help="Name or hash of the checkpoint; `farm models` lists them."),
            keys=(Key("Model hash", HASH), Key("Model", NAME)),
            more="The model that draws. Files come from the models folder, which workers scan every few seconds.",
        ),
    ] = ""
    vae: Annotated[
        VaeName,
        Takes("vae", role="vae"),
        Fact(
            "Name or hash of a VAE",
            means={AUTOMATIC_VAE: "one beside the checkpoint, if any", "none": "the checkpoint's own"},
            label="VAE",
            group=facts.REFINER,
            option=Option("--vae"),
            keys=(Key("VAE hash", HASH), Key("VAE", VAE)),
        ),
    ] = AUTOMATIC_VAE
    clip_skip: Annotated[
        int,
        Field(ge=1, le=12),
        Fact(
            "Layer of SD 1's text encoder to read, counted from the end",
            means={1: "the last"},
            group=facts.GUIDANCE,
            architectures={"sd1": "", "sdxl": "sdxl_clip_l_skip"},
            option=Option("--clip-skip"),
            keys=(Key("Clip skip"),),
        ),
    ] = 1
    width: Annotated[
        Side,
        Fact(
            "Width in pixels",
            means={NATIVE_SIZE: "the checkpoint's own size"},
            group=facts.EVERYDAY,
            option=Option(
                "--size",
                metavar="WIDTHxHEIGHT",
                beside=("height",),
                codec=SIZE,
                help="Size in pixels; else the checkpoint's own.",
            ),
            keys=(Key("Size", SIZE, beside=("height",), is_always=True),),
            more="In pixels, multiples of 8. A checkpoint draws best at its own size; far larger pictures tend to "
            "repeat things.",
        ),
    ] = NATIVE_SIZE
    height: Annotated[
        Side,
        Fact("Height in pixels", means={NATIVE_SIZE: "the checkpoint's own size"}, group=facts.EVERYDAY),
    ] = NATIVE_SIZE
    steps: Annotated[
        int,
        Field(ge=1),
        Takes(most="max_steps"),
        Fact(
            "Denoising steps",
            group=facts.EVERYDAY,
            option=Option("--steps"),
            keys=(Key("Steps", is_always=True),),
            slider=(1, 150, 1),
            more="More steps take longer in proportion. Twenty are a good start; beyond forty little changes.",
        ),
    ] = 20
    cfg_scale: Annotated[
        Positive,
        Takes(most="max_cfg_scale"),
        Fact(
            "How strongly the prompt guides",
            means={1: "no guidance"},
            label="CFG scale",
            group=facts.EVERYDAY,
            option=Option("--cfg"),
            keys=(Key("CFG scale", is_always=True),),
            slider=(0, 30, 0.5),
            more="How strictly the picture follows the prompt. 5 to 9 is usual; 1 renders without guidance in half the "
            "time.",
        ),
    ] = 7.0
    sampler: Annotated[
        SamplerName,
        Fact(
            "Sampler: the way from noise to the picture",
            group=facts.EVERYDAY,
            option=Option("--sampler", help="Sampler, such as 'Euler a' or 'DPM++ 2M Karras'."),
            keys=(Key("Sampler", is_always=True),),
            more="How noise becomes a picture. DPM++ 2M needs the fewest steps; an “a” (ancestral) sampler adds fresh "
            "noise at each step, and its picture changes with their number.",
        ),
    ] = "Euler a"
    schedule: Annotated[
        ScheduleName,
        Fact(
            "Noise schedule: how much noise is left after each step",
            means={AUTOMATIC: "the sampler's own"},
            group=facts.EVERYDAY,
            option=Option("--schedule"),
            keys=(Key("Schedule type", SCHEDULE, is_always=True),),
            more="The noise levels on the way.",
        ),
    ] = AUTOMATIC
    seed: Annotated[
        Seed,
        Fact(
            "Start of the noise; image i uses seed + i",
            means={RANDOM_SEED: "random"},
            group=facts.EVERYDAY,
            option=Option("--seed"),
            keys=(Key("Seed", is_always=True),),
            more="The start of the noise. The same parameters with the same seed give the same picture.",
        ),
    ] = RANDOM_SEED
    count: Annotated[
        int,
        Field(ge=1),
        Takes(most="max_count"),
        Fact(
            "How many images, each with the next seed",
            label="Images",
            group=facts.EVERYDAY,
            option=Option("--count"),
            more="How many pictures, each with the next seed.",
        ),
    ] = 1
    exact: Annotated[
        bool,
        Fact(
            "Share no call of the card with other images, so that pictures are bit-identical on one kind of card",
            group=facts.OUTPUT,
            option=Option("--exact"),
            keys=(Key("Exact"),),
            more="The picture never shares a call of the card with others. It is bit for bit the same each time on one "
            "kind of card, and slower when the farm is busy.",
        ),
    ] = False
    tiling: Annotated[
        Tiling,
        Fact(
            "Edges that continue on the other side, as in a pattern without seams",
            group=facts.OUTPUT,
            labels={"none": "None", "both": "Both ways", "x": "Left and right", "y": "Top and bottom"},
            option=Option("--tiling"),
            keys=(Key("Tiling", TILING), Key("Tiling axis", applies=lambda params: params.tiling != "both")),
        ),
    ] = "none"
    film: Annotated[
        bool,
        Fact(
            "Keep the picture's steps as an animation and a strip",
            group=facts.OUTPUT,
            option=Option("--film"),
            keys=(Key("Film"),),
        ),
    ] = False
    format: Annotated[
        FileFormat,
        Fact(
            "File format of the pictures",
            group=facts.OUTPUT,
            labels={"png": "PNG", "jpeg": "JPEG", "webp": "WebP"},
            option=Option("--format"),
            keys=(Key("File format"),),
        ),
    ] = "png"
    sampling: Annotated[Sampling, Fact("Options of samplers and schedules", group=facts.SAMPLING)] = Sampling()
    guidance: Annotated[Guidance, Fact("Options of guidance", group=facts.GUIDANCE)] = Guidance()
    noise: Annotated[Noise, Fact("Where the noise comes from", group=facts.NOISE)] = Noise()
    refiner: Annotated[Refiner | None, Fact("A second checkpoint that takes over on the way", group=facts.REFINER)] = (
        None
    )
    hires: Annotated[
        Hires | None, Fact("A second pass at a larger size", label="Render a second pass", group=facts.HIRES)
    ] = None
    img2img: Annotated[Img2Img | None, Fact("A picture to start from", group=facts.IMG2IMG)] = None
    original_size: Annotated[
        OriginalSize | None,
        Fact(
            "Size that SDXL takes the picture to have been scaled from",
            means={None: "that of the pass"},
            group=facts.SDXL,
        ),
    ] = None
    crop: Annotated[Crop, Fact("What SDXL takes to have been cut off at the left and at the top", group=facts.SDXL)] = (
        Crop()
    )
    target_size: Annotated[
        TargetSize | None,
        Fact("Size that SDXL composes the picture for", means={None: "that of the pass"}, group=facts.SDXL),
    ] = None
    sdxl_clip_l_skip: Annotated[
        bool,
        Fact(
            "Apply clip skip to SDXL's first text encoder (CLIP-L); without this its last layer but one is read",
            label="Clip skip on CLIP-L",
            group=facts.SDXL,
            architectures={"sdxl": ""},
            option=Option("--sdxl-clip-l-skip"),
            keys=(Key("SDXL CLIP-L skip"),),
        ),
    ] = False

    controlnet: Annotated[
        tuple[ControlUnit, ...],
        Field(strict=False, max_length=MOST_UNITS),
        Fact(
            "ControlNets, each with the picture that it follows",
            label="ControlNet",
            group=facts.CONTROLNET,
            option=Option(
                "--control",
                metavar="NAME=PICTURE[:WEIGHT]",
                help="ControlNet with its picture, such as canny=edges.png:0.8,preprocessor=canny; may be repeated.",
            ),
        ),
    ] = ()
    upscale: Annotated[
        Upscale | None, Fact("Pictures to enlarge: a job of its own, which needs no checkpoint and no prompt")
    ] = None
    ip_adapters: Annotated[
        tuple[IPAdapterUnit, ...],
        Field(strict=False, max_length=MOST_IP_ADAPTERS),
        Fact(
            "IP-Adapters, each with the pictures that it follows",
            label="IP-Adapter",
            group=facts.IP_ADAPTER,
            option=Option(
                "--ip-adapter",
                metavar="NAME=PICTURE[,PICTURE][:WEIGHT]",
                help="IP-Adapter with its pictures, such as ip-adapter_sd15=cat.png:0.6,end=0.8; may be repeated.",
            ),
        ),
    ] = ()
    faces: Annotated[
        Faces | None, Fact("Faces to restore after the last pass", label="Restore faces", group=facts.FACES)
    ] = None
    intermediates: Annotated[
        bool,
        Fact(
            "Keep how the picture was made: its noise, tokens, some steps, and what the prompt changed",
            label="How it was made",
            group=facts.OUTPUT,
            option=Option("--intermediates"),
            keys=(Key("Intermediates"),),
        ),
    ] = False
    file_quality: Annotated[
        int,
        Field(ge=1, le=100),
        Fact(
            "Quality of JPEG and WebP files: a lower one makes them smaller",
            group=facts.OUTPUT,
            option=Option("--quality"),
            keys=(Key("File quality", applies=lambda params: params.format != "png"),),
        ),
    ] = 95

    @property
    def rows(self) -> int:
        """Rows of the card that one denoising step of one image takes, before AND parts."""
        needs_both = self.sampler in SAMPLERS and SAMPLERS[self.sampler].needs_unconditional
        return 2 if needs_both or self.cfg_scale not in {0, 1} else 1  # at 0 the negative prompt guides alone

    @property
    def pictures(self) -> dict[str, str]:
        """The pictures that a render starts from, by dotted field name; once resolved each is an upload's SHA-256."""
        return {name: picture for name, picture in self.of_kind("picture").items() if picture is not None}

    def image(self, index: int) -> Self:
        """Return the parameters of image `index` alone: what the engine, the PNG and the client see.

        Seeds count up; with a variation strength the variation seed does, and all images share the first seed. A job
        that enlarges pictures has an image for each.
        """
        if self.upscale:
            return self.model_copy(update={"upscale": self.upscale.only(index), "count": 1})
        name = "noise.variation_seed" if self.noise.variation_strength else "seed"
        return paths.replaced(self, {name: paths.get(self, name) + index, "count": 1})

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> Self:
        """Return parameters as a job row holds them: what is not there has its default. Raises ValidationError.

        Only what differs from the defaults is stored, so a default never changes: a new meaning gets a new field.
        """
        return cls.model_validate(stored)
