"""What the form is filled in with: nothing, a past job, one of its pictures, or what a picture's file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from werkzeug.datastructures import MultiDict

from api.languages import _
from api.pages import vary
from api.pages.form_data import PICTURE, Given, typed
from api.pages.parameter_table import sides
from api.schemas.jobs import JobBody, PngInfoBody
from shared.jobs.stored import value_words
from shared.params.fields import NATIVE_SIZE, RANDOM_SEED
from shared.params.groups import Hires
from shared.params.render import RenderParams

ENLARGE: Final = "hires"
START_FROM: Final = ("img2img", "inpaint")
"""What a picture can be sent on to."""
USES: Final = {"prompt": ("prompt", "negative_prompt"), "seed": ("seed",)}
"""The parts of a picture's parameters that can be used alone, and their fields."""
EXAMPLES: Final = (
    "a painting of the desert at sunset, three pyramids, sun",
    "a photo of the sea at night, moon, red sailboat",
    "pixel art of a meadow at noon, blue house, clouds",
    "a paper cutout of mountains in the snow at dawn, pine trees",
    "a painting of the sea in a storm, white sailboat",
    "a photo of the desert at dawn, palm tree, sun, mountains",
)
"""Prompts that the demo checkpoint can draw, to begin with."""


_SAME: Final = Hires(upscaler="Lanczos", denoising=0.35)
"""A second pass that keeps what the picture shows; one over an enlarged latent has to repaint most of it."""


@dataclass(frozen=True)
class Origin:
    """What a form is filled in with, and where that comes from, for people."""

    given: Given
    job: int | None = None
    image: int | None = None
    to: str = ""  # what the image is sent on to
    file: str | None = None
    left_out: tuple[str, ...] = ()  # what of a file, or of a newer version's job, cannot be used here
    is_silent: bool = False  # a file that says nothing of how it was made, or nothing that can be read
    before: Given | None = None  # what was typed in the form that a file filled in
    names: tuple[str, ...] = ()  # the fields that are filled in, where the others are to stay as a person left them
    to_be_typed: tuple[str, ...] = ()  # the labels of what varied with values that the rows do not say
    varies: MultiDict[str, str] | None = None  # the rows that vary; None: as they were typed


def fresh() -> Origin:
    """Return the defaults."""
    return Origin(typed(RenderParams().model_dump()))


def of_job(job: JobBody) -> Origin:
    """Return a job's parameters, and what varies in it; a sweep has one image for each combination."""
    one = {"count": 1, "steps": job.full_steps or job.params.steps}
    params = job.params.model_copy(update=one) if job.axes else job.params
    return Origin(
        typed(params.model_dump()),
        job=job.id,
        left_out=_not_understood(job),
        to_be_typed=vary.to_be_typed(job),
        varies=vary.of_job(job),
    )


def of_example(number: int) -> Origin:
    """Return the defaults with one of `EXAMPLES`, counted from 1; without one that is not there."""
    given = fresh().given
    if number > len(EXAMPLES):
        return Origin(given)
    given["prompt"] = EXAMPLES[number - 1]
    return Origin(given, names=("prompt",))


def of_sweep(params: RenderParams, axes: Sequence[tuple[str, Sequence[str]]]) -> Origin:
    """Return parameters and the fields and values that vary beside them."""
    return Origin(typed(params.model_dump()), varies=vary.typed(axes))


def used(job: JobBody, index: int, what: str) -> Origin | None:
    """Return the defaults with a part of one image's parameters, as `USES` names it; None: there is no such part."""
    if what not in USES:
        return None
    given, image = fresh().given, typed(job.spec.image(index).model_dump())
    for name in USES[what]:
        given[name] = image[name]
    return Origin(given, job=job.id, image=index, names=USES[what])


def of_failed(job: JobBody) -> Origin:
    """Return the parameters of the first of a job's `images`, which have failed, for as many as follow it by seed."""
    indexes = [image.index for image in job.images]
    first = job.spec.image(indexes[0])
    together = sum(1 for at, index in enumerate(indexes) if index == indexes[0] + at) if not job.axes else 1
    given = typed(first.model_copy(update={"count": together}).model_dump())
    return Origin(given, job=job.id, image=indexes[0], left_out=_not_understood(job))


def of_image(job: JobBody, index: int, to: str, source: str | None) -> Origin:
    """Return the parameters of one image, changed for what the picture, the upload `source`, is sent on `to`."""
    params = job.spec.image(index)
    given = typed(params.model_dump())
    if to in START_FROM and source:
        given = typed(_started_from(params).model_dump())
        given[PICTURE] = source
    elif to == ENLARGE:  # with the same seed, because the first pass must come out the same
        given = typed(params.model_copy(update={"hires": params.hires or _SAME, "img2img": None}).model_dump())
    else:
        to = ""
    return Origin(given, job=job.id, image=index, to=to, left_out=_not_understood(job))


def of_file(found: PngInfoBody, name: str) -> Origin:
    """Return what a picture's file says; `name` is the file's, for people."""
    return Origin(
        typed(found.params), file=name or _("the picture"), left_out=tuple(found.left_out), is_silent=not found.params
    )


def _not_understood(job: JobBody) -> tuple[str, ...]:
    """Return what a newer version of the farm wrote and this one cannot ask for."""
    return tuple(f"{name}: {value_words(value)}" for name, value in job.not_understood.items())


def _started_from(params: RenderParams) -> RenderParams:
    """Return parameters for starting from the picture, at its size, with another seed.

    The noise that the picture was made of would only burn it in. A picture that was only enlarged may be too large to
    render, and its sides need not be multiples of 8: the farm chooses a size of its proportions.
    """
    width, height = (NATIVE_SIZE, NATIVE_SIZE) if params.upscale else sides(params)
    fresh = {"hires": None, "img2img": None, "seed": RANDOM_SEED, "width": width, "height": height}
    return params.model_copy(update=fresh)
