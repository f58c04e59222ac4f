"""The parameters of image to image and inpainting, each with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from shared.params.codecs import choice
from shared.params.facts import Fact, Key, Option
from shared.params.fields import (
    OF_ONE,
    Extension,
    MaskArea,
    MaskedContent,
    NewContent,
    Parameters,
    Positive,
    ResizeMode,
    Share,
    SourcePicture,
)

_EXTENSION: Final = (0, 512, 8)  # the slider of a side
_FEATHERS_A_BLUR: Final = 5  # the Gaussian is cut off at two and a half deviations on either side
_STARTS_FROM: Final[dict[NewContent, MaskedContent]] = {
    "fill": "fill",
    "edge": "original",
    "mirror": "original",
    "latent noise": "latent noise",
}


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


def _side(name: str) -> Fact:
    return Fact(
        f"Pixels to add at the {name}, to be painted",
        label=f"Outpaint {name}",
        slider=_EXTENSION,
        option=Option(f"--outpaint-{name}"),
        keys=(Key(f"Outpaint {name}"),),
    )


class Outpaint(Parameters):
    """How far the source picture is extended at each side, and how the new part is painted; all 0: not at all."""

    left: Annotated[Extension, _side("left")] = 0
    right: Annotated[Extension, _side("right")] = 0
    top: Annotated[Extension, _side("top")] = 0
    bottom: Annotated[Extension, _side("bottom")] = 0
    feather: Annotated[
        int,
        Field(ge=0, le=256),
        Fact(
            "How many pixels of the picture's own are repainted along a new side, ever less, so that no seam shows",
            label="Outpaint feather",
            slider=(0, 128, 1),
            option=Option("--outpaint-feather"),
            keys=(Key("Outpaint feather"),),
        ),
    ] = 32
    content: Annotated[
        NewContent,
        Fact(
            "What the new part starts from",
            label="Outpaint content",
            labels={
                "fill": "Blurred colours around it",
                "edge": "The edge, drawn out",
                "mirror": "The picture, mirrored",
                "latent noise": "Noise",
            },
            option=Option("--outpaint-content"),
            keys=(Key("Outpaint content"),),
        ),
    ] = "fill"

    @property
    def extends(self) -> bool:
        """Whether any side is extended."""
        return any((self.left, self.right, self.top, self.bottom))

    def as_mask(self, picture: SourcePicture) -> Mask:
        """Return the options of inpainting that paint the new part, `picture` being the sharp mask over it."""
        return Mask(picture=picture, blur=self.feather / _FEATHERS_A_BLUR, content=_STARTS_FROM[self.content])


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
    outpaint: Annotated[Outpaint, Fact("Outpainting: how far the picture is extended at each side")] = Outpaint()

    @property
    def repaints(self) -> Mask | None:
        """How a part alone is painted: what a mask covers, or what is new around the picture; None: all is."""
        return self.outpaint.as_mask(self.picture) if self.outpaint.extends else self.mask
