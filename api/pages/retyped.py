"""The values of a sweep that was submitted, as a person types them: its titles, where these tell all of a value."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from api.schemas.jobs import JobBody
from shared.admission.axes import prompts
from shared.admission.axes.notation import BadValues
from shared.params import paths
from shared.params.render import RenderParams
from shared.params.table import Parameter, parameters
from shared.settings import Limits

WITHOUT_VALUES: Final = frozenset({"prompt_matrix", "dynamic_prompts"})
"""Axes that take their values from the prompt."""
_UNTOLD: Final = WITHOUT_VALUES | {"prompts", "lora_name"}  # their values say more than a title does
_WORDS: Final = {"prompt_replace": prompts.replaced, "prompt_order": prompts.ordered}
_EDITS: Final = _WORDS.keys() | {"styles", "lora", "lora_name"}
"""The axes that change the texts of others."""


def values(job: JobBody, place: int) -> list[str]:
    """Return the values of the axis of a job at `place`; none, if they are not certain."""
    axis = job.axes[place]
    if axis.field in _UNTOLD or any(title.endswith("…") for title in axis.values):
        return []
    if axis.field in _WORDS:
        return _words(job, place)
    if axis.field == "lora":
        return [title.rpartition(" ")[2] for title in axis.values]  # behind its name
    parameter = parameters().get(paths.field_name(axis.field))
    if parameter is None:
        return axis.values
    return _texts(job, place) if parameter.takes.kind == "prompt" else _meant(parameter, axis.values)


def _meant(parameter: Parameter, titles: Sequence[str]) -> list[str]:
    """Return the values of a parameter that have these titles; none, where two have the same."""
    means = parameter.fact.means
    if parameter.is_optional:
        return ["none" if title == means.get(None, "none") else title for title in titles]
    if parameter.kind != "string":
        return [*titles]
    known = {*means, *parameter.schema.get("enum", ())}
    empty = means.get("", "none")
    found = ["" if title == empty and title not in known else title for title in titles]
    return found if len({*found}) == len(found) else []


def _texts(job: JobBody, place: int) -> list[str]:
    """Return the prompts of an axis, which a title has in one line, as the images have them."""
    if any(axis.field in _EDITS for axis in job.axes):
        return []
    return [str(paths.get(image, job.axes[place].field)) for image in _images(job, place)]


def _words(job: JobBody, place: int) -> list[str]:
    """Return the words of an axis that replaces or reorders them, if they make the prompts that the images have."""
    field, titles = job.axes[place].field, job.axes[place].values
    words = [*titles]
    if field == "prompt_order":
        words = titles[0].split(", ")
    elif field == "prompt_replace":  # the words searched for come first; nothing in their place has a title too
        words = ["" if title == f"without: {titles[0]}" else title for title in titles]
    texts = [image.of_kind("prompt") for image in _images(job, place)]
    if not texts:
        return []
    first = texts[0]
    try:
        found = _WORDS[field](tuple(words), [*first.values()], Limits())
        made = [{path: one.edit(path, text) for path, text in first.items()} for one in found if one.edit]
    except BadValues:
        return []
    return words if made == texts else []


def _images(job: JobBody, place: int) -> list[RenderParams]:
    """Return an image for each value of an axis, those that have the first of each other; none, if one is missing."""
    step = prod(len(axis.values) for axis in job.axes[place + 1 :])
    try:
        return [job.spec.image(step * at) for at in range(len(job.axes[place].values))]
    except KeyError:
        return []
