"""Small random control nets for the small checkpoints, in every form of file, and diffusers' pipelines with them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Final, Literal

import torch
import yaml
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.support.small_checkpoints import Small
from tools.demo_checkpoint import layout

Form = Literal["diffusers", "original", "bare", "pickle", "folder"]
FORMS: Final[tuple[Form, ...]] = ("diffusers", "original", "bare", "pickle", "folder")
TYPES: Final = 6  # of the union
_HINTS: Final = (8, 8, 16, 16)  # channels of the layers that embed pictures
_STRENGTH: Final = 0.3  # deviation of what a net adds, beside 1
_OWN_NAMES: Final = (
    (re.compile(r"^controlnet_down_blocks\.(\d+)\."), r"zero_convs.\1.0."),
    (re.compile(r"^controlnet_mid_block\."), "middle_block_out.0."),
    (re.compile(r"^controlnet_cond_embedding\.conv_in\."), "input_hint_block.0."),
    (re.compile(r"^controlnet_cond_embedding\.conv_out\."), "input_hint_block.14."),
)


def build(small: Small, seed: int = 0, *, dtype: torch.dtype = torch.float16, **config: Any) -> ControlNetModel:
    """Return a control net for `small`, its weights drawn from `seed` and rounded to `dtype`."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = ControlNetModel.from_unet(small.unet, conditioning_embedding_out_channels=_HINTS)
        return _drawn(net.register_to_config(**config) or net, dtype)


def build_union(small: Small, seed: int = 0, dtype: torch.dtype = torch.float16) -> ControlNetUnionModel:
    """Return a union of control nets for `small`, which is of Stable Diffusion XL."""
    taken = signature(ControlNetUnionModel).parameters
    config = {name: value for name, value in small.unet.config.items() if name in taken}
    width = small.unet.config["block_out_channels"][0]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = ControlNetUnionModel(
            **config,
            conditioning_embedding_out_channels=_HINTS,
            num_control_type=TYPES,
            num_trans_channel=width,
            num_proj_channel=width,
        )
        copied = {name: one for name, one in small.unet.state_dict().items() if name in net.state_dict()}
        net.load_state_dict(copied, strict=False)
        return _drawn(net, dtype)


def write(net: ControlNetModel | ControlNetUnionModel, path: Path, form: Form = "diffusers") -> Path:
    """Write a net in one of the forms, and return its path: `path` with its ending, or a folder of that name."""
    if form == "folder":
        copy.deepcopy(net).half().save_pretrained(path)
        return path
    weights = {name: one.detach().half().contiguous().clone() for name, one in net.state_dict().items()}
    if form != "diffusers":
        prefix = "" if form == "bare" else "control_model."
        weights = {f"{prefix}{name}": one for name, one in original_names(net, weights).items()}
    path = path.with_suffix(".pth" if form == "pickle" else ".safetensors")
    if form == "pickle":
        torch.save(weights, path)
    else:
        save_file(weights, path, {"format": "pt"})
    if not net.config["use_linear_projection"]:  # whose number of heads no shape shows
        heads = {"num_heads": net.config["attention_head_dim"]}
        stated = {"model": {"params": {"control_stage_config": {"params": heads}}}}
        path.with_suffix(".yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
    return path


def original_names(net: ControlNetModel | ControlNetUnionModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a net under their names in the original layout."""
    of_unet = layout.unet_names(net.config["layers_per_block"], ())

    def renamed(name: str) -> str:
        if found := re.match(r"^controlnet_cond_embedding\.blocks\.(\d+)\.(.+)", name):
            return f"input_hint_block.{2 * int(found[1]) + 2}.{found[2]}"
        for pattern, new in _OWN_NAMES:
            if pattern.match(name):
                return pattern.sub(new, name)
        return of_unet(name)

    return {renamed(name): one for name, one in weights.items()}


def _drawn(net: Any, dtype: torch.dtype) -> Any:
    """Return a net that steers: its last layers, which diffusers leaves at zero, are drawn, and rounded to `dtype`."""
    last = [*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out]
    for layer in [*last, *([net.spatial_ch_projs] if hasattr(net, "spatial_ch_projs") else [])]:
        fan = nn.init._calculate_correct_fan(layer.weight, "fan_in")
        nn.init.normal_(layer.weight, std=_STRENGTH / fan**0.5)
        nn.init.normal_(layer.bias, std=_STRENGTH / 10)
    for weight in net.parameters():
        weight.copy_(weight.to(dtype))
    return net.eval()
