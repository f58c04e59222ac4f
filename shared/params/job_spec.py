"""`JobSpec`: the parameters of a job and the axes along which its images differ: `image(i)` are those of image i.

A job without axes varies the seed alone. A sweep has an image for each combination of the values of its axes, which its
contact sheet shows as cells; the last axis varies fastest. Admission works out what each image changes, and its row
holds that: no reader expands a prompt or looks up a name again.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

from shared.params import paths
from shared.params.fields import Parameters, Text
from shared.params.render import RenderParams
from shared.params.table import parameters

MOST_AXES: Final = 3
SeedsOfCells = Literal["same", "each"]
"""Whether all images of a sweep have one seed, or each its own, counted up."""


class SpecialAxis(NamedTuple):
    """What people call an axis that no single parameter stands for: beside its values, and where it is chosen."""

    label: str
    choice: str


SPECIAL: Final[Mapping[str, SpecialAxis]] = {
    "prompt_replace": SpecialAxis("Words of the prompt", "Words of the prompt, replaced"),
    "prompt_order": SpecialAxis("Order of the prompt", "Order of words of the prompt"),
    "prompt_matrix": SpecialAxis("Parts of the prompt", "Parts of the prompt, with and without (a|b|c)"),
    "prompts": SpecialAxis("Prompt", "Prompts, one a line"),
    "dynamic_prompts": SpecialAxis("Prompt", "Choices of the prompt ({a|b}, __name__)"),
    "styles": SpecialAxis("Styles", "Styles"),
    "sampler_schedule": SpecialAxis("Sampler and schedule", "Sampler with schedule"),
    "size": SpecialAxis("Size", "Size"),
    "lora": SpecialAxis("LoRA", "Weight of a LoRA"),
    "lora_name": SpecialAxis("LoRA", "LoRA"),
}
"""The axes that no single parameter stands for."""


class AxisValue(Parameters):
    """One value of an axis; `title` heads its column or row: `15`, `Heun`, `without: sun`."""

    title: Text


class Axis(Parameters):
    """One way in which the images of a sweep differ."""

    field: Text  # the dotted name of a parameter, or one of the axes that no single parameter stands for
    values: Annotated[tuple[AxisValue, ...], Field(strict=False, min_length=1)]
    of: Text = ""  # what such an axis varies: the name of a LoRA, the words that are replaced

    @property
    def label(self) -> str:
        """What people call it: `CFG scale`."""
        if (known := parameters().get(paths.field_name(self.field))) is not None:
            return known.label
        if self.field in SPECIAL:
            return SPECIAL[self.field].label
        return self.field.rpartition(".")[2].replace("_", " ").capitalize()


class Sweep(Parameters):
    """What a job stores beside its parameters if it has axes."""

    axes: Annotated[tuple[Axis, ...], Field(strict=False, min_length=1, max_length=MOST_AXES)]
    seeds: SeedsOfCells = "same"
    language: Text = "en"  # that its contact sheet is drawn in
    full_steps: Annotated[int | None, Field(ge=1)] = None  # of a draft with fewer


@dataclass(frozen=True)
class JobSpec:
    """The complete parameters of all images of a job, as far as their changes are known here."""

    params: RenderParams  # of the whole job: their count is the number of its images
    axes: tuple[Axis, ...] = ()
    changes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """By the index of an image: dotted name of a parameter -> value, as JSON has it."""
    read: Mapping[int, RenderParams] = field(default_factory=dict, repr=False)
    """The parameters of images whose changes a reader of rows has applied already."""
    sweep: Sweep | None = None

    def image(self, index: int) -> RenderParams:
        """Return the parameters of image `index` alone. Raises KeyError if its changes are not known here."""
        if index in self.read:
            return self.read[index]
        if index in self.changes or self.axes:
            return changed(self.params, self.changes[index])
        return self.params.image(index)

    def cell(self, index: int) -> tuple[int, ...]:
        """Return the place of image `index` on each axis; empty for a job without axes."""
        sizes = [len(axis.values) for axis in self.axes]
        return tuple(index // prod(sizes[at + 1 :]) % size for at, size in enumerate(sizes))

    def titles(self, index: int) -> tuple[str, ...]:
        """Return the title of image `index` on each axis: `("15", "Heun")`."""
        return tuple(axis.values[at].title for axis, at in zip(self.axes, self.cell(index), strict=True))


def changed(params: RenderParams, changes: Mapping[str, Any]) -> RenderParams:
    """Return the parameters of one image that has other values than its job. Raises ValidationError, PathError."""
    return RenderParams.model_validate(put_changes(params.model_dump(mode="json", exclude_defaults=True), changes))


def put_changes(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as a row holds them, with other values at these dotted names, for one image.

    Groups that are not there are made. Raises PathError.
    """
    given = deepcopy(dict(stored))
    for name in paths.in_order(changes):
        paths.put(given, name, deepcopy(changes[name]))
    return given | {"count": 1}
