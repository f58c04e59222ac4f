"""Which checkpoints can render one picture together, by their architectures, and why others are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple

from shared.errors import FieldError
from shared.models.architectures import ARCHITECTURES, can_refine, label, shares_latents, starts_from_noise
from shared.models.catalogue import Entry
from shared.params.render import RenderParams
from shared.wording import choices

OWN: Final = "checkpoint"
HIRES: Final = "hires.checkpoint"
REFINER: Final = "refiner.checkpoint"
ORDER: Final = (OWN, HIRES, REFINER)
"""The fields that name checkpoints, each behind those that its file has to suit."""

_SHOWN: Final = 3  # files that a refusal offers


class Requirement(NamedTuple):
    """What the checkpoint of a field has to suit."""

    is_met_by: Callable[[str | None], bool] = lambda _: True  # by an architecture
    fault: str = ""  # of other checkpoints: it follows their names
    accepted: str = ""

    def fits(self, file: Entry) -> bool:
        return self.is_met_by(file.architecture)

    def problems(self, field: str, file: Entry, usable: Iterable[Entry]) -> list[FieldError]:
        """Return what is wrong with `file` in this field, offering those of the `usable` files that fit."""
        if self.fits(file):
            return []
        titles = [one.title for one in islice(filter(self.fits, usable), _SHOWN)]
        accepted = f"{self.accepted}, such as {choices(titles)}" if titles else self.accepted
        return [FieldError(field, f"{file.described} {self.fault}", accepted)]


def requirement(field: str, params: RenderParams, files: Mapping[str, Entry]) -> Requirement:
    """Return what the file of a field has to suit, by the files of the fields before it in ORDER.

    A second pass continues with the latent of the first, so both need the same latent space. A refiner takes over in
    the second pass if there is one.
    """
    if field == OWN and params.img2img is None:
        fault = "only renders pictures that start from another one: it was not trained on pure noise"
        return Requirement(starts_from_noise, fault, "img2img with a picture, or another checkpoint")
    first, second = files.get(OWN), files.get(HIRES)
    if field == HIRES and first:
        return _beside(first, shares_latents, "cannot continue with the latents of")
    if field == REFINER and (taken_over := second or first):
        return _beside(taken_over, can_refine, "cannot take over from")
    return Requirement()


def _beside(other: Entry, rule: Callable[[str | None, str | None], bool], fault: str) -> Requirement:
    """Return the requirement that `rule(architecture, that of the other)` is true."""

    def is_met_by(architecture: str | None) -> bool:
        return rule(architecture, other.architecture)

    labels = [label(name) for name in filter(is_met_by, ARCHITECTURES)] or [label(other.architecture)]
    return Requirement(is_met_by, f"{fault} {other.described}", f"a checkpoint of {choices(labels)}")
