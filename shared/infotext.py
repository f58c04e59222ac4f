"""The `parameters` text of a picture: the form in which the Stable Diffusion ecosystem reads and writes what made it.

prompt, as many lines as it has
Negative prompt: as many lines as it has        (only if there is one)
Steps: 20, Sampler: Euler a, …                  (one line; values that hold a comma, colon or line break are quoted)
"""

from __future__ import annotations

import json
from typing import Final

from shared.catalogue import short_hash
from shared.params import RenderParams
from shared.samplers import AUTOMATIC, SAMPLERS, SCHEDULES

_PLAIN: Final = "uniform"  # the model's own schedule: readers know it as Automatic


def text(params: RenderParams, *, checkpoint_name: str, checkpoint_sha256: str, version: str) -> str:
    """Return the text for one image's parameters, resolved, of count 1."""
    fields = {
        "Steps": str(params.steps),
        "Sampler": params.sampler,
        "Schedule type": _schedule_label(params),
        "CFG scale": _number(params.cfg_scale),
        "Seed": str(params.seed),
        "Size": f"{params.width}x{params.height}",
        "Model hash": short_hash(checkpoint_sha256),
        "Model": checkpoint_name,
        "RNG": "CPU",
        "Version": f"stepfarm {version}",
    }
    negative = f"Negative prompt: {params.negative_prompt}" if params.negative_prompt else ""
    line = ", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items())
    return "\n".join(part for part in (params.prompt, negative, line) if part)


def _schedule_label(params: RenderParams) -> str:
    """Return the label of the schedule that was used; Automatic where that is what the sampler takes of itself."""
    sampler = SAMPLERS[params.sampler]
    if params.schedule == AUTOMATIC and (sampler.automatic == _PLAIN or sampler.automatic not in SCHEDULES):
        return SCHEDULES[AUTOMATIC]
    return SCHEDULES[sampler.schedule(params.schedule)]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _quoted(value: str) -> str:
    needs_quotes = any(mark in value for mark in ',:\n"') or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if needs_quotes else value
