"""Texts of InvokeAI: its metadata of today, of its second version (`sd-metadata`), and the command of its first."""

from __future__ import annotations

import re
from typing import Any, Final

from shared.infotext.found import Json

DREAM: Final = "Dream"
_COMMAND: Final = re.compile(r'\s*"((?:\\.|[^\\"])*)"(.*)', re.DOTALL)
_OPTION: Final = re.compile(r"(?:^|\s)(--?\w[\w-]*)(?:[ =]*([^\s-][^\s]*))?")
_OPTIONS: Final = {"-s": "steps", "-S": "seed", "-W": "width", "-H": "height", "-C": "cfg_scale", "-A": "sampler"}
_UNWANTED: Final = re.compile(r"\[([^\[\]]*)\]")  # what an old prompt should not show
_HARMLESS: Final = frozenset(
    {"app_version", "type", "generation_mode", "threshold", "perlin", "model_hash", "rand_device"}
)


def is_own(document: Json) -> bool:
    """Tell whether a JSON object is InvokeAI's."""
    is_second = isinstance(document.get("image"), dict) and ("model_weights" in document or "app_id" in document)
    return is_second or "positive_prompt" in document or isinstance(document.get(DREAM), str)


def flat(document: Json) -> dict[str, Any]:
    """Return its fields as other programs have them."""
    if isinstance(command := document.get(DREAM), str):
        return _of_command(command)
    if isinstance(image := document.get("image"), dict):
        prompt = image.get("prompt")
        parts = prompt if isinstance(prompt, list) else [{"prompt": prompt}]
        texts = [str(part.get("prompt", "")) for part in parts if isinstance(part, dict)]
        return _parted(" ".join(texts)) | _values(image) | {"model": document.get("model_weights")}
    skipped, sampler = document.get("clip_skip"), document.get("scheduler")
    said = {name: value for name, value in _values(document).items() if name not in {"clip_skip", "scheduler"}}
    device = "CPU" if document.get("rand_device") == "cpu" else None
    clip_skip = skipped + 1 if isinstance(skipped, int) and skipped else None  # it counts from 0
    return said | {"sampler": sampler, "clip_skip": clip_skip, "RNG": device}


def _values(fields: Json) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _HARMLESS and name != "prompt"}


def _of_command(command: str) -> dict[str, Any]:
    """Return what a command such as `"a cat" -s 50 -S 7 -A k_lms` says."""
    parts = _COMMAND.fullmatch(command)
    if parts is None:
        return {DREAM: command}
    options = {_OPTIONS.get(name, name): value or "True" for name, value in _OPTION.findall(parts[2])}
    return _parted(parts[1].replace('\\"', '"')) | options


def _parted(prompt: str) -> dict[str, str]:
    """Return a prompt and the negative one that stands in square brackets in it."""
    unwanted = ", ".join(text.strip() for text in _UNWANTED.findall(prompt))
    return {"prompt": " ".join(_UNWANTED.sub(" ", prompt).split()), "negative_prompt": unwanted}
