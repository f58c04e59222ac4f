"""txt2img and img2img, said as `POST /api/v1/jobs` takes them."""

from __future__ import annotations

from typing import Any, Final

from api.compat.sdapi import options, scripts
from api.compat.sdapi.asked import Asked, wrong
from api.compat.sdapi.bodies import MOST_IMAGES, Generation, Img2ImgRequest, Txt2Img
from api.compat.sdapi.pictures import data_url
from api.services import Services
from api.use_cases import enlarge
from shared.accounts.principal import Principal
from shared.admission import salvage
from shared.infotext import reader

_SAME: Final = {
    "prompt": "prompt", "negative_prompt": "negative_prompt", "seed": "seed", "steps": "steps",
    "cfg_scale": "cfg_scale", "width": "width", "height": "height", "scheduler": "schedule", "eta": "sampling.eta",
    "s_min_uncond": "guidance.skip_below_sigma", "s_churn": "sampling.s_churn", "s_tmax": "sampling.s_tmax",
    "s_tmin": "sampling.s_tmin", "s_noise": "sampling.s_noise",
}  # fmt: skip
"""Fields whose values mean the same here, and where they stand."""
_ASSUMED: Final = ("steps", "cfg_scale", "width", "height")
"""Of those the ones whose defaults differ from the farm's."""
_HIRES: Final = {
    "hr_scale": "scale", "hr_resize_x": "width", "hr_resize_y": "height", "hr_second_pass_steps": "steps",
    "denoising_strength": "denoising", "hr_upscaler": "upscaler", "hr_checkpoint_name": "checkpoint",
    "hr_sampler_name": "sampler", "hr_scheduler": "schedule", "hr_prompt": "prompt",
    "hr_negative_prompt": "negative_prompt",
}  # fmt: skip
_AS_THE_FIRST: Final = frozenset({"", "use same checkpoint", "use same sampler", "use same scheduler"})
_RESIZES: Final = ("resize", "crop", "fill", "latent")
_CONTENTS: Final = ("fill", "original", "latent noise", "latent nothing")
_NOBODY: Final = "CodeFormer"  # that other programs take; a farm without one says so


def txt2img(services: Services, who: Principal, sent: Txt2Img) -> Asked:
    """Return the job that a request of txt2img asks for. Raises Refused."""
    asked = _begun(services, who, sent)
    asked.job.pop("img2img", None)  # a text may name the picture that its own was painted over
    if sent.firstpass_image:
        raise wrong("firstpass_image", "cannot be used here", "img2img")
    if not sent.enable_hr:
        if sent.has("enable_hr"):
            asked.job.pop("hires", None)
    else:
        _second_pass(asked, sent)
    return _finished(services, who, asked, sent)


def img2img(services: Services, who: Principal, sent: Img2ImgRequest) -> Asked:
    """Return the job that a request of img2img asks for. Raises Refused."""
    asked = _begun(services, who, sent)
    asked.put("img2img", {}, "init_images")
    asked.put("img2img.picture", data_url(sent.init_images[0], "init_images.0"), "init_images.0")
    asked.put("img2img.denoising", sent.denoising_strength, "denoising_strength")
    asked.put("img2img.resize_mode", _RESIZES[sent.resize_mode], "resize_mode")
    if sent.has("initial_noise_multiplier"):
        asked.put("img2img.noise_multiplier", sent.initial_noise_multiplier, "initial_noise_multiplier")
    if sent.mask or sent.latent_mask:
        _mask(asked, sent)
    return _finished(services, who, asked, sent)


def _begun(services: Services, who: Principal, sent: Generation) -> Asked:
    """Return a job of the farm's defaults for clients, then of the text that came along, then of what was sent."""
    asked = Asked({name: getattr(Generation(), name) for name in _ASSUMED} | {"sampler": Generation().sampler_index})
    if sent.infotext:
        said = reader.read(sent.infotext)
        fit = salvage.fit(services.sessions, said.params, who.owner, services.limits(who), said.embeddings)
        asked.fill(fit.params, "infotext")
    for name, path in _SAME.items():
        if sent.has(name) and getattr(sent, name) != "":
            asked.put(path, getattr(sent, name), name)
    if sampler := sent.sampler_name or (sent.has("sampler_index") and sent.sampler_index):
        asked.put("sampler", sampler, "sampler_name" if sent.sampler_name else "sampler_index")
    if styles := [style for style in sent.styles if style]:
        asked.put("styles", styles, "styles")
    if sent.subseed_strength:
        asked.put("noise.variation_strength", sent.subseed_strength, "subseed_strength")
        asked.put("noise.variation_seed", sent.subseed, "subseed")
    if sent.seed_resize_from_w > 0 and sent.seed_resize_from_h > 0:
        asked.put("noise.resize_width", sent.seed_resize_from_w, "seed_resize_from_w")
        asked.put("noise.resize_height", sent.seed_resize_from_h, "seed_resize_from_h")
    if sent.refiner_checkpoint.casefold() not in {"", "none"}:
        asked.put("refiner.checkpoint", sent.refiner_checkpoint, "refiner_checkpoint")
        asked.put("refiner.switch_at", sent.refiner_switch_at, "refiner_switch_at")
    if sent.has("tiling"):
        asked.put("tiling", "both" if sent.tiling else "none", "tiling")
    return asked


def _second_pass(asked: Asked, sent: Txt2Img) -> None:
    asked.put("hires.scale", sent.hr_scale, "hr_scale")
    for name, path in _HIRES.items():
        value = getattr(sent, name)
        if sent.has(name) and str(value).casefold() not in _AS_THE_FIRST:
            asked.put(f"hires.{path}", value, name)
    first = {"width": sent.firstphase_width, "height": sent.firstphase_height}
    if any(first.values()):  # an older form: the size is that of the result
        for side, pixels in first.items():
            asked.put(f"hires.{side}", getattr(sent, side), side)
            asked.put(side, pixels or getattr(sent, side), f"firstphase_{side}")


def _mask(asked: Asked, sent: Img2ImgRequest) -> None:
    name = "mask" if sent.mask else "latent_mask"
    asked.put("img2img.mask.picture", data_url(sent.mask or sent.latent_mask, name), name)
    blur = sent.mask_blur if sent.has("mask_blur") else max(sent.mask_blur_x, sent.mask_blur_y)
    asked.put("img2img.mask.blur", blur, "mask_blur")
    asked.put("img2img.mask.invert", sent.inpainting_mask_invert, "inpainting_mask_invert")
    asked.put("img2img.mask.content", _CONTENTS[sent.inpainting_fill], "inpainting_fill")
    area = "only masked" if sent.inpaint_full_res else "whole picture"
    asked.put("img2img.mask.area", area, "inpaint_full_res")
    asked.put("img2img.mask.padding", sent.inpaint_full_res_padding, "inpaint_full_res_padding")


def _finished(services: Services, who: Principal, asked: Asked, sent: Generation) -> Asked:
    """Return the job with options, faces, scripts and the number of its pictures."""
    if sent.disable_extra_networks:
        raise wrong("disable_extra_networks", "cannot be done here", "false, and a prompt without tags")
    own = options.read(sent.override_settings, "override_settings.")
    kept = {name: value for name, value in options.of_owner(services, who).items() if name not in own}
    options.fill(asked, kept, is_over=False)
    options.fill(asked, own, "override_settings.", is_over=True)
    _faces(services, asked, sent, kept | own)
    if (count := sent.batch_size * sent.n_iter) > MOST_IMAGES:
        message = f"times n_iter is {count}, more than one request brings back"
        raise wrong("batch_size", message, f"at most {MOST_IMAGES} pictures, or POST /api/v1/jobs")
    if count > 1:
        asked.put("count", count, "batch_size")
    scripts.always_on(asked, sent.alwayson_scripts)
    scripts.selected(asked, sent.script_name, sent.script_args, is_img2img=isinstance(sent, Img2ImgRequest))
    return asked


def _faces(services: Services, asked: Asked, sent: Generation, set_ones: dict[str, Any]) -> None:
    if not (sent.restore_faces if sent.has("restore_faces") else set_ones.get("face_restoration")):
        return
    first = next(iter(enlarge.face_restorers(services)), _NOBODY)
    asked.put("faces.restorer", set_ones.get("face_restoration_model") or first, "restore_faces")
    if "code_former_weight" in set_ones:
        asked.put("faces.fidelity", set_ones["code_former_weight"], "code_former_weight")
