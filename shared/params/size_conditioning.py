"""The sizes that SDXL is given beside a prompt, each number with its facts.

It was trained with the size that each picture had before it was scaled, the corner at which it was then cropped, and
the size it had at last: https://arxiv.org/abs/2307.01952, section 2.2.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from shared.params.codecs import OFFSET, SIZE
from shared.params.facts import Fact, Key, Option
from shared.params.fields import Parameters

_MOST: Final = 8192  # pixels: pictures of the training data were seldom larger
_OWN: Final = "the picture's"
_BOTH: Final = {"sdxl": "", "sdxl-refiner": ""}
_BASE: Final = {"sdxl": ""}  # a refiner is given an aesthetic score in the place of the target size

KnownSide = Annotated[int, Field(ge=1, le=_MOST)]
Offset = Annotated[int, Field(ge=0, le=_MOST)]


class OriginalSize(Parameters):
    """The size of the picture before it was scaled and cropped, pixels."""

    width: Annotated[
        KnownSide,
        Fact(
            "Width of the picture before it was scaled; small ones give blurred pictures",
            label="Original width",
            architectures=_BOTH,
            placeholder=_OWN,
            option=Option(
                "--original-size",
                metavar="WIDTHxHEIGHT",
                beside=("height",),
                codec=SIZE,
                help="Size that SDXL takes the picture to have been scaled from; else its own.",
            ),
            keys=(Key("SDXL original size", SIZE, beside=("height",)),),
        ),
    ]
    height: Annotated[
        KnownSide,
        Fact(
            "Height of the picture before it was scaled; small ones give blurred pictures",
            label="Original height",
            architectures=_BOTH,
            placeholder=_OWN,
        ),
    ]


class Crop(Parameters):
    """The corner of the scaled picture at which the shown part begins, pixels."""

    left: Annotated[
        Offset,
        Fact(
            "Pixels cut off at the left; above 0 the subject moves out of the picture",
            label="Crop left",
            architectures=_BOTH,
            option=Option(
                "--crop",
                metavar="LEFT,TOP",
                beside=("top",),
                codec=OFFSET,
                help="Pixels that SDXL takes to have been cut off at the left and at the top.",
            ),
            keys=(Key("SDXL crop", OFFSET, beside=("top",)),),
        ),
    ] = 0
    top: Annotated[
        Offset,
        Fact(
            "Pixels cut off at the top; above 0 the subject moves out of the picture",
            label="Crop top",
            architectures=_BOTH,
        ),
    ] = 0


class TargetSize(Parameters):
    """The size that the picture has at last, pixels."""

    width: Annotated[
        KnownSide,
        Fact(
            "Width that the picture is composed for",
            label="Target width",
            architectures=_BASE,
            placeholder=_OWN,
            option=Option(
                "--target-size",
                metavar="WIDTHxHEIGHT",
                beside=("height",),
                codec=SIZE,
                help="Size that SDXL composes the picture for; else its own.",
            ),
            keys=(Key("SDXL target size", SIZE, beside=("height",)),),
        ),
    ]
    height: Annotated[
        KnownSide,
        Fact("Height that the picture is composed for", label="Target height", architectures=_BASE, placeholder=_OWN),
    ]
