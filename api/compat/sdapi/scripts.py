"""Scripts of AUTOMATIC1111's web UI that have a counterpart here: ControlNet, the X/Y/Z plot, the prompt matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.compat.sdapi.asked import Asked, wrong
from api.compat.sdapi.pictures import data_url
from shared.infotext import control_nets
from shared.infotext.unit_text import names_model
from shared.params.preprocessors import PREPROCESSORS
from shared.wording import LONGEST, choices, spelled

CONTROLNET: Final = "controlnet"
PLOT: Final = "x/y/z plot"
MATRIX: Final = "prompt matrix"
_PLOTS: Final = frozenset({PLOT, "x/y plot", "xyz plot", "xyz_plot", "xyz_grid"})
_RESIZES: Final = ("Just Resize", "Crop and Resize", "Resize and Fill")
_MODES: Final = ("Balanced", "My prompt is more important", "ControlNet is more important")
_PARTS: Final = {
    "Module": "module", "Model": "model", "Weight": "weight", "Resize Mode": "resize_mode",
    "Threshold A": "threshold_a", "Threshold B": "threshold_b", "Guidance Start": "guidance_start",
    "Guidance End": "guidance_end", "Control Mode": "control_mode", "Union Control Type": "union_control_type",
}  # fmt: skip
"""The parts of a unit in the text of a picture, by their names in a request."""
_UNSAID: Final = (None, "", -1, "All")
_NUMBERED: Final[Mapping[str, Sequence[str]]] = {"Resize Mode": _RESIZES, "Control Mode": _MODES}
_ACCEPTED: Final = {
    "Module": choices([one.module for one in PREPROCESSORS.values()]),
    **{part: choices(words) for part, words in _NUMBERED.items()},
}

_TXT2IMG: Final = frozenset({"Hires steps", "Hires sampler", "Hires upscaler"})
_IMG2IMG: Final = frozenset({"Image CFG Scale", "Cond. Image Mask Weight"})
_AXES: Final[Mapping[str, str]] = {
    "Nothing": "", "Seed": "seed", "Var. seed": "noise.variation_seed", "Var. strength": "noise.variation_strength",
    "Steps": "steps", "Hires steps": "hires.steps", "CFG Scale": "cfg_scale", "Image CFG Scale": "",
    "Prompt S/R": "prompt_replace", "Prompt order": "prompt_order", "Sampler": "sampler",
    "Hires sampler": "hires.sampler", "Checkpoint name": "checkpoint",
    "Negative Guidance minimum sigma": "guidance.skip_below_sigma", "Sigma Churn": "sampling.s_churn",
    "Sigma min": "sampling.s_tmin", "Sigma max": "sampling.s_tmax", "Sigma noise": "sampling.s_noise",
    "Schedule type": "schedule", "Schedule min sigma": "sampling.sigma_min",
    "Schedule max sigma": "sampling.sigma_max", "Schedule rho": "sampling.rho", "Beta schedule alpha": "",
    "Beta schedule beta": "", "Eta": "sampling.eta", "Clip skip": "clip_skip", "Denoising": "img2img.denoising",
    "Initial noise multiplier": "img2img.noise_multiplier", "Extra noise": "img2img.extra_noise",
    "Hires upscaler": "hires.upscaler", "Cond. Image Mask Weight": "img2img.mask.weight", "VAE": "vae",
    "Styles": "styles", "UniPC Order": "", "Face restore": "faces.restorer", "Token merging ratio": "",
    "Token merging ratio high-res": "", "Always discard next-to-last sigma": "sampling.discard_next_to_last_sigma",
    "SGM noise multiplier": "", "Refiner checkpoint": "refiner.checkpoint", "Refiner switch at": "refiner.switch_at",
    "RNG source": "noise.source", "FP8 mode": "", "Size": "size",
}  # fmt: skip
"""What the plot can vary, in its order, which clients count; and what of it varies here."""
_LONE_IMAGES: Final = 10
_VARIED_SEEDS: Final = slice(13, 16)
_WITH_VARIED_SEEDS: Final = 17  # arguments, from the version on that has them


def axes(*, is_img2img: bool) -> list[str]:
    """Return the axes of the plot in the order that clients count."""
    others = _TXT2IMG if is_img2img else _IMG2IMG
    return [label for label in _AXES if label not in others]


def always_on(asked: Asked, scripts: Mapping[str, Any]) -> None:
    """Write the scripts that take part in every request: ControlNet's units. Raises Refused for others."""
    for name, script in scripts.items():
        args = script.get("args") if isinstance(script, Mapping) else script
        at = f"alwayson_scripts.{name[:LONGEST]}"
        if args in (None, [], {}) or (isinstance(args, list) and args[0] is False):
            continue  # it is switched off
        if name.casefold() != CONTROLNET:
            raise wrong(at, "is not a script of this farm", CONTROLNET)
        if not isinstance(args, list):
            raise wrong(f"{at}.args", f"must be a list, not {spelled(args)}", "a list of units")
        for number, unit in enumerate(args):
            _unit(asked, unit, f"{at}.args.{number}")


def selected(asked: Asked, name: str, args: Sequence[Any], *, is_img2img: bool) -> None:
    """Write the script that a request names as a sweep. Raises Refused for one that is not here."""
    if not name or name.casefold() == "none":
        return
    if name.casefold() in _PLOTS:
        _plot(asked, args, axes(is_img2img=is_img2img), is_img2img=is_img2img)
    elif name.casefold() == MATRIX:
        is_each = len(args) > 1 and _is_on(args[1])
        asked.put("sweep", {"axes": [{"field": "prompt_matrix"}], "seeds": "each" if is_each else "same"}, "prompt")
    else:
        raise wrong("script_name", f"{name[:LONGEST]!r} is not a script of this farm", f"{PLOT} or {MATRIX}")


def wants_each(name: str, args: Sequence[Any]) -> bool:
    """Return whether a request wants the pictures of a plot beside its sheet."""
    return name.casefold() not in _PLOTS or (len(args) > _LONE_IMAGES and _is_on(args[_LONE_IMAGES]))


def _unit(asked: Asked, given: object, at: str) -> None:
    """Write one unit of ControlNet; one that is switched off or names no model does nothing."""
    if not isinstance(given, Mapping):
        raise wrong(at, f"must be an object, not {spelled(given)}", "a unit with module, model and image")
    said = {part: _worded(part, given[name]) for part, name in _PARTS.items() if given.get(name) not in _UNSAID}
    if given.get("enabled", True) in (False, "false", "False") or not names_model(said):
        return
    place = f"controlnet.{len(asked.job.get('controlnet', []))}"
    asked.put(place, _read(said, at), at)
    asked.names |= {f"{place}.model": f"{at}.model", f"{place}.preprocessor": f"{at}.module"}
    picture = given.get("image") or given.get("input_image")
    picture = picture.get("image") if isinstance(picture, Mapping) else picture
    if picture and not isinstance(picture, str):
        raise wrong(f"{at}.image", f"must be text, not {spelled(picture)}", "a picture in base64")
    if picture:
        asked.put(f"{place}.picture", data_url(picture, f"{at}.image"), f"{at}.image")


def _read(said: Mapping[str, str], at: str) -> dict[str, Any]:
    """Return the control net that the parts of a unit describe. Raises Refused for one that is unknown here."""
    unit: dict[str, Any] = {"preprocessor": "none"}
    for note in control_nets.taken(said, unit):
        part = note.partition(":")[0]
        raise wrong(f"{at}.{_PARTS[part]}", f"{said[part][:LONGEST]!r} is unknown", _ACCEPTED.get(part, "a number"))
    taken = len(PREPROCESSORS[unit["preprocessor"]].thresholds)
    for threshold in ("threshold_a", "threshold_b")[taken:]:
        unit.pop(threshold, None)  # clients send the numbers of a preprocessor that takes none
    return unit


def _worded(part: str, value: object) -> str:
    """Return a value as the text of a picture has it; some are numbers of a list."""
    words = _NUMBERED.get(part, ())
    is_place = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words)
    return words[value] if is_place and isinstance(value, int) else str(value)


def _plot(asked: Asked, args: Sequence[Any], labels: Sequence[str], *, is_img2img: bool) -> None:
    """Write the X/Y/Z plot: type, values and chosen values of three axes, and then how it is drawn."""
    found: list[dict[str, object]] = []
    for at in range(0, min(len(args), 9), 3):
        label = _label(args[at], labels, f"script_args.{at}")
        if label == labels[0]:
            continue
        varied = _AXES[label]
        if label == "Denoising" and not is_img2img:
            varied = "hires.denoising"
        if not varied:
            raise wrong(
                f"script_args.{at}", f"{label!r} cannot be varied here", choices([one for one in labels if _AXES[one]])
            )
        asked.names[f"sweep.axes.{len(found)}"] = f"script_args.{at}"
        asked.names[f"sweep.axes.{len(found)}.values"] = f"script_args.{at + 1}"
        found.append({"field": varied, "values": _values(args[at + 1 : at + 3])})
    if not found:
        raise wrong("script_args", "name no axis", "the types and values of one to three axes")
    is_each = len(args) >= _WITH_VARIED_SEEDS and any(map(_is_on, args[_VARIED_SEEDS]))
    asked.put("sweep", {"axes": found, "seeds": "each" if is_each else "same"}, "script_args")


def _label(given: object, labels: Sequence[str], name: str) -> str:
    """Return the label of an axis: its place in the list, or itself. Raises Refused."""
    text = str(given).strip()
    if text.isascii() and text.isdigit() and int(text[:9]) < len(labels):
        return labels[int(text)]
    if label := next((one for one in labels if one.casefold() == text.casefold()), None):
        return label
    raise wrong(name, f"{text[:LONGEST]!r} is not an axis", f"0 to {len(labels) - 1}, or {choices(labels)}")


def _values(given: Sequence[Any]) -> object:
    """Return the values of an axis: those that were written, else those that were chosen from a list."""
    written, chosen = (*given, "", "")[:2]
    return chosen if isinstance(chosen, list) and chosen and not str(written).strip() else str(written)


def _is_on(given: object) -> bool:
    return given is True or str(given).casefold() == "true"
