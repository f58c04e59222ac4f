"""Which name each parameter has in the text, and how its value is written: one table, for writing and for reading.

Names, order and values are the ecosystem's where it has them. Where it has none, the name is the farm's own (`OWN`):
other programs pass over those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from shared.params.render import BUILT_IN_VAE, Guidance, Hires, Img2Img, Mask, Noise, Refiner, RenderParams, Sampling
from shared.params.samplers import SAMPLERS, SCHEDULES

_GROUPS: Final[dict[str, type[BaseModel]]] = {
    "": RenderParams,
    "sampling": Sampling,
    "guidance": Guidance,
    "noise": Noise,
    "refiner": Refiner,
    "hires": Hires,
    "img2img": Img2Img,
    "img2img.mask": Mask,
}
_ABSENT: Final = object()
_TITLE: Final = re.compile(r"(.+) \[([0-9a-f]{10})\]", re.DOTALL)
_SIZE: Final = re.compile(r"(\d{1,9})\s*[xX×]\s*(\d{1,9})")


@dataclass(frozen=True)
class Form:
    """How the values of one key are written, and read back; `read` raises ValueError for what it cannot understand."""

    write: Callable[..., str]
    read: Callable[[str], tuple[Any, ...]]


@dataclass(frozen=True)
class Key:
    """One name of the text: the fields that it speaks of, dotted, and when it is written.

    Unless it is written always, a key is left out where its fields have their defaults.
    """

    name: str
    paths: tuple[str, ...]
    form: Form
    is_always: bool = False
    applies: Callable[[RenderParams], bool] = lambda _: True

    @property
    def group(self) -> str:
        """The optional part of the parameters that the fields belong to; empty: none."""
        return self.paths[0].rpartition(".")[0]

    def written(self, params: RenderParams) -> str | None:
        """Return the value in the text; None where the key is not written. An empty one says nothing either."""
        values = tuple(value(params, path) for path in self.paths)
        if _ABSENT in values or not self.applies(params):
            return None
        if not self.is_always and values == tuple(default(path) for path in self.paths):
            return None
        return self.form.write(*values) or None


def value(params: RenderParams, path: str) -> Any:  # noqa: ANN401 - any field's
    """Return the field at a dotted path; `_ABSENT` within a part that there is not."""
    found: Any = params
    for name in path.split("."):
        if found is None:
            return _ABSENT
        found = getattr(found, name)
    return found


def default(path: str) -> Any:  # noqa: ANN401 - any field's
    """Return the default of the field at a dotted path; one that has none equals nothing."""
    group, _, name = path.rpartition(".")
    return _GROUPS[group].model_fields[name].default


def split_title(title: str) -> tuple[str, str]:
    """Return name and short hash of `name [short hash]`; without a hash the whole, and nothing."""
    titled = _TITLE.fullmatch(title)
    return (titled[1], titled[2]) if titled else (title, "")


def number(value: float) -> str:
    """Return a number as short as it can be without a loss."""
    return str(int(value)) if value.is_integer() else repr(value)


def _single(write: Callable[[Any], str], read: Callable[[str], Any]) -> Form:
    return Form(write, lambda text: (read(text),))


def _choice(texts: Mapping[str, Any]) -> Form:
    """Return the form of a value that is one of a few; its case does not matter when it is read."""
    known = {text.casefold(): value for text, value in texts.items()}

    def read(text: str) -> Any:  # noqa: ANN401 - the mapping's
        if text.casefold() not in known:
            raise ValueError(f"must be {' or '.join(texts)}")
        return known[text.casefold()]

    return _single(lambda value: next(text for text, meant in texts.items() if meant == value), read)


def _whole(text: str) -> int:
    """Return a whole number, also where it is written as a fraction: `12.0`."""
    number, _, fraction = text.partition(".")
    return int(text if fraction.strip("0") else number)


def _read_size(text: str) -> tuple[int, int]:
    size = _SIZE.fullmatch(text)
    if not size:
        raise ValueError("must be WIDTHxHEIGHT")
    return int(size[1]), int(size[2])


WHOLE: Final = _single(str, _whole)
NUMBER: Final = _single(number, float)
TEXT: Final = _single(str, str)
FLAG: Final = _choice({"True": True, "False": False})
SIZE: Final = Form(lambda width, height: f"{width}x{height}", _read_size)
SCHEDULE: Final = _choice({label: name for name, label in SCHEDULES.items()})
NAME: Final = _single(lambda title: split_title(title)[0], str)
HASH: Final = _single(lambda title: split_title(title)[1], str)
VAE: Final = _single(
    lambda title: "None" if title == BUILT_IN_VAE else split_title(title)[0],
    lambda text: BUILT_IN_VAE if text == "None" else text,
)
TILING: Final = _single(lambda _: "True", lambda text: "both" if FLAG.read(text)[0] else "none")
SNR: Final = _choice({"Zero Terminal SNR": True, "Default": False})
MASK_MODE: Final = _choice({"Inpaint masked": False, "Inpaint not masked": True})
AREA: Final = _choice({"Whole picture": "whole picture", "Only masked": "only masked"})


def _has_timesteps(params: RenderParams) -> bool:
    """True for samplers that put no noise back unless asked to: their eta has a name of its own."""
    return SAMPLERS[params.sampler].default_eta == 0


_FIRST: Final = (
    Key("Steps", ("steps",), WHOLE, is_always=True),
    Key("Sampler", ("sampler",), TEXT, is_always=True),
    Key("Schedule type", ("schedule",), SCHEDULE, is_always=True),
    Key("CFG scale", ("cfg_scale",), NUMBER, is_always=True),
    Key("Seed", ("seed",), WHOLE, is_always=True),
    Key("Size", ("width", "height"), SIZE, is_always=True),
    Key("Model hash", ("checkpoint",), HASH),
    Key("Model", ("checkpoint",), NAME),
    Key("VAE hash", ("vae",), HASH),
    Key("VAE", ("vae",), VAE),
    Key("Variation seed", ("noise.variation_seed",), WHOLE),
    Key("Variation seed strength", ("noise.variation_strength",), NUMBER),
    Key("Seed resize from", ("noise.resize_width", "noise.resize_height"), SIZE),
    Key("Denoising strength", ("img2img.denoising",), NUMBER, is_always=True),
    Key("Denoising strength", ("hires.denoising",), NUMBER, is_always=True),
    Key("Conditional mask weight", ("img2img.mask.weight",), NUMBER),
    Key("Clip skip", ("clip_skip",), WHOLE),
    Key("ENSD", ("noise.eta_seed_delta",), WHOLE),
    Key("RNG", ("noise.source",), _choice({"CPU": "CPU", "NV": "NV"}), is_always=True),
    Key("Tiling", ("tiling",), TILING),
)
_FURTHER: Final = (
    Key("Hires checkpoint", ("hires.checkpoint",), TEXT),
    Key("Hires sampler", ("hires.sampler",), TEXT),
    Key("Hires prompt", ("hires.prompt",), TEXT),
    Key("Hires negative prompt", ("hires.negative_prompt",), TEXT),
    Key("Hires schedule type", ("hires.schedule",), SCHEDULE),
    Key("Hires upscale", ("hires.scale",), NUMBER, is_always=True),
    Key("Hires resize", ("hires.width", "hires.height"), SIZE),
    Key("Hires steps", ("hires.steps",), WHOLE),
    Key("Hires upscaler", ("hires.upscaler",), TEXT, is_always=True),
    Key("Mask mode", ("img2img.mask.invert",), MASK_MODE),
    Key("Mask blur", ("img2img.mask.blur",), NUMBER, is_always=True),
    Key("Inpaint area", ("img2img.mask.area",), AREA),
    Key("Masked area padding", ("img2img.mask.padding",), WHOLE),
    Key("Masked content", ("img2img.mask.content",), TEXT),
    Key("Soft inpainting enabled", ("img2img.mask.soft",), FLAG),
    Key("Noise multiplier", ("img2img.noise_multiplier",), NUMBER),
    Key("Refiner", ("refiner.checkpoint",), TEXT),
    Key("Refiner switch at", ("refiner.switch_at",), NUMBER, is_always=True),
    Key("Emphasis", ("emphasis",), TEXT),
    Key("Schedule min sigma", ("sampling.sigma_min",), NUMBER),
    Key("Schedule max sigma", ("sampling.sigma_max",), NUMBER),
    Key("Schedule rho", ("sampling.rho",), NUMBER),
    Key("Discard penultimate sigma", ("sampling.discard_next_to_last_sigma",), FLAG),
    Key("Eta", ("sampling.eta",), NUMBER, applies=lambda params: not _has_timesteps(params)),
    Key("Eta DDIM", ("sampling.eta",), NUMBER, applies=_has_timesteps),
    Key("Sigma churn", ("sampling.s_churn",), NUMBER),
    Key("Sigma tmin", ("sampling.s_tmin",), NUMBER),
    Key("Sigma tmax", ("sampling.s_tmax",), NUMBER),
    Key("Sigma noise", ("sampling.s_noise",), NUMBER),
    Key("NGMS", ("guidance.skip_below_sigma",), NUMBER),
    Key("NGMS all steps", ("guidance.skip_all_steps",), FLAG),
    Key("Skip Early CFG", ("guidance.skip_early",), NUMBER),
    Key("Extra noise", ("img2img.extra_noise",), NUMBER),
    Key("Noise Schedule", ("sampling.zero_terminal_snr",), SNR),
)
OWN: Final = (
    Key("Tiling axis", ("tiling",), TEXT, applies=lambda params: params.tiling != "both"),
    Key("CFG rescale", ("guidance.rescale",), NUMBER),
    Key("Init picture", ("img2img.picture",), TEXT),
    Key("Resize mode", ("img2img.resize_mode",), TEXT),
    Key("Exact steps", ("img2img.exact_steps",), FLAG),
    Key("Color correction", ("img2img.color_correction",), FLAG),
    Key("Mask picture", ("img2img.mask.picture",), TEXT),
    Key("Exact", ("exact",), FLAG),
    Key("Film", ("film",), FLAG),
    Key("File format", ("format",), TEXT),
)
"""What no other program has a name for; pictures go by their SHA-256."""

KEYS: Final = (*_FIRST, *_FURTHER, *OWN)
"""Every key, in the order of the text."""

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
    *("Version", "App", "Hashes", "Lora hashes", "TI hashes", "Face restoration", "Civitai resources"),
    *("Civitai metadata", "Batch size", "Batch pos", "Token merging ratio", "Hires size", "Operations"),
)
"""Names that show that a line holds values, although nothing is read from them."""
_NAMES: Final = {
    **{name.casefold(): name for name in (*_FURTHER_NAMES, PROMPT, NEGATIVE_PROMPT, *(key.name for key in KEYS))},
    **{alias.casefold(): name for alias, name in _ALIASES.items()},
}


def canonical(name: str) -> str:
    """Return the name that the farm has for a value, whatever its case; one that is not known as it is."""
    return _NAMES.get(name.casefold(), name)


def is_known(name: str) -> bool:
    """Tell whether a name is one of these texts'."""
    return name.casefold() in _NAMES
