"""The fields of `RenderParams` by their dotted names (`steps`, `hires.scale`): what each is, and what it accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from shared.params.render import MAX_SEED, NATIVE_SIZE, RANDOM_SEED, RenderParams
from shared.params.samplers import SAMPLERS, SCHEDULES
from shared.params.upscalers import UPSCALERS
from shared.prompts.tokenizer import MAX_TOKENS
from shared.settings import Limits
from shared.wording import choices, in_words

Schema = Mapping[str, Any]

REQUIRED: Final = "required"
_NATIVE: Final = {"width": "the checkpoint's own", "height": "the checkpoint's own"}
_EMPTY: Final = {"checkpoint": "the farm's own choice", "hires.checkpoint": "the first pass's"}


@dataclass(frozen=True)
class Parameter:
    """One field; a group's own fields stand beside it under its name and a dot."""

    name: str
    description: str
    default: object  # as JSON has it; REQUIRED where there is none
    schema: Schema  # of a value that is not null
    is_optional: bool  # null leaves it out
    is_group: bool

    @property
    def is_required(self) -> bool:
        """True where the group cannot do without it."""
        return self.default == REQUIRED

    @property
    def kind(self) -> str:
        """JSON's word for its values: string, integer, number, boolean, array or object."""
        return str(self.schema["type"])


@cache
def parameters() -> Mapping[str, Parameter]:
    """Return every field by its dotted name, in the order of the model."""
    schema = RenderParams.model_json_schema()
    return {parameter.name: parameter for parameter in _walk(schema, schema["$defs"])}


def siblings(name: str) -> list[str]:
    """Return the dotted names of the fields that stand in the same group as `name` does, or would."""
    group = name.rpartition(".")[0]
    return [known for known in parameters() if known.rpartition(".")[0] == group]


def bounds(limits: Limits) -> dict[str, tuple[float, float]]:
    """Return the least and the most of each field that a farm's limits bound, apart from a 0 that stands for none."""
    size = (limits.min_size, limits.max_size)
    sides = ("width", "height", "noise.resize_width", "noise.resize_height", "hires.width", "hires.height")
    return dict.fromkeys(sides, size) | {
        "steps": (1, limits.max_steps),
        "hires.steps": (0, limits.max_steps),
        "cfg_scale": (0, limits.max_cfg_scale),
        "count": (1, limits.max_count),
    }


def accepted(name: str, limits: Limits) -> str:
    """Return in words what the field of this dotted name accepts on a farm with these limits."""
    name = name.rstrip(".0123456789")  # an item of a list is told of as the list
    parameter = parameters().get(name)
    if parameter is None:
        return "what the description of the API lists"
    told = _named(name, limits) or _bounded(name, limits) or _of_schema(parameter)
    return f"{told}, or null" if parameter.is_optional else told


def _walk(schema: Schema, definitions: Schema, group: str = "") -> Iterator[Parameter]:
    for name, field in schema["properties"].items():
        kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
        inner = definitions[kinds[0]["$ref"].rpartition("/")[2]] if "$ref" in kinds[0] else None
        yield Parameter(
            name=group + name,
            description=field["description"],
            default=field.get("default", REQUIRED),
            schema=inner or kinds[0],
            is_optional="anyOf" in field,
            is_group=inner is not None,
        )
        if inner is not None:
            yield from _walk(inner, definitions, f"{group}{name}.")


def _named(name: str, limits: Limits) -> str | None:
    """Return what a field of names or of text accepts."""
    last = name.rpartition(".")[2]
    if last in {"prompt", "negative_prompt"}:
        return f"text of at most {limits.max_prompt_chars:,} characters and {MAX_TOKENS:,} tokens"
    if last in {"sampler", "schedule"}:
        names = choices([*(SAMPLERS if last == "sampler" else SCHEDULES)])
        return f"{names}, or empty for the first pass's" if "." in name else names
    if last == "checkpoint":
        empty = f", or empty for {_EMPTY[name]}" if name in _EMPTY else ""
        return f"the name or hash of a checkpoint{empty}"
    return {
        "vae": "automatic, none, or the name or hash of a VAE",
        "hires.upscaler": choices(UPSCALERS),
        "styles": "up to 32 names of styles",
        "img2img.picture": PICTURE,
        "img2img.mask.picture": PICTURE,
    }.get(name)


PICTURE: Final = "the id of an upload (POST /api/v1/uploads), or a data URL of a PNG, JPEG, WebP, BMP or GIF"


def _bounded(name: str, limits: Limits) -> str | None:
    """Return what a number accepts that the farm bounds, or that has a value with a meaning of its own."""
    if name.endswith("seed"):
        return f"a whole number from 0 to {MAX_SEED}, or {RANDOM_SEED} for a random one"
    if name not in bounds(limits):
        return None
    least, most = bounds(limits)[name]
    if name.endswith(("width", "height")):
        return f"{least:g} to {most:g} in steps of 8, or {NATIVE_SIZE} for {_NATIVE.get(name, 'none')}"
    kind = "number" if parameters()[name].kind == "number" else "whole number"
    return f"a {kind} from {least:g} to {most:g}"


def _of_schema(parameter: Parameter) -> str:
    """Return what a field accepts by its form alone."""
    schema = parameter.schema
    if parameter.is_group:
        return f"an object of {', '.join(schema['properties'])}"
    return in_words(schema)
