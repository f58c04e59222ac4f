"""A control net on edges: a copy of the U-Net's way down that reads a picture of edges beside the latents.

Zhang et al., "Adding conditional control to text-to-image diffusion models" (2023). The file has the original names.
"""

import re
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import yaml
from diffusers.models import ControlNetModel, UNet2DConditionModel
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from shared.media.preprocessors import canny
from shared.params.controlnet import ControlUnit
from tools.demo_checkpoint import layout

HINT_WIDTHS = (8, 8, 16, 20)  # of the convolutions that read the picture of edges: small, for a small file
UNIT = ControlUnit(model="scenes-edges", preprocessor="canny")  # with its usual thresholds


def edges(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Canny's edges of a picture [h, w, 3], found as the farm finds them for its control nets."""
    return canny(picture, *UNIT.thresholds)[..., 0] > 0


def agreement(wanted: NDArray[np.bool_], found: NDArray[np.bool_], reach: int = 2) -> float:
    """The F1 score of edges that lie within `reach` pixels of each other: 1 for the same, near 0 for strangers."""
    near = np.ones((2 * reach + 1, 2 * reach + 1), bool)
    precision = np.mean(binary_dilation(wanted, near)[found]) if found.any() else 0.0
    recall = np.mean(binary_dilation(found, near)[wanted]) if wanted.any() else 0.0
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def build(unet: UNet2DConditionModel) -> ControlNetModel:
    """A control net that starts as a copy of the U-Net and adds nothing yet.

    Only the convolutions towards the U-Net start at zero. Those that read the edges start with a gain of 1.7, because
    a SiLU between them shrinks small values. With the usual start the edges would reach the copy ten thousand times
    weaker than the latents, and would not be seen in a training as short as this.
    """
    torch.manual_seed(0)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_WIDTHS)
    for layer in net.controlnet_cond_embedding.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=1.7 / layer.weight[0].numel() ** 0.5)
            nn.init.zeros_(layer.bias)
    return net


def as_hint(lines: NDArray[np.bool_]) -> Tensor:
    """Edges [rows, h, w] as pictures [rows, 3, h, w], white on black, in 0..1."""
    return torch.from_numpy(lines).float()[:, None].repeat(1, 3, 1, 1)


def layout_weight(signal_to_noise: Tensor) -> Tensor:
    """Weights that count errors of the picture alike at nearly all noise levels.

    Much noise is where a picture's layout is decided. The usual weights leave little of it to learn from.
    """
    return 1 / (signal_to_noise + 0.05)


class Controlled(nn.Module):
    """A U-Net with its control net and a hint [rows, 3, h, w], called as a U-Net is; rows that repeat share hints."""

    def __init__(self, unet: UNet2DConditionModel, net: ControlNetModel, hint: Tensor, strength: float = 1.0) -> None:
        super().__init__()
        self.unet, self.net, self.hint, self.strength = unet, net, hint, strength

    def forward(self, latents: Tensor, times: Tensor, context: Tensor) -> object:
        hint = self.hint.repeat(len(latents) // len(self.hint), 1, 1, 1)
        down, middle = self.net(latents, times, context, hint, self.strength, return_dict=False)
        return self.unet(
            latents, times, context, down_block_additional_residuals=down, mid_block_additional_residual=middle
        )


def original_tensors(net: ControlNetModel) -> dict[str, Tensor]:
    """The weights under their names in the original layout, which begin with `control_model.`."""
    own = ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block.")
    shared = {name: value for name, value in net.state_dict().items() if not name.startswith(own)}
    added = {name: value for name, value in net.state_dict().items() if name.startswith(own)}
    copied_name = layout.unet_names(net.config.layers_per_block, with_attention=())
    named = {copied_name(name): value for name, value in shared.items()}
    named |= {_added(name): value for name, value in added.items()}
    return {f"control_model.{name}": value for name, value in named.items()}


def _added(name: str) -> str:
    """The original name of what a U-Net does not have. A SiLU follows each convolution of the hint but the last."""
    last = 2 * len(HINT_WIDTHS) - 2
    name = name.replace("controlnet_mid_block.", "middle_block_out.0.")
    name = re.sub(r"controlnet_down_blocks\.(\d+)\.", r"zero_convs.\1.0.", name)
    name = name.replace("controlnet_cond_embedding.conv_in.", "input_hint_block.0.")
    name = name.replace("controlnet_cond_embedding.conv_out.", f"input_hint_block.{2 * last + 2}.")
    block = re.match(r"controlnet_cond_embedding\.blocks\.(\d+)\.(.*)", name)
    return f"input_hint_block.{2 * int(block[1]) + 2}.{block[2]}" if block else name


def save(net: ControlNetModel, path: Path) -> None:
    """Write the weights in half precision, and beside them what no shape says: the number of heads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().half().contiguous() for name, value in original_tensors(net).items()}
    safetensors.torch.save_file(tensors, path.with_suffix(".partial"), {"format": "pt", "license": "Apache-2.0"})
    path.with_suffix(".partial").chmod(0o644)  # safetensors writes for the owner only
    stage = {"target": "cldm.cldm.ControlNet", "params": {"num_heads": net.config.attention_head_dim}}
    text = yaml.safe_dump({"model": {"params": {"control_stage_config": stage}}}, sort_keys=False)
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")
    path.with_suffix(".partial").replace(path)
