"""How a picture is prepared for a control net: the ways that need no weights, as facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PreprocessorName = Literal["none", "canny", "blur", "tile", "grey", "invert", "inpaint", "threshold"]


@dataclass(frozen=True)
class Threshold:
    """A number that a preprocessor takes."""

    label: str
    least: float
    most: float
    default: float


@dataclass(frozen=True)
class Preprocessor:
    """One way to prepare a picture; `module` is its name in the text that pictures carry."""

    module: str
    label: str
    thresholds: tuple[Threshold, ...] = ()
    aliases: tuple[str, ...] = ()  # other modules that mean the same


PREPROCESSORS: Final[dict[PreprocessorName, Preprocessor]] = {
    "none": Preprocessor("none", "None: the picture as it is, such as a depth map"),
    "canny": Preprocessor(
        "canny",
        "Canny edges",
        (Threshold("low threshold", 1, 255, 100), Threshold("high threshold", 1, 255, 200)),
    ),
    "blur": Preprocessor("blur_gaussian", "Blur", (Threshold("sigma in pixels", 0.01, 64, 9),)),
    "tile": Preprocessor(
        "tile_resample",
        "Tile: less detail",
        (Threshold("factor by which it is made smaller", 1, 8, 1),),
        ("tile_colorfix", "tile_colorfix+sharp"),
    ),
    "grey": Preprocessor("recolor_luminance", "Grey", (), ("recolor_intensity",)),
    "invert": Preprocessor("invert (from white bg & black line)", "Invert", (), ("invert",)),
    "inpaint": Preprocessor("inpaint_only", "Inpaint: hide the masked part", (), ("inpaint", "inpaint_only+lama")),
    "threshold": Preprocessor("threshold", "Threshold: black and white", (Threshold("level", 0, 255, 127),)),
}
