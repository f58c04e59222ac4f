"""Parameters as a person types them into the form, and back: one text a field, as browsers send them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from werkzeug.datastructures import MultiDict

from api.pages.fields import EVERY, FIELDS
from api.pages.fieldsets import SWITCH
from shared.params import paths

Given = MultiDict[str, str]
PICTURE: Final = "img2img.picture"
MASK: Final = "img2img.mask.picture"


def typed(params: Mapping[str, Any]) -> Given:
    """Return parameters, nested as JSON has them, as a person would have typed them; what is missing is default."""
    given = Given()
    for field in FIELDS.values():
        value = paths.get(params, field.name)
        if field.kind == "list":
            given.setlist(field.name, list(value or ()))
        else:
            is_default = value is None or value == field.parameter.default
            given[field.name] = field.default if is_default else field.typed(value)
    given[SWITCH] = "on" if params.get(SWITCH) is not None else ""
    return given


def read(given: Given) -> dict[str, object]:
    """Return what was typed as the API takes it, nested: what was left empty is left out.

    Groups that were not asked for are left out too: the second pass unless its box is ticked, the refiner without a
    checkpoint, img2img without a picture. What such a group holds has no meaning without it.
    """
    params: dict[str, Any] = {SWITCH: {}} if given.get(SWITCH) == "on" else {}
    for field in EVERY.values():
        if not _is_wanted(field.name, given):
            continue
        texts = [text for text in given.getlist(field.name) if text.strip()]
        if texts:
            paths.put(params, field.name, texts if field.kind == "list" else field.read(texts[0]))
    return params


def _is_wanted(name: str, given: Given) -> bool:
    if name.startswith("hires."):
        return given.get(SWITCH) == "on"
    if name.startswith("refiner."):
        return bool(given.get("refiner.checkpoint", "").strip())
    if name.startswith("img2img.mask."):
        return bool(given.get(MASK))
    return not name.startswith("img2img.") or bool(given.get(PICTURE) or given.get(MASK))
