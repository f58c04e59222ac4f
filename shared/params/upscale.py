"""The parameters of a job that enlarges pictures, each with its facts.

The order of the fields stays as it is, because the digest of an idempotency key depends on it.
"""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field

from shared.params.codecs import NAME
from shared.params.faces import FacesOfUpscale
from shared.params.facts import Fact, Key, Takes
from shared.params.fields import Parameters, Share, SourcePicture, Text, UpscalerName

MOST_KEPT: Final = 65_536  # characters of the text of a source picture
MOST_PICTURES: Final = 64  # of one job, because each claim of an image reads the parameters of the whole job
MOST_TEXT: Final = 262_144  # characters of the texts of all pictures of one job, for the same reason
Side = Annotated[int, Field(ge=0, le=2**16)]


class UpscalePicture(Parameters):
    """One picture to enlarge."""

    picture: Annotated[SourcePicture, Fact("Upload (its SHA-256) or data URL")]
    parameters: Annotated[
        Text, Field(max_length=MOST_KEPT), Fact("Text about how the picture was made, which its result carries on")
    ] = ""


class Upscale(Parameters):
    """Pictures that a job enlarges, each into one image of it. Such a job renders nothing and needs no checkpoint."""

    pictures: Annotated[
        tuple[UpscalePicture, ...],
        Field(strict=False, min_length=1),
        Fact(f"The pictures, at most {MOST_PICTURES}, each makes one image"),
    ]
    scale: Annotated[float, Field(ge=1, le=8), Fact("How many times larger, unless a size is given")] = 2.0
    width: Annotated[Side, Fact("Width in pixels", means={0: "follows from the height, or the scale"})] = 0
    height: Annotated[Side, Fact("Height in pixels", means={0: "follows from the width, or the scale"})] = 0
    upscaler: Annotated[
        UpscalerName,
        Takes("upscaler", role="upscaler"),
        Fact(
            "How the pictures are enlarged",
            keys=(Key("Postprocess upscaler", NAME, is_always=True, is_sign=True),),
        ),
    ] = "Lanczos"
    second: Annotated[
        UpscalerName,
        Takes("upscaler", role="second_upscaler"),
        Fact("A second upscaler, whose result is mixed into the first one's", means={"": "none"}),
    ] = ""
    second_share: Annotated[Share, Fact("Share of the second upscaler in the result")] = 0.5
    faces: Annotated[FacesOfUpscale | None, Fact("Faces to restore in the enlarged pictures")] = None

    @property
    def is_sized(self) -> bool:
        """Whether every result has one size, whatever its picture."""
        return bool(self.width and self.height)

    @property
    def words(self) -> str:
        """`3 pictures enlarged 4 times by 4x-sharp`: what the job does, for people."""
        count = len(self.pictures)
        if self.is_sized:
            how = f"enlarged to {self.width} × {self.height} pixels"
        elif self.width or self.height:
            how = f"enlarged to {self.width or self.height} pixels of {'width' if self.width else 'height'}"
        elif self.scale == 1:
            how = f"kept at {'its' if count == 1 else 'their'} size"
        else:
            how = f"enlarged {self.scale:g} times"
        names = f"{self.upscaler} and {self.second}" if self.second else self.upscaler
        faces = f", faces restored by {self.faces.restorer}" if self.faces else ""
        return f"{count:,} picture{'' if count == 1 else 's'} {how} by {names}{faces}"

    def only(self, index: int) -> Self:
        """Return the same for one of its pictures alone."""
        return self.model_copy(update={"pictures": (self.pictures[index],)})

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of the result for a picture of this size; it keeps the proportions unless both are given."""
        if self.is_sized:
            return self.width, self.height
        if self.width:
            return self.width, max(1, round(height * self.width / width))
        if self.height:
            return max(1, round(width * self.height / height)), self.height
        return round(width * self.scale), round(height * self.scale)
