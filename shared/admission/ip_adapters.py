"""The IP-Adapters that parameters name, each with the image encoder that it reads pictures by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Final

from shared.admission.adapters import fitting
from shared.admission.control_nets import STEERED, ends_early
from shared.errors import FieldError, Refused
from shared.models import image_encoders
from shared.models.catalogue import Catalogue, Entry
from shared.params.render import RenderParams
from shared.wording import choices

_SHOWN: Final = 3  # image encoders that a refusal offers


@dataclass
class NamedIPAdapters:
    """The IP-Adapters of parameters with their image encoders, and the problems of those that cannot be used."""

    files: dict[str, Entry] = field(default_factory=dict)  # by dotted field name
    problems: list[FieldError] = field(default_factory=list)

    @property
    def roles(self) -> dict[str, list[str | None]]:
        """The roles of a model set; empty: there are no IP-Adapters."""
        if not self.files:
            return {}
        return {"ip_adapters": self._hashes("model"), "image_encoders": self._hashes("image_encoder")}

    def _hashes(self, field: str) -> list[str | None]:
        return [file.sha256 for name, file in self.files.items() if name.endswith(f".{field}")]


def named_ip_adapters(catalogue: Catalogue, params: RenderParams, files: Mapping[str, Entry]) -> NamedIPAdapters:
    """Return the IP-Adapters that `params` name; `files` are their checkpoints by dotted field name."""
    found = NamedIPAdapters()
    bases = [files[name] for name in STEERED if name in files]
    for number, unit in enumerate(params.ip_adapters):
        at = f"ip_adapters.{number}"
        found.problems += [*ends_early(unit, at)]
        try:
            found.files[f"{at}.model"] = adapter = fitting(catalogue, unit.model, "ip-adapter", bases)
        except Refused as refused:
            found.problems += [replace(problem, field=f"{at}.model") for problem in refused.fields]
            continue
        try:
            found.files[f"{at}.image_encoder"] = _encoder(catalogue, unit.image_encoder, adapter)
        except Refused as refused:  # without a name the adapter is what cannot be used
            name = "image_encoder" if unit.image_encoder else "model"
            found.problems += [replace(problem, field=f"{at}.{name}") for problem in refused.fields]
    return found


def _encoder(catalogue: Catalogue, name: str, adapter: Entry) -> Entry:
    """Return the image encoder that `name` means, or the usual one that fits. Raises Refused, NotLooked."""
    fits = partial(_fits, adapter)
    if name:
        return _fitting(catalogue, catalogue.resolve(name, "image-encoder", is_offered=fits), adapter)
    if file := catalogue.first("image-encoder", fits, lambda encoder: image_encoders.rank(encoder, adapter.details)):
        return file
    wanted = image_encoders.wanted(adapter.details)
    message = f"{adapter.name} needs the image encoder {wanted.name}, which is not here"
    broken = [f"{file.name} cannot be used: {file.reason}" for file in catalogue.entries("image-encoder")]
    reason = "; ".join([message, *(one.removesuffix(".") for one in broken[:1])])
    raise Refused(f"{reason}.", (FieldError("model", reason, wanted.place),))


def _fitting(catalogue: Catalogue, encoder: Entry, adapter: Entry) -> Entry:
    """Return an image encoder that was named. Raises Refused if its features are not those that an adapter reads."""
    if _fits(adapter, encoder):
        return encoder
    reads = adapter.details
    message = (
        f"{encoder.name} makes {reads.image_features} features of width "
        f"{image_encoders.width(encoder.details, reads)}, and {adapter.name} reads those of width {reads.image_width}"
    )
    others = filter(partial(_fits, adapter), catalogue.usable("image-encoder"))
    titles = [one.title for one in islice(others, _SHOWN)]
    accepted = choices(titles) if titles else image_encoders.wanted(reads).place
    raise Refused(f"{message}.", (FieldError("image_encoder", message, accepted),))


def _fits(adapter: Entry, encoder: Entry) -> bool:
    return image_encoders.fits(encoder.details, adapter.details)
