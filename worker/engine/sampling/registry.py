"""Samplers: from noise to a latent along falling sigmas, calling a model as in k-diffusion.

Each takes `model` (`denoised = yield from model(x, sigma)`), the latent `x` at the first sigma, the sigmas, `noise`,
which draws the noise of a step, and the options that a person gave. A sampler has no state, device or seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from torch import Tensor

from shared.params.groups import Sampling
from shared.params.samplers import SAMPLERS as FACTS
from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Algorithm, Noise, Options
from worker.engine.sampling.dpm_solver import dpm_adaptive, dpm_fast
from worker.engine.sampling.first_order import ddim_cfgpp, euler, euler_ancestral, lcm
from worker.engine.sampling.multistep import dpmpp_2m, lms, plms
from worker.engine.sampling.planning import Plan, counted
from worker.engine.sampling.pure_noise import from_pure_noise
from worker.engine.sampling.sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from worker.engine.sampling.second_order import dpm_2, dpm_2_ancestral, dpmpp_2s_ancestral, heun, restart
from worker.engine.sampling.unipc import unipc

_PLAIN: Final = Sampling()
_ALGORITHMS: Final[dict[str, Algorithm]] = {
    "DPM++ 2M": dpmpp_2m,
    "DPM++ SDE": from_pure_noise(dpmpp_sde),
    "DPM++ 2M SDE": dpmpp_2m_sde,
    "DPM++ 2M SDE Heun": partial(dpmpp_2m_sde, is_heun=True),
    "DPM++ 2S a": from_pure_noise(dpmpp_2s_ancestral),
    "DPM++ 3M SDE": dpmpp_3m_sde,
    "Euler a": euler_ancestral,
    "Euler": euler,
    "LMS": from_pure_noise(lms),
    "Heun": from_pure_noise(heun),
    "DPM2": from_pure_noise(dpm_2),
    "DPM2 a": from_pure_noise(dpm_2_ancestral),
    "DPM fast": from_pure_noise(dpm_fast),
    "DPM adaptive": dpm_adaptive,
    "Restart": restart,
    "DDIM": euler_ancestral,
    "DDIM CFG++": ddim_cfgpp,
    "PLMS": from_pure_noise(plms),
    "UniPC": from_pure_noise(unipc),
    "LCM": lcm,
}


class Sampler:
    """A sampler by its name: its algorithm, with those of a person's options that it takes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._algorithm = _ALGORITHMS[name]

    def __call__(
        self,
        model: Callable[[Tensor, float], Asks[Any]],
        x: Tensor,
        sigmas: Sequence[float],
        noise: Noise,
        options: Sampling = _PLAIN,
    ) -> Asks[Tensor]:
        """Return the latent [channels, h/cell, w/cell] at the last of `sigmas`, from `x` at the first."""
        return self._algorithm(model, x, sigmas, noise, options_of(self._name, options))

    def plan(self, sigmas: Sequence[float], options: Sampling) -> Plan:
        """Return the model calls and the noise queries along `sigmas`."""
        return counted(self._algorithm, self._name, sigmas, options_of(self._name, options))


SAMPLERS: Final = {name: Sampler(name) for name in FACTS}


def plan(sampler: str, sigmas: Sequence[float], options: Sampling = _PLAIN) -> Plan:
    """Return the model calls and the noise queries, in order, of `sampler` along `sigmas`."""
    return SAMPLERS[sampler].plan(sigmas, options)


def options_of(sampler: str, options: Sampling) -> Options:
    """Return the `options` that `sampler` takes, the others neutral; `s_tmax` 0 means no bound."""
    facts = FACTS[sampler]
    values: dict[str, Any] = {name: getattr(options, name) for name in facts.options}
    if values.get("eta") is None:
        values["eta"] = facts.default_eta
    if values.get("s_tmax") == 0:
        values["s_tmax"] = math.inf
    return Options(**values)
