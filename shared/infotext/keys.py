"""Which name each parameter has in the text of a picture, for writing and for reading; from the parameters' facts.

Names, order and values are the ecosystem's if it has them. Other names are the farm's own, and other programs skip
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydantic import BaseModel

from shared.params import codecs, facts, paths
from shared.params.render import RenderParams
from shared.params.table import Parameter, groups, optional_groups, parameters

_ORDER: Final = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Face restoration", "Size"),
    *("Model hash", "Model", "VAE hash", "VAE"),
    *("Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength"),
    *("Conditional mask weight", "Clip skip", "ENSD", "RNG", "Tiling"),
    *("Hires checkpoint", "Hires sampler", "Hires prompt", "Hires negative prompt", "Hires schedule type"),
    *("Hires upscale", "Hires resize", "Hires steps", "Hires upscaler", "Hires upscaler hash"),
    *("Mask mode", "Mask blur", "Inpaint area", "Masked area padding", "Masked content", "Soft inpainting enabled"),
    *("Noise multiplier", "Refiner", "Refiner switch at", "Emphasis"),
    *("Schedule min sigma", "Schedule max sigma", "Schedule rho", "Discard penultimate sigma"),
    *("Eta", "Eta DDIM", "Sigma churn", "Sigma tmin", "Sigma tmax", "Sigma noise"),
    *("NGMS", "NGMS all steps", "Skip Early CFG", "Extra noise", "Noise Schedule"),
    *("Tiling axis", "CFG rescale", "Init picture", "Resize mode", "Exact steps", "Color correction", "Mask picture"),
    *("SDXL original size", "SDXL crop", "SDXL target size", "SDXL CLIP-L skip", "Exact", "Film", "File format"),
)
"""The order of the text, which other programs share up to `Tiling axis`; other names come last, group by group."""
_ABSENT: Final = object()


@dataclass(frozen=True)
class Key:
    """One name of the text with the dotted names of the fields that it stands for."""

    name: str
    fields: tuple[str, ...]
    fact: facts.Key
    codec: codecs.Codec
    defaults: tuple[object, ...]  # _ABSENT for a field without one
    group: facts.Group | None
    is_sign: bool  # of the fields around it, if they are optional: where the key stands, they were used

    @property
    def around(self) -> str:
        """The dotted name of the group of fields that these belong to; empty: none."""
        return self.fields[0].rpartition(".")[0]

    def written(self, params: BaseModel) -> str | None:
        """Return the value in the text; None where the key is not written. An empty one says nothing either."""
        values = tuple(paths.get(params, name, _ABSENT) for name in self.fields)
        if _ABSENT in values or not self.fact.applies(params):
            return None
        if not self.fact.is_always and values == self.defaults:
            return None
        return self.codec.write(*values) or None


@cache
def keys(model: type[BaseModel] = RenderParams) -> tuple[Key, ...]:
    """Return every key of the parameters of a model, in the order of the text."""
    table = parameters(model)
    order = {name: at for at, name in enumerate(_ORDER)}
    places = {group: at for at, group in enumerate([*groups(table), None])}
    found = [key for one in table.values() if not one.is_in_list for key in _keys(one, table)]
    return tuple(sorted(found, key=lambda key: (order.get(key.name, len(order)), places[key.group])))


@cache
def signs(model: type[BaseModel] = RenderParams) -> dict[str, frozenset[str]]:
    """Return by optional group the names of which any shows that a picture has the group."""
    found = {
        group: [key for key in keys(model) if key.around == group and key.is_sign]
        for group in optional_groups(parameters(model))
    }
    for group, its in found.items():
        if not any(key.fact.is_always or _ABSENT in key.defaults for key in its):
            raise TypeError(f"{group}: an optional group needs a key that is always written and is a sign of it")
    return {group: frozenset(key.name for key in its) for group, its in found.items()}


def _keys(parameter: Parameter, table: Mapping[str, Parameter]) -> Iterator[Key]:
    around = parameter.name.rpartition(".")[0]
    for fact in parameter.fact.keys:
        names = (parameter.name, *(f"{around}.{name}" if around else name for name in fact.beside))
        yield Key(
            name=fact.name,
            fields=names,
            fact=fact,
            codec=fact.codec or codecs.of_type(parameter.kind),
            defaults=tuple(_ABSENT if table[name].is_required else table[name].default for name in names),
            group=parameter.group,
            is_sign=parameter.is_required or fact.is_sign,
        )


signs()  # an optional group without a sign would be written and never read back: better no farm starts

PROMPT: Final = "Verbatim prompt"
NEGATIVE_PROMPT: Final = "Verbatim negative prompt"
"""Our own too: a prompt whose lines in the text would be read as something else."""

_ALIASES: Final = {
    "Hires scale": "Hires upscale",
    "Scheduler": "Schedule type",
    "Schedule": "Schedule type",
    "Sampler name": "Sampler",
    "Sampling method": "Sampler",
    "Sampling steps": "Steps",
    "CFG": "CFG scale",
    "Guidance scale": "CFG scale",
    "Denoise": "Denoising strength",
    "Checkpoint": "Model",
    "Noise schedule type": "Schedule type",
}
"""Names that other programs have for the same values."""
_FURTHER_NAMES: Final = (
    *(
        "Version",
        "App",
        "Hashes",
        "Lora hashes",
        "Hypernet hashes",
        "TI hashes",
        "Civitai resources",
    ),
    *("Civitai metadata", "Batch size", "Batch pos", "Token merging ratio", "Hires size", "Operations"),
)
"""Names that show that a line holds values, although nothing is read from them."""
_NAMES: Final = {
    **{name.casefold(): name for name in (*_FURTHER_NAMES, PROMPT, NEGATIVE_PROMPT, *(key.name for key in keys()))},
    **{alias.casefold(): name for alias, name in _ALIASES.items()},
}


def canonical(name: str) -> str:
    """Return the name that the farm has for a value, whatever its case; one that is not known as it is."""
    return _NAMES.get(name.casefold(), name)


def is_known(name: str) -> bool:
    """Tell whether a name is one of these texts'."""
    return name.casefold() in _NAMES
