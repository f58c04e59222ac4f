"""Which samplers and schedules the farm knows, as facts; the engine holds the mathematics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

AUTOMATIC: Final = "automatic"
SCHEDULES: Final = {
    AUTOMATIC: "Automatic",
    "uniform": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
    "simple": "Simple",
    "normal": "Normal",
    "ddim": "DDIM",
    "beta": "Beta",
}
"""Schedule names and their labels, in the order that people see them."""
SCHEDULE_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "karras": ("sigma_min", "sigma_max", "rho"),
    "exponential": ("sigma_min", "sigma_max"),
    "polyexponential": ("sigma_min", "sigma_max", "rho"),
    "sgm_uniform": ("sigma_min", "sigma_max"),
    "kl_optimal": ("sigma_min", "sigma_max"),
    "normal": ("sigma_min", "sigma_max"),
    "beta": ("sigma_min", "sigma_max"),
}
"""The fields of `Sampling` that a schedule takes; one that is not named follows the checkpoint's own table alone."""

TIMESTEPS: Final = 1000  # that a checkpoint was trained on
ADAPTIVE_CALLS: Final = 100  # more than DPM adaptive takes for an ordinary picture; it has no count of its own

_CHURN: Final = ("s_churn", "s_tmin", "s_tmax", "s_noise")


@dataclass(frozen=True)
class Sampler:
    """One sampler: `automatic` is the schedule that `automatic` stands for, `schedules` what it takes by name.

    A schedule that is in no list of people's is a sampler's own way to space its steps.
    """

    name: str
    aliases: tuple[str, ...] = ()
    automatic: str = "uniform"
    schedules: tuple[str, ...] = tuple(SCHEDULES)
    options: tuple[str, ...] = ()  # fields of `Sampling` that it takes
    default_eta: float = 1.0  # where it takes `eta`
    order: int = 1  # model calls a step; the step to sigma 0 takes one
    discards_next_to_last_sigma: bool = False
    is_ancestral: bool = False  # adds noise at each step, unless `eta` is 0
    uses_brownian: bool = False  # that noise comes from a Brownian tree, keyed by sigma
    is_adaptive: bool = False  # takes as many steps as the picture needs, whatever was asked
    spaces_timesteps: bool = False  # by every (1000 // steps)th timestep: the count may differ from `steps`
    call_offset: int = 0  # model calls beside one for each of those timesteps
    uses_network_scale: bool = False  # its noise at the start, and its latent at the end, are as the network sees them
    needs_unconditional: bool = False  # its model also says what it denoised without the prompt
    scale_divisor: float = 1.0  # of the CFG scale that people give

    def schedule(self, name: str) -> str:
        """Return the schedule of this name; for `automatic` the sampler's own."""
        return self.automatic if name == AUTOMATIC else name

    def calls(self, steps: int) -> int:
        """Return the model calls of a render of `steps` along the usual schedules: those that end with a step to 0.

        An upper estimate for an adaptive one.
        """
        if self.is_adaptive:
            return ADAPTIVE_CALLS
        if self.spaces_timesteps:
            return max(1, len(timesteps(steps)) + self.call_offset)
        return self.order * steps - (self.order - 1)


def timesteps(steps: int, count: int = TIMESTEPS) -> list[int]:
    """Return every (count // steps)th timestep from 1 on, rising: 20 of them for 20 steps, but 31 for 30.

    A single step goes from the last timestep to 1.
    """
    last = count - 1
    known = sorted({min(timestep + 1, last) for timestep in range(0, count, max(1, count // steps))})
    return known if len(known) > 1 else [min(1, last - 1), last]


_SAMPLERS: Final = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m", "DPMSolverMultistepScheduler"), "karras"),
    Sampler(
        "DPM++ SDE", ("k_dpmpp_sde", "DPMSolverSDEScheduler"), "karras",
        options=("eta", "s_noise"), order=2, is_ancestral=True, uses_brownian=True,
    ),
    Sampler(
        "DPM++ 2M SDE", ("k_dpmpp_2m_sde",), "exponential",
        options=("eta", "s_noise"), is_ancestral=True, uses_brownian=True,
    ),
    Sampler(
        "DPM++ 2M SDE Heun", ("k_dpmpp_2m_sde_heun",), "exponential",
        options=("eta", "s_noise"), is_ancestral=True, uses_brownian=True,
    ),
    Sampler(
        "DPM++ 2S a", ("k_dpmpp_2s_a", "dpmpp_2s_ancestral"), "karras",
        options=("eta", "s_noise"), order=2, is_ancestral=True,
    ),
    Sampler(
        "DPM++ 3M SDE", ("k_dpmpp_3m_sde",), "exponential",
        options=("eta", "s_noise"), discards_next_to_last_sigma=True, is_ancestral=True, uses_brownian=True,
    ),
    Sampler(
        "Euler a", ("k_euler_a", "euler_ancestral", "EulerAncestralDiscreteScheduler"),
        options=("eta",), is_ancestral=True,
    ),
    Sampler("Euler", ("k_euler", "EulerDiscreteScheduler"), options=_CHURN),
    Sampler("LMS", ("k_lms", "LMSDiscreteScheduler")),
    Sampler("Heun", ("k_heun", "HeunDiscreteScheduler"), options=_CHURN, order=2),
    Sampler(
        "DPM2", ("k_dpm_2", "kdpm_2", "KDPM2DiscreteScheduler"), "karras",
        options=_CHURN, order=2, discards_next_to_last_sigma=True,
    ),
    Sampler(
        "DPM2 a", ("k_dpm_2_a", "dpm_2_ancestral", "kdpm_2_a", "KDPM2AncestralDiscreteScheduler"), "karras",
        options=("eta", "s_noise"), order=2, discards_next_to_last_sigma=True, is_ancestral=True,
    ),
    Sampler("DPM fast", ("k_dpm_fast",), "ends", (AUTOMATIC,), options=("eta", "s_noise"), is_ancestral=True),
    Sampler(
        "DPM adaptive", ("k_dpm_ad", "dpm_adaptive"), "ends", (AUTOMATIC,),
        options=("eta",), is_ancestral=True, is_adaptive=True,
    ),
    Sampler("Restart", ("restart",), "karras", order=2, is_ancestral=True),
    Sampler(
        "DDIM", ("ddim", "ddim_v3", "DDIMScheduler"), "timesteps", (AUTOMATIC,),
        options=("eta",), default_eta=0.0, spaces_timesteps=True, call_offset=-1, uses_network_scale=True,
    ),
    Sampler(
        "DDIM CFG++", ("ddim_cfgpp",), "timesteps", (AUTOMATIC,),
        options=("eta",), default_eta=0.0, spaces_timesteps=True, call_offset=-1, uses_network_scale=True,
        needs_unconditional=True, scale_divisor=12.5,
    ),
    Sampler(
        "PLMS", ("plms", "pndm", "PNDMScheduler"), "timesteps", (AUTOMATIC,),
        spaces_timesteps=True, uses_network_scale=True,
    ),
    Sampler(
        "UniPC", ("unipc", "uni_pc", "uni_pc_bh2", "UniPCMultistepScheduler"), "even_timesteps", (AUTOMATIC,),
        spaces_timesteps=True, uses_network_scale=True,
    ),
    Sampler("LCM", ("k_lcm", "LCMScheduler"), "consistency", is_ancestral=True),
)  # fmt: skip
SAMPLERS: Final[Mapping[str, Sampler]] = {sampler.name: sampler for sampler in _SAMPLERS}
"""The samplers by name, in the order that people see them."""
