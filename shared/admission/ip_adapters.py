"""The IP-Adapters that parameters name, each with the image encoder that it reads pictures by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from shared.admission.adapters import fitting
from shared.admission.control_nets import STEERED
from shared.errors import FieldError, Refused
from shared.models import image_encoders
from shared.models.catalogue import Catalogue, Entry
from shared.params.ip_adapter import IPAdapterUnit
from shared.params.render import RenderParams


@dataclass
class NamedIPAdapters:
    """The files of the IP-Adapters of parameters, and the problems of those that cannot be used."""

    files: dict[str, Entry] = field(default_factory=dict)  # by dotted field name
    encoders: list[Entry] = field(default_factory=list)  # of each of them
    problems: list[FieldError] = field(default_factory=list)

    @property
    def roles(self) -> dict[str, list[str | None]]:
        """The roles of a model set; empty: there are no IP-Adapters."""
        if not self.files:
            return {}
        return {
            "ip_adapters": [file.sha256 for file in self.files.values()],
            "image_encoders": [file.sha256 for file in self.encoders],
        }


def named_ip_adapters(catalogue: Catalogue, params: RenderParams, files: Mapping[str, Entry]) -> NamedIPAdapters:
    """Return the IP-Adapters that `params` name; `files` are their checkpoints by dotted field name."""
    found = NamedIPAdapters()
    bases = [files[name] for name in STEERED if name in files]
    for number, unit in enumerate(params.ip_adapters):
        at = f"ip_adapters.{number}"
        found.problems += [*_impossible(unit, at)]
        try:
            adapter = fitting(catalogue, unit.model, "ip-adapter", bases)
            found.encoders.append(_encoder(catalogue, adapter))
            found.files[f"{at}.model"] = adapter
        except Refused as refused:
            found.problems += [replace(problem, field=f"{at}.model") for problem in refused.fields]
    return found


def _encoder(catalogue: Catalogue, adapter: Entry) -> Entry:
    """Return the first image encoder whose features an adapter reads. Raises Refused, NotLooked."""

    def fits(encoder: Entry) -> bool:
        return image_encoders.fits(encoder.details, adapter.details)

    if file := catalogue.first("image-encoder", fits):
        return file
    wanted = image_encoders.wanted(adapter.details)
    message = f"{adapter.name} needs the image encoder {wanted.name}, which is not here"
    broken = [f"{file.name} cannot be used: {file.reason}" for file in catalogue.entries("image-encoder")]
    reason = "; ".join([message, *(one.removesuffix(".") for one in broken[:1])])
    raise Refused(f"{reason}.", (FieldError("model", reason, wanted.place),))


def _impossible(unit: IPAdapterUnit, at: str) -> Iterator[FieldError]:
    """Yield what is wrong with the options of an adapter, whatever its file."""
    if unit.start >= unit.end:
        yield FieldError(f"{at}.end", f"is {unit.end:g}, where start is {unit.start:g}", "a larger share than start")
