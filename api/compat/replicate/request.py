"""What a client of Replicate asks for, as the JSON of a job: names are translated, not judged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.http.problems import refused
from api.schemas.jobs import API
from shared.errors import FieldError, Refused

NAMES: Final = {
    "num_outputs": "count",
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "scheduler": "sampler",
    "output_format": "format",
    "output_quality": "file_quality",
}
"""Fields of `input` that the farm calls otherwise."""

SAMPLERS: Final = {
    "K_EULER": "Euler",
    "K_EULER_ANCESTRAL": "Euler a",
    "HeunDiscrete": "Heun",
    "DPMSolverMultistep": "DPM++ 2M",
    "KarrasDPM": "DPM++ 2M Karras",
}
"""Schedulers of Replicate's models; others go by the farm's names."""

_VALUES: Final[Mapping[str, Mapping[Any, object]]] = {
    "scheduler": SAMPLERS,
    "output_format": {"jpg": "jpeg"},
    "output_quality": {0: 1},  # the lowest
}
_WITHOUT_EFFECT: Final = ("disable_safety_checker", "apply_watermark", "go_fast")
_UPLOAD: Final = re.compile(rf"https?://[^/]+{API}/uploads/([0-9a-f]{{64}})", re.ASCII)
_EVENT: Final = "completed"


class PredictionRequest(BaseModel):
    """A prediction to make."""

    model_config = ConfigDict(extra="ignore")

    version: str | None = Field(None, description="A checkpoint by hash or name; any other means the farm's first one.")
    input: dict[str, Any] | None = Field(None, description="Parameters, by Replicate's names or the farm's.")
    webhook: str | None = Field(None, description="Gets the farm's own message when the prediction has ended.")
    webhook_events_filter: list[str] | None = Field(None, description=f"Only `{_EVENT}` is sent.")
    webhook_completed: str | None = None


def prediction(given: object) -> PredictionRequest:
    """Return the request that a JSON body holds. Raises Refused."""
    if not isinstance(given, dict):
        raise Refused("The body is not an object.", (FieldError("body", "must be an object", '{"input": {…}}'),))
    try:
        return PredictionRequest.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise refused(error) from None


def job(asked: PredictionRequest, checkpoint: str | None) -> dict[str, Any]:
    """Return the JSON of the job that makes a prediction; `checkpoint` counts unless the input names one.

    Raises Refused.
    """
    if asked.webhook_events_filter and _EVENT not in asked.webhook_events_filter:
        wrong = FieldError("webhook_events_filter", "names no event that the farm sends", f"`{_EVENT}`")
        raise Refused("The request cannot be accepted.", (wrong,))
    address = asked.webhook or asked.webhook_completed
    around = {"checkpoint": checkpoint, "webhook": address}
    return {name: value for name, value in around.items() if value} | dict(_translated(asked.input or {}))


def _translated(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a job that an input names."""
    for name, value in given.items():
        if value is None or name in _WITHOUT_EFFECT or name in {"image", "mask", "prompt_strength"}:
            continue
        values = _VALUES.get(name, {})
        yield NAMES.get(name, name), values.get(value, value) if type(value) in (str, int) else value
    if given.get("image"):
        yield "img2img", _img2img(given)


def _img2img(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"picture": _picture(given["image"])}
    if given.get("prompt_strength") is not None:
        found["denoising"] = given["prompt_strength"]
    if given.get("mask"):
        found["mask"] = {"picture": _picture(given["mask"])}
    return found


def _picture(given: object) -> object:
    """Return the upload that an address of this farm names; data URLs are left as they are."""
    upload = _UPLOAD.fullmatch(given) if isinstance(given, str) else None
    return upload[1] if upload else given
