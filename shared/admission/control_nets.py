"""The control nets that parameters name: each resolved in the catalogue, or refused with what would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from shared.admission.accepted import PICTURE
from shared.admission.adapters import fitting
from shared.errors import FieldError, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.params.controlnet import SHOWN, ControlUnit
from shared.params.ip_adapter import IPAdapterUnit
from shared.params.preprocessors import PREPROCESSORS
from shared.params.render import RenderParams
from shared.wording import choices

STEERED: Final = ("checkpoint", "hires.checkpoint")
"""The fields of the checkpoints that control nets and IP-Adapters steer; refiners go without."""


@dataclass
class NamedControlNets:
    """The files of the control nets of parameters, and the problems of those that cannot steer the checkpoints."""

    files: dict[str, Entry] = field(default_factory=dict)  # by dotted field name
    problems: list[FieldError] = field(default_factory=list)

    @property
    def roles(self) -> dict[str, list[str | None]]:
        """The roles of a model set; empty: there are no control nets."""
        return {"controls": [file.sha256 for file in self.files.values()]} if self.files else {}


def named_control_nets(catalogue: Catalogue, params: RenderParams, files: Mapping[str, Entry]) -> NamedControlNets:
    """Return the control nets that `params` name; `files` are their checkpoints by dotted field name."""
    found = NamedControlNets()
    bases = [files[name] for name in STEERED if name in files]
    for number, unit in enumerate(params.controlnet):
        at = f"controlnet.{number}"
        found.problems += [*impossible(unit, params, at)]
        try:
            found.files[f"{at}.model"] = file = fitting(catalogue, unit.model, "controlnet", bases)
            found.problems += [*_unknown_type(unit, file, at)]
        except Refused as refused:
            found.problems += [replace(problem, field=f"{at}.model") for problem in refused.fields]
    return found


def ends_early(unit: ControlUnit | IPAdapterUnit, at: str) -> Iterator[FieldError]:
    """Yield the problem of a unit that ends before it begins."""
    if unit.start >= unit.end:
        yield FieldError(f"{at}.end", f"is {unit.end:g}, where start is {unit.start:g}", "a larger share than start")


def impossible(unit: ControlUnit, params: RenderParams, at: str) -> Iterator[FieldError]:
    """Yield what is wrong with the options of a control net, whatever its file."""
    if unit.picture is None and params.img2img is None:
        yield FieldError(f"{at}.picture", "is missing: img2img has no picture that it could follow", PICTURE)
    if unit.preprocessor == "inpaint" and (params.img2img is None or params.img2img.repaints is None):
        others = choices([name for name in PREPROCESSORS if name != "inpaint"])
        yield FieldError(
            f"{at}.preprocessor", "hides what img2img.mask masks, and there is no mask", f"a mask, or {others}"
        )
    yield from ends_early(unit, at)
    taken = PREPROCESSORS[unit.preprocessor].thresholds
    for name, one in zip(("threshold_a", "threshold_b"), taken, strict=False):
        value = getattr(unit, name)
        if value is not None and not one.least <= value <= one.most:
            bounds = f"a number from {one.least:g} to {one.most:g}, or null ({one.default:g})"
            yield FieldError(f"{at}.{name}", f"is {value:g}, as the {one.label} of {unit.preprocessor}", bounds)


def _unknown_type(unit: ControlUnit, file: Entry, at: str) -> Iterator[FieldError]:
    """Yield the problem of a union net that is not told what its picture shows, or was not trained on that."""
    types = file.details.types
    if types is not None and (unit.type is None or unit.type >= types):
        known = choices(SHOWN[:types])
        what = f"is {unit.shows if unit.type is None else SHOWN[unit.type]}"
        yield FieldError(f"{at}.shows", f"{what}, and {file.name} is a union of control nets for {known}", known)
