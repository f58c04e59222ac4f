"""What each parameter accepts on a farm with its limits, in numbers and in words."""

from __future__ import annotations

from functools import cache
from typing import Final

from shared.params.facts import ValueKind
from shared.params.fields import MAX_SEED, RANDOM_SEED
from shared.params.paths import field_name
from shared.params.pools import POOL_NAMES
from shared.params.samplers import SAMPLERS, SCHEDULES
from shared.params.scheduling import Scheduling
from shared.params.table import Parameter, parameters
from shared.params.upscalers import UPSCALERS
from shared.prompts.tokenizer import MAX_TOKENS
from shared.queue import dependencies
from shared.settings import Limits
from shared.webhooks import addresses
from shared.wording import choices, in_words

PICTURE: Final = "the id of an upload (POST /api/v1/uploads), or a data URL of a PNG, JPEG, WebP, BMP or GIF"
NAMES: Final[dict[ValueKind | None, tuple[str, ...]]] = {
    "sampler": tuple(SAMPLERS),
    "schedule": tuple(SCHEDULES),
}
"""What a parameter that names one chooses from, by the kind of its values."""

_WORDS: Final[dict[ValueKind | None, str]] = {
    **{kind: choices(names) for kind, names in NAMES.items()},
    "upscaler": f"{', '.join(UPSCALERS)}, or the name or hash of an upscaler",
    "checkpoint": "the name or hash of a checkpoint",
    "controlnet": "the name or hash of a ControlNet",
    "ip-adapter": "the name or hash of an IP-Adapter",
    "image-encoder": "the name or hash of an image encoder",
    "face-restorer": "the name or hash of a face restorer",
    "vae": "automatic, none, or the name or hash of a VAE",
    "style": "up to 32 names of styles",
    "picture": PICTURE,
    "seed": f"a whole number from 0 to {MAX_SEED}, or {RANDOM_SEED} for a random one",
    "pool": POOL_NAMES,
    "instant": "a future time with its zone, such as 2030-01-31T03:00:00Z",
    "job": "the id of one of your jobs",
    "jobs": dependencies.ACCEPTED,
    "address": addresses.ACCEPTED,
}


def bounds(limits: Limits) -> dict[str, tuple[float, float]]:
    """Return the least and the most of each field that a farm's limits bound, apart from a 0 that stands for none."""
    return {name: _bounds(one, limits) for name, one in parameters().items() if one.takes.most}


def accepted(path: str, limits: Limits) -> str:
    """Return in words what the field at this dotted path accepts on a farm with these limits."""
    parameter = _known().get(field_name(path))
    if parameter is None:
        return "what the description of the API lists"
    words = _in_words(parameter, limits)
    is_whole_list = parameter.is_list and not path.rpartition(".")[2].isdigit()
    if is_whole_list and parameter.takes.kind == "picture":
        words = f"a list of {parameter.schema['minItems']} to {parameter.schema['maxItems']}, each {words}"
    return f"{words}, or null" if parameter.is_optional else words


@cache
def _known() -> dict[str, Parameter]:
    return {**parameters(), **parameters(Scheduling)}


def _in_words(parameter: Parameter, limits: Limits) -> str:
    kind, means = parameter.takes.kind, parameter.fact.means
    if kind == "prompt":
        return f"text of at most {limits.max_prompt_chars:,} characters and {MAX_TOKENS:,} tokens"
    if kind in _WORDS:
        return f"{_WORDS[kind]}, or empty ({means['']})" if "" in means else _WORDS[kind]
    if parameter.is_group:
        inner = [name.rpartition(".")[2] for name in _known() if name.rpartition(".")[0] == parameter.name]
        bound = f"at most {parameter.schema['maxItems']} " if "maxItems" in parameter.schema else ""
        return f"{f'a list of {bound}objects' if parameter.is_list else 'an object'} of {', '.join(inner)}"
    if not parameter.takes.most:
        return in_words(parameter.schema)
    least, most = _bounds(parameter, limits)
    if "multipleOf" in parameter.schema:
        return f"{least:g} to {most:g} in steps of {parameter.schema['multipleOf']}, or 0 ({means[0]})"
    return f"a {'number' if parameter.kind == 'number' else 'whole number'} from {least:g} to {most:g}"


def _bounds(parameter: Parameter, limits: Limits) -> tuple[float, float]:
    takes = parameter.takes
    least = getattr(limits, takes.least) if takes.least else parameter.schema["minimum"]
    return least, getattr(limits, takes.most)
