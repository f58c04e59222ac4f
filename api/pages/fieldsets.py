"""How the form is laid out: what stands in front, what in which folding group, and the words on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from api.pages import scheduling
from api.pages.fields import FIELDS
from shared.params.render import BUILT_IN_VAE


@dataclass(frozen=True)
class Group:
    """Fields that few jobs need, behind one title; `says` tells what they are for."""

    name: str
    title: str
    says: str
    fields: tuple[str, ...]


EVERYDAY: Final = (
    *("prompt", "negative_prompt", "styles", "checkpoint", "width", "height"),
    *("sampler", "schedule", "steps", "cfg_scale", "seed", "count"),
)
SOURCE: Final = Group(
    "img2img",
    "img2img & inpainting",
    "start from a picture, or paint a part of one anew",
    (
        *(
            f"img2img.{name}"
            for name in (
                *("picture", "denoising", "resize_mode", "extra_noise", "noise_multiplier", "exact_steps"),
                "color_correction",
            )
        ),
        *(
            f"img2img.mask.{name}"
            for name in ("picture", "content", "area", "padding", "blur", "weight", "soft", "invert")
        ),
    ),
)
HIRES: Final = Group(
    "hires",
    "Hires",
    "a second pass at a larger size",
    tuple(
        f"hires.{name}"
        for name in (
            *("scale", "width", "height", "upscaler", "denoising", "steps", "sampler", "schedule", "checkpoint"),
            *("prompt", "negative_prompt"),
        )
    ),
)
GROUPS: Final = (
    SOURCE,
    HIRES,
    Group(
        "sampling",
        "Sampling options",
        "eta, churn, the range of sigmas",
        tuple(name for name in FIELDS if name.startswith("sampling.")),
    ),
    Group(
        "guidance",
        "Guidance",
        "emphasis, clip skip, guiding less",
        ("emphasis", "clip_skip", *(name for name in FIELDS if name.startswith("guidance."))),
    ),
    Group(
        "noise",
        "Noise & variation",
        "a picture close to another seed’s, seeds of other programs",
        tuple(name for name in FIELDS if name.startswith("noise.")),
    ),
    Group(
        "refiner",
        "Refiner & VAE",
        "a second checkpoint for the end, another decoder",
        ("refiner.checkpoint", "refiner.switch_at", "vae"),
    ),
    Group("output", "Output", "file format, film, seamless tiles, exactness", ("format", "film", "tiling", "exact")),
)
TERMS: Final = (
    Group("queue", "Queue", "which workers, and what goes first", tuple(scheduling.QUEUE)),
    Group("when", "When", "a deadline, or a reason to wait", tuple(scheduling.WHEN)),
)
"""The job's terms, which are no parameters of its pictures."""

SWITCH: Final = "hires"
"""The box that asks for the second pass: its fields alone do not tell, as each has a default."""

LABELS: Final = {name: name.rpartition(".")[2].replace("_", " ").capitalize() for name in FIELDS} | {
    SWITCH: "Render a second pass",
    "pool": "Pool",
    "priority": "Priority",
    "urgent": "Urgent",
    "expires_at": "Start by",
    "hold": "Hold until released",
    "hold_until": "Hold until",
    "hold_behind": "Hold behind job",
    "cfg_scale": "CFG scale",
    "count": "Images",
    "vae": "VAE",
    "sampling.s_churn": "Churn",
    "sampling.s_tmin": "Churn above sigma",
    "sampling.s_tmax": "Churn below sigma",
    "sampling.s_noise": "Noise strength",
    "sampling.sigma_min": "Lowest sigma",
    "sampling.sigma_max": "Highest sigma",
    "sampling.discard_next_to_last_sigma": "Last sigma but one",
    "sampling.zero_terminal_snr": "Zero terminal SNR",
    "guidance.rescale": "CFG rescale",
    "guidance.skip_below_sigma": "NGMS below sigma",
    "guidance.skip_all_steps": "NGMS at every step",
    "guidance.skip_early": "Skip guidance early",
    "noise.source": "Noise source",
    "noise.resize_width": "Seed’s width",
    "noise.resize_height": "Seed’s height",
    "noise.eta_seed_delta": "ENSD",
    "refiner.checkpoint": "Refiner",
    "refiner.switch_at": "Switch at",
    "hires.scale": "Scale",
    "hires.width": "Target width",
    "hires.height": "Target height",
    "hires.steps": "Hires steps",
    "hires.denoising": "Hires denoising",
    "hires.sampler": "Hires sampler",
    "hires.schedule": "Hires schedule",
    "hires.prompt": "Hires prompt",
    "hires.negative_prompt": "Hires negative prompt",
    "hires.checkpoint": "Hires checkpoint",
    "img2img.picture": "Source picture",
    "img2img.exact_steps": "Exact steps",
    "img2img.noise_multiplier": "First noise",
    "img2img.color_correction": "Colour correction",
    "img2img.mask.picture": "Mask",
    "img2img.mask.blur": "Mask blur",
    "img2img.mask.invert": "Invert the mask",
    "img2img.mask.content": "Masked content",
    "img2img.mask.area": "Inpaint area",
    "img2img.mask.padding": "Padding",
    "img2img.mask.weight": "Mask weight",
    "img2img.mask.soft": "Soft inpainting",
}
PLACEHOLDERS: Final = {
    "width": "its own",
    "height": "its own",
    "sampling.eta": "the sampler’s",
    "sampling.s_tmax": "no bound",
    "sampling.sigma_min": "the checkpoint’s",
    "sampling.sigma_max": "the checkpoint’s",
    "sampling.rho": "the schedule’s",
    "noise.resize_width": "none",
    "noise.resize_height": "none",
    "hires.width": "by the scale",
    "hires.height": "by the scale",
    "hires.steps": "as the first",
    "hires.prompt": "as the first pass",
    "hires.negative_prompt": "as the first pass",
    "prompt": "a painting of the desert at sunset, pyramids, sun",
    "negative_prompt": "what the picture should not show",
}
"""What stands in an empty box; a field of these is shown empty where it has its default."""

HINTS: Final = {
    "hires.width": "Leave empty to use Scale.",
    "hires.height": "Leave empty to use Scale.",
    "hires.upscaler": "How it is enlarged before the second pass.",
    "hires.steps": "Leave empty for as many as the first pass takes.",
    "img2img.noise_multiplier": "Below 1 smoother, above 1 busier.",
    "img2img.mask.blur": "How far the mask’s edge is softened, in pixels.",
    "noise.resize_width": "Keep the picture of this seed at another size; empty: no.",
    "noise.resize_height": "Keep the picture of this seed at another size; empty: no.",
    "sampling.s_tmax": "Churn only below this sigma; empty: no bound.",
    "sampling.sigma_min": "Lowest sigma of the schedule; empty: the checkpoint’s.",
    "sampling.sigma_max": "Highest sigma of the schedule; empty: the checkpoint’s.",
}
"""What a field is for, where people fill a box in and programs write a number that stands for nothing."""

RESOLVED: Final = {"vae": BUILT_IN_VAE}
"""What the door writes for a default where nothing else is there: as unremarkable as the default itself."""

SLIDERS: Final = {
    "img2img.denoising": "0 1 0.05",
    "hires.denoising": "0 1 0.05",
    "hires.scale": "1 4 0.25",
    "noise.variation_strength": "0 1 0.05",
    "refiner.switch_at": "0 1 0.05",
    "img2img.mask.blur": "0 64 1",
}
"""Lowest, highest and stride of the slider beside the box of a number that people try out."""

CHOICE_LABELS: Final = {
    "format": {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"},
    "tiling": {"none": "None", "both": "Both ways", "x": "Left and right", "y": "Top and bottom"},
    "noise.source": {"CPU": "CPU", "NV": "NV: as a CUDA card’s"},
    "img2img.resize_mode": {
        "resize": "Stretch",
        "crop": "Crop to fit",
        "fill": "Fit, fill the rest",
        "latent": "Stretch the latent",
    },
    "img2img.mask.content": {
        "fill": "Blurred colours around it",
        "original": "What is there",
        "latent noise": "Noise",
        "latent nothing": "Nothing",
    },
    "img2img.mask.area": {"whole picture": "Whole picture", "only masked": "Only the masked part, at full size"},
}


LIVE: Final = frozenset({"checkpoint", "vae", "refiner.checkpoint", "hires.checkpoint", "pool"})
"""Fields whose choices change while the form is open: files come, workers go."""


def full_label(name: str) -> str:
    """Return a field's label with its group's title, unless it says that itself: `Hires: Scale`, `Hires steps`."""
    group = next((group for group in (*GROUPS, *TERMS) if name in group.fields), None)
    label = LABELS.get(name, name)
    return f"{group.title}: {label}" if group and not label.startswith(group.title) else label


def place(name: str) -> int:
    """Return where a field stands on the form, from its top; what has no place there comes last."""
    return _PLACES.get(name, len(_PLACES))


def _visual(group: Group) -> list[str]:
    """Return a group's fields as they are drawn: what is ticked comes last where a group has no order of its own."""
    if group in (SOURCE, HIRES):
        return [SWITCH, *group.fields] if group is HIRES else [*group.fields]
    return sorted(group.fields, key=_is_ticked)


def _is_ticked(name: str) -> bool:
    return (FIELDS[name].kind if name in FIELDS else scheduling.widget(name)) == "flag"


_PLACES: Final = {
    name: at for at, name in enumerate((*EVERYDAY, *(name for group in (*GROUPS, *TERMS) for name in _visual(group))))
}
