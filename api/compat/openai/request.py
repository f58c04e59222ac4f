"""What a client of OpenAI's Images API asks for, as the JSON of a job: names and values are translated, not judged."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from werkzeug.datastructures import FileStorage, MultiDict

from api.http.problems import refused
from shared.errors import FieldError, Refused
from shared.params.fields import FileFormat

Quality = Literal["low", "medium", "high", "xhigh", "max"]

STEPS: Final[dict[Quality, int]] = {"low": 12, "medium": 20, "high": 30, "xhigh": 50, "max": 100}
"""Denoising steps by quality."""

MOST_IMAGES: Final = 10
MOST_PARTIAL_IMAGES: Final = 3
_QUALITIES: Final[dict[str, Quality]] = {**{name: name for name in STEPS}, "standard": "medium", "hd": "high"}
_FIDELITY: Final = {"low": 0.75, "high": 0.5}
"""Denoising strength by `input_fidelity`."""

_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE: Final = 25  # its place in a PNG
_WITH_ALPHA: Final = (4, 6)
_TRANSPARENT: Final = b"tRNS"
_IN_ITS_STEAD: Final = {
    "count": "n",
    "width": "size",
    "height": "size",
    "format": "output_format",
    "file_quality": "output_compression",
}
_NOT_HERE: Final = ("sweep", "upscale")

_LoraName = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern="^[^<>:]+$")]


class Lora(BaseModel):
    """A LoRA that joins the prompt."""

    model_config = ConfigDict(extra="forbid")

    name: _LoraName
    weight: float = 1.0


class ImageRequest(BaseModel):
    """Pictures to render. Null means that a field is left out.

    Any other parameter of `POST /api/v1/jobs` may stand beside these and means the same as there.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    prompt: str
    model: str | None = Field(None, description="A checkpoint of the farm; any other name means its first one.")
    n: int | None = Field(None, ge=1, le=MOST_IMAGES, description="Number of pictures.")
    size: str | None = Field(None, description="WIDTHxHEIGHT, or `auto`: the checkpoint's own.")
    quality: Quality | Literal["auto", "standard", "hd"] | None = Field(
        None, description=f"Steps: {', '.join(f'{name} {steps}' for name, steps in STEPS.items())}."
    )
    background: Literal["auto", "opaque"] | None = Field(None, description="Pictures of the farm are opaque.")
    output_format: FileFormat | None = None
    output_compression: int | None = Field(None, ge=0, le=100, description="Quality of JPEG and WebP; left out: 95.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="`url`: links beside the pictures; they need the same key."
    )
    stream: bool | None = Field(None, description="Answer with events.")
    partial_images: int | None = Field(
        None, ge=0, le=MOST_PARTIAL_IMAGES, description="Previews of each picture, in a stream."
    )
    moderation: str | None = Field(None, description="Without effect, as the four below.")
    style: str | None = None
    complexity: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    steps: int | None = Field(None, description="Denoising steps, instead of a quality.")
    num_inference_steps: int | None = Field(None, description="The same.")
    seed: int | None = None
    negative_prompt: str | None = None
    cfg_scale: float | None = None
    guidance_scale: float | None = Field(None, description="The same as `cfg_scale`.")
    sampler: str | None = None
    checkpoint: str | None = Field(None, description="As `model`, but an unknown name is refused.")
    loras: dict[_LoraName, float] | list[_LoraName | Lora] | None = Field(
        None, description='LoRAs by name: `{"ink": 0.8}`, `["ink"]` or `[{"name": "ink", "weight": 0.8}]`.'
    )
    input_fidelity: Literal["low", "high"] | None = Field(None, description="Of edits: `high` repaints less.")
    strength: float | None = Field(None, description="Of edits: how much is repainted, from 0 to 1.")


@dataclass(frozen=True)
class Wanted:
    """The pictures that are asked for, and how the answer looks."""

    job: Mapping[str, Any]  # what POST /api/v1/jobs takes, except for the checkpoint that `model` may name
    model: str | None
    quality: Quality | None  # None: the steps were given
    with_links: bool
    partial_images: int | None  # None: no stream
    kind: Literal["image_generation", "image_edit"] = "image_generation"


def generation(given: object) -> Wanted:
    """Return what a JSON body asks for. Raises Refused that names every bad field."""
    if not isinstance(given, dict):
        raise _refused("body", "must be an object", 'a JSON object such as {"prompt": "a lake at dawn"}')
    return _wanted(given, {})


def edit(form: MultiDict[str, str], files: MultiDict[str, FileStorage]) -> Wanted:
    """Return what a form with a picture, and perhaps a mask, asks for. Raises Refused that names every bad field."""
    pictures = [*files.getlist("image"), *files.getlist("image[]")]
    if len(pictures) != 1:
        how_many = f"holds {len(pictures)} pictures" if pictures else "is missing"
        raise _refused("image", how_many, "one picture, in the field `image` or `image[]` of a form")
    if "markup" in files:
        raise _refused("markup", "is not understood here", "a mask, or a ControlNet by POST /api/v1/jobs")
    img2img: dict[str, Any] = {"picture": _data_url(pictures[0].read())}
    if mask := files.get("mask"):
        img2img["mask"] = {"picture": _data_url(_with_alpha(mask.read())), "invert": True}
    return _wanted({name: _plain(name, form[name]) for name in form}, img2img)


def _wanted(given: Mapping[str, Any], img2img: dict[str, Any]) -> Wanted:
    try:
        asked = ImageRequest.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise refused(error) from None
    if problems := tuple(_elsewhere(asked)):
        raise Refused("The request cannot be accepted.", problems)
    steps = asked.steps if asked.steps is not None else asked.num_inference_steps
    named = _QUALITIES.get(asked.quality or "auto")  # None: the farm's own choice
    strength = asked.strength if asked.strength is not None else _FIDELITY.get(asked.input_fidelity or "")
    if img2img and strength is not None:
        img2img["denoising"] = strength
    job = {
        **(asked.model_extra or {}),
        "prompt": " ".join([asked.prompt, *_tags(asked)]),
        "negative_prompt": asked.negative_prompt,
        "count": asked.n,
        "format": asked.output_format,
        "file_quality": None if asked.output_compression is None else max(1, asked.output_compression),
        "steps": STEPS[named] if steps is None and named else steps,
        "cfg_scale": asked.cfg_scale if asked.cfg_scale is not None else asked.guidance_scale,
        "seed": asked.seed,
        "sampler": asked.sampler,
        "checkpoint": asked.checkpoint,
        "img2img": img2img or None,
        **_sides(asked.size or "auto"),
    }
    return Wanted(
        {name: value for name, value in job.items() if value is not None},
        asked.model,
        None if steps is not None else named or "medium",
        asked.response_format == "url",
        (asked.partial_images or 0) if asked.stream else None,
        "image_edit" if img2img else "image_generation",
    )


def _elsewhere(asked: ImageRequest) -> Iterator[FieldError]:
    """Yield the parameters of a job that have another name or no place at this door."""
    for name in asked.model_extra or {}:
        if name in _IN_ITS_STEAD:
            yield FieldError(_IN_ITS_STEAD[name], f"is the name of `{name}` here", f"`{_IN_ITS_STEAD[name]}`")
        elif name in _NOT_HERE:
            yield FieldError(name, "is not understood here", "a request to POST /api/v1/jobs")


def _tags(asked: ImageRequest) -> Iterator[str]:
    """Yield the tags of the prompt that name the LoRAs."""
    loras = asked.loras or []
    if isinstance(loras, dict):
        loras = [Lora(name=name, weight=weight) for name, weight in loras.items()]
    for one in loras:
        lora = Lora(name=one) if isinstance(one, str) else one
        yield f"<lora:{lora.name}:{lora.weight:g}>"


def _sides(size: str) -> dict[str, int]:
    """Return width and height; none of `auto`. Raises Refused."""
    if size == "auto":
        return {}
    sides = _SIZE.fullmatch(size)
    if not sides:
        raise _refused("size", f"{size[:20]!r} is not a size", "auto, or WIDTHxHEIGHT such as 512x768")
    return {"width": int(sides[1]), "height": int(sides[2])}


def _plain(name: str, text: str) -> object:
    """Return the value of a field of a form: of those that a job alone knows JSON, where it is that."""
    if name in ImageRequest.model_fields and name != "loras":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _data_url(data: bytes) -> str:
    return f"data:;base64,{base64.b64encode(data).decode()}"


def _with_alpha(mask: bytes) -> bytes:
    """Return a mask that says by its transparency what is repainted. Raises Refused."""
    is_png = mask.startswith(_PNG) and len(mask) > _COLOUR_TYPE
    if not is_png or not (mask[_COLOUR_TYPE] in _WITH_ALPHA or _TRANSPARENT in mask.partition(b"IDAT")[0]):
        raise _refused("mask", "has no transparency", "a PNG that is transparent where the picture is repainted")
    return mask


def _refused(field: str, message: str, accepted: str) -> Refused:
    return Refused("The request cannot be accepted.", (FieldError(field, message, accepted),))
