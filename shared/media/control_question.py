"""What the API asks about a control net: which picture would it be given? `shared.media.control_preview` answers.

It stands apart from its answer, because only the confined process has a use for numpy and scipy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.media.decoder import joined, parted
from shared.params.controlnet import ControlUnit
from shared.params.img2img import Img2Img

Size = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class ControlQuestion:
    """A unit and what its picture depends on; `pictures` are stored PNGs by their role: control, source, mask."""

    unit: ControlUnit
    size: Size  # of the render
    img2img: Img2Img | None
    pictures: Mapping[str, bytes]

    def packed(self) -> bytes:
        head = {
            "unit": self.unit.model_dump(mode="json"),
            "size": self.size,
            "img2img": self.img2img and self.img2img.model_dump(mode="json"),
            "lengths": {role: len(data) for role, data in self.pictures.items()},
        }
        return joined(head, b"".join(self.pictures.values()))

    @classmethod
    def unpacked(cls, packed: bytes) -> ControlQuestion:
        head, data = parted(packed)
        pictures, start = {}, 0
        for role, length in head["lengths"].items():
            pictures[role] = data[start : start + length]
            start += length
        width, height = head["size"]
        over = head["img2img"]
        return cls(
            ControlUnit.model_validate(head["unit"]),
            (width, height),
            None if over is None else Img2Img.model_validate(over),
            pictures,
        )
