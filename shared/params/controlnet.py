"""The parameters of one control net, each with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.params.facts import Fact, Takes
from shared.params.fields import OF_TWO, ActsAfter, ActsUntil, ControlNetName, Parameters, SourcePicture, Strength
from shared.params.preprocessors import PREPROCESSORS, PreprocessorName

ControlMode = Literal["balanced", "prompt", "control"]
FitMode = Literal["resize", "crop", "fill"]
Shown = Literal["automatic", "pose", "depth", "soft edges", "lines", "normals", "segments", "tile", "repaint"]

MOST_UNITS: Final = 4
SHOWN: Final[tuple[Shown, ...]] = ("pose", "depth", "soft edges", "lines", "normals", "segments", "tile", "repaint")
"""What the pictures of union nets show, in the order of the nets' own numbers."""
_USUALLY_SHOWN: Final[dict[PreprocessorName, Shown]] = {
    "canny": "lines", "threshold": "lines", "invert": "lines", "blur": "tile", "tile": "tile", "grey": "tile",
    "inpaint": "repaint",
}  # fmt: skip
Amount = Annotated[float, Field(ge=0, le=255)]


class ControlUnit(Parameters):
    """One control net, and the picture that it follows."""

    model: Annotated[
        ControlNetName,
        Takes("controlnet", role="controls"),
        Fact("Name or hash of the ControlNet", label="ControlNet"),
    ]
    picture: Annotated[
        SourcePicture | None,
        Fact(
            "Upload (its SHA-256) or data URL",
            means={None: "the picture that img2img starts from"},
            label="Control picture",
        ),
    ] = None
    preprocessor: Annotated[
        PreprocessorName,
        Fact(
            "How the picture is prepared for the net",
            labels={name: one.label for name, one in PREPROCESSORS.items()},
        ),
    ] = "none"
    threshold_a: Annotated[
        Amount | None,
        Fact(
            "First number of the preprocessor: the low threshold of canny, the sigma of blur, the factor of tile, the "
            "level of threshold",
            label="Threshold A",
            means={None: "the usual one"},
            placeholder="the usual",
        ),
    ] = None
    threshold_b: Annotated[
        Amount | None,
        Fact(
            "Second number of the preprocessor: the high threshold of canny",
            label="Threshold B",
            means={None: "the usual one"},
            placeholder="the usual",
        ),
    ] = None
    weight: Annotated[Strength, Fact("How strongly the picture steers", slider=OF_TWO)] = 1.0
    start: ActsAfter = 0.0
    end: ActsUntil = 1.0
    mode: Annotated[
        ControlMode,
        Fact(
            "Whether the prompt or the picture matters more",
            labels={"balanced": "Balanced", "prompt": "The prompt matters more", "control": "The picture matters more"},
        ),
    ] = "balanced"
    resize: Annotated[
        FitMode,
        Fact(
            "How the picture is brought to the size of the result",
            labels={"resize": "Stretch", "crop": "Crop to fit", "fill": "Fit, fill the rest"},
        ),
    ] = "crop"
    shows: Annotated[
        Shown,
        Fact(
            "What the picture shows, for a union net",
            means={"automatic": "what the preprocessor makes"},
            labels={"automatic": "What the preprocessor makes"},
        ),
    ] = "automatic"

    @property
    def thresholds(self) -> tuple[float, float]:
        """The numbers of the preprocessor, its usual ones unless they are given; 0 for those that it does not take."""
        taken = PREPROCESSORS[self.preprocessor].thresholds
        given = (self.threshold_a, self.threshold_b)
        values = [one.default if value is None else value for one, value in zip(taken, given, strict=False)]
        first, second, *_ = (*values, 0.0, 0.0)
        return first, second

    @property
    def type(self) -> int | None:
        """The number by which union nets know what the picture shows; None if neither it nor a preprocessor says it."""
        shows = _USUALLY_SHOWN.get(self.preprocessor) if self.shows == "automatic" else self.shows
        return SHOWN.index(shows) if shows else None
