"""The parameters of image to image and inpainting, each with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.params.codecs import choice
from shared.params.facts import Fact, Key, Option
from shared.params.fields import (
    OF_ONE,
    MaskArea,
    MaskedContent,
    Parameters,
    Positive,
    ResizeMode,
    Share,
    SourcePicture,
)


class Mask(Parameters):
    """Which part of the source picture is repainted."""

    picture: Annotated[
        SourcePicture,
        Fact(
            "Upload or data URL; white, or opaque if the file has alpha, is repainted",
            label="Mask",
            option=Option("--mask", metavar="FILE", help="Mask: white, or opaque if it has alpha, is repainted."),
            keys=(Key("Mask picture"),),
        ),
    ]
    blur: Annotated[
        Positive,
        Field(le=64),
        Fact(
            "How far the mask's edge is softened, in pixels",
            label="Mask blur",
            slider=(0, 64, 1),
            option=Option("--mask-blur"),
            keys=(Key("Mask blur", is_always=True),),
        ),
    ] = 4.0
    invert: Annotated[
        bool,
        Fact(
            "Repaint what the mask leaves out",
            label="Invert the mask",
            option=Option("--mask-invert"),
            keys=(Key("Mask mode", choice({"Inpaint masked": False, "Inpaint not masked": True})),),
        ),
    ] = False
    content: Annotated[
        MaskedContent,
        Fact(
            "What the masked part starts from",
            label="Masked content",
            labels={
                "fill": "Blurred colours around it",
                "original": "The picture itself",
                "latent noise": "Noise",
                "latent nothing": "Nothing",
            },
            option=Option("--mask-content"),
            keys=(Key("Masked content"),),
            is_listed=True,
        ),
    ] = "original"
    area: Annotated[
        MaskArea,
        Fact(
            "Render the whole picture, or only the masked part at full size",
            label="Inpaint area",
            labels={"whole picture": "Whole picture", "only masked": "Only the masked part, at full size"},
            option=Option("--only-masked", help="Render only the masked part, at full size.", sets="only masked"),
            keys=(Key("Inpaint area", choice({"Whole picture": "whole picture", "Only masked": "only masked"})),),
            is_listed=True,
        ),
    ] = "whole picture"
    padding: Annotated[
        int,
        Field(ge=0, le=512),
        Fact("Pixels around the masked part that are rendered with it", keys=(Key("Masked area padding"),)),
    ] = 32
    weight: Annotated[
        Share,
        Fact(
            "How much an inpainting checkpoint sees of the mask",
            label="Mask weight",
            keys=(Key("Conditional mask weight"),),
        ),
    ] = 1.0
    soft: Annotated[
        bool,
        Fact(
            "Blend by how much changed, with the mask as strength (soft inpainting)",
            label="Soft inpainting",
            keys=(Key("Soft inpainting enabled"),),
        ),
    ] = False


class Img2Img(Parameters):
    """A picture to start from instead of noise alone."""

    picture: Annotated[
        SourcePicture,
        Fact(
            "Upload (its SHA-256) or data URL",
            label="Source picture",
            option=Option("--init", metavar="FILE", help="Picture to start from."),
            keys=(Key("Init picture"),),
        ),
    ]
    denoising: Annotated[
        Share,
        Fact(
            "How much is repainted",
            means={0: "the picture stays", 1: "it is nearly forgotten"},
            slider=OF_ONE,
            option=Option("--denoising"),
            keys=(Key("Denoising strength", is_always=True),),
            is_listed=True,
        ),
    ] = 0.75
    resize_mode: Annotated[
        ResizeMode,
        Fact(
            "How the picture is brought to the size of the result",
            labels={
                "resize": "Stretch",
                "crop": "Crop to fit",
                "fill": "Fit, fill the rest",
                "latent": "Stretch the latent",
            },
            option=Option("--resize", metavar="MODE"),
            keys=(Key("Resize mode"),),
        ),
    ] = "resize"
    exact_steps: Annotated[
        bool,
        Fact("Run all the steps, whatever the denoising strength", keys=(Key("Exact steps"),)),
    ] = False
    extra_noise: Annotated[Share, Fact("Noise added on top of the sampler's", keys=(Key("Extra noise"),))] = 0.0
    noise_multiplier: Annotated[
        float,
        Field(ge=0, le=1.5),
        Fact(
            "Factor of the first noise; smoother below 1, busier above",
            label="First noise",
            keys=(Key("Noise multiplier"),),
        ),
    ] = 1.0
    color_correction: Annotated[
        bool,
        Fact("Give the result the source's colours", label="Colour correction", keys=(Key("Color correction"),)),
    ] = False
    mask: Annotated[Mask | None, Fact("Inpainting: which part is repainted")] = None
