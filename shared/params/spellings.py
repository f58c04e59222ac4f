"""How samplers and schedules are spelled, here and elsewhere: one table for files, API and command line.

Blanks, underscores, case, a leading `k_`, a trailing `_gpu`, `++` or `pp`, `a` or `ancestral` make no difference, nor
do the class names of diffusers. The rest of a name is looked up among the names and aliases of `SAMPLERS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from shared.params.samplers import SAMPLERS, SCHEDULES

_LONGEST: Final = 60  # characters of a name that is worth looking at
_PREFIX: Final = re.compile(r"^(?:sample_|k[_-])")
_CLASS: Final = re.compile(r"(?:discrete)?scheduler$")
_BETWEEN: Final = re.compile(r"[\s_-]+")
_SUFFIXES: Final = {"k": "karras", "ka": "karras", "exp": "exponential"}  # dpmpp_2m_k, k_dpmpp_2m_ka
_SCHEDULES: Final = {"ddim_uniform": "ddim", "ays": "align_your_steps", "native": "automatic"}
_WITHOUT_COUNTERPART: Final = {
    "ComfyUI": (
        "heunpp2", "ddpm", "ipndm", "ipndm_v", "deis", "er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece",
        "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp",
        "gradient_estimation", "gradient_estimation_cfg_pp", "euler_cfg_pp", "euler_ancestral_cfg_pp",
        "dpmpp_2s_ancestral_cfg_pp", "dpmpp_2m_cfg_pp", "exp_heun_2_x0", "exp_heun_2_x0_sde",
    ),
    "InvokeAI": ("dpmpp_2s", "dpmpp_3m", "tcd"),
    "diffusers": (
        "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "EDMEulerScheduler", "SASolverScheduler",
        "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "CosineDPMSolverMultistepScheduler",
    ),
}  # fmt: skip
_CAVEATS: Final = {"unipcbh2": "its variant bh2 is not available; UniPC in its variant bh1 takes its place"}


class Named(NamedTuple):
    """What a text names: a sampler, and the schedule that a combined name carries with it."""

    sampler: str
    schedule: str | None


def named(text: str) -> Named | None:
    """Return the meaning of `text`, a sampler's name, maybe with a schedule after it: "DPM++ 2M Karras",
    "dpmpp_2m_karras". None for an unknown sampler.
    """
    words = _words(text)
    if sampler := _samplers().get("".join(words)):
        return Named(sampler, None)
    splits = (("".join(words[:at]), "_".join(words[at:])) for at in range(1, len(words)))
    known = (
        Named(_samplers()[name], _SUFFIXES.get(end) or schedule_named(end))
        for name, end in splits
        if name in _samplers()
    )
    return next((one for one in known if one.schedule), None)


def schedule_named(text: str) -> str | None:
    """Return the schedule whose name or label `text` is, in any case and with or without blanks, or None."""
    return _schedules().get(_bare(text)) if len(text) <= _LONGEST else None


def caveat(text: str) -> str | None:
    """Return in which way the sampler that `text` names is another one here; None where it is the same."""
    return _CAVEATS.get("".join(_words(text)))


def home(text: str) -> str | None:
    """Return the program whose sampler `text` is, if it is known to have no counterpart here."""
    words = _words(text)
    heads = ("".join(words[:at]) for at in range(len(words), 0, -1))
    return next((_foreign()[head] for head in heads if head in _foreign()), None)


def _words(text: str) -> list[str]:
    """Return what of a sampler's name makes a difference."""
    if len(text) > _LONGEST:
        return []
    plain = _PREFIX.sub("", text.strip().casefold()).replace("++", "pp").replace("ancestral", "a")
    words = (_CLASS.sub("", _bare(word)) for word in _BETWEEN.split(plain))
    return [word for word in words if word and word != "gpu"]


def _bare(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


@cache
def _samplers() -> Mapping[str, str]:
    return {
        "".join(_words(spelling)): sampler.name
        for sampler in SAMPLERS.values()
        for spelling in (sampler.name, *sampler.aliases)
    }


@cache
def _schedules() -> Mapping[str, str]:
    own = {_bare(spelling): name for name, label in SCHEDULES.items() for spelling in (name, label)}
    return own | {_bare(spelling): name for spelling, name in _SCHEDULES.items()}


@cache
def _foreign() -> Mapping[str, str]:
    return {"".join(_words(name)): program for program, names in _WITHOUT_COUNTERPART.items() for name in names}
