"""Small upscalers of the architectures that people have: weights drawn from a seed, under the names of real files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from torch import Tensor, nn

from worker.engine.upscaling import architectures as _  # noqa: F401 - before spandrel is imported

from spandrel.architectures import DAT, ESRGAN, HAT, Compact, OmniSR, RealCUGAN, SPAN, SwinIR  # isort: skip

Weights = dict[str, Tensor]

_BLOCKS: Final = 1  # of ESRGAN
_NEW_NAMES: Final = (  # of ESRGAN's layers: as the first program wrote them -> as BasicSR writes them
    (r"^model\.0\.", "conv_first."),
    (r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
    (rf"^model\.1\.sub\.{_BLOCKS}\.", "conv_body."),
    (r"^model\.3\.", "conv_up1."),
    (r"^model\.6\.", "conv_up2."),
    (r"^model\.8\.", "conv_hr."),
    (r"^model\.10\.", "conv_last."),
)


def _old_esrgan(scale: int = 4, **figures: object) -> nn.Module:
    return ESRGAN.ESRGAN(in_nc=3, out_nc=3, num_filters=16, num_blocks=_BLOCKS, scale=scale, **figures)


def _swin(**figures: object) -> nn.Module:
    return SwinIR.SwinIR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=8, mlp_ratio=2, upscale=2,
        upsampler="pixelshuffle", **figures,
    )  # fmt: skip


NETWORKS: Final[Mapping[str, tuple[Callable[[], nn.Module], str, int]]] = {
    "ESRGAN": (_old_esrgan, "ESRGAN", 4),
    "Real-ESRGAN x4": (_old_esrgan, "ESRGAN", 4),  # under the new names
    "Real-ESRGAN x2": (
        lambda: ESRGAN.ESRGAN(
            in_nc=12, out_nc=3, num_filters=16, num_blocks=_BLOCKS, scale=4, shuffle_factor=2, plus=False
        ),
        "ESRGAN",
        2,
    ),
    "Compact": (
        lambda: Compact.Compact(num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=2, upscale=4),
        "RealESRGAN Compact",
        4,
    ),
    "SwinIR": (_swin, "SwinIR", 2),
    "DAT": (
        lambda: DAT.DAT(
            img_size=16, embed_dim=32, split_size=[2, 4], depth=[2], num_heads=[2], expansion_factor=2, upscale=2
        ),
        "DAT",
        2,
    ),
    "HAT": (
        lambda: HAT.HAT(
            img_size=16, embed_dim=12, depths=(2,), num_heads=(2,), window_size=8, compress_ratio=3, squeeze_factor=6,
            mlp_ratio=2, upscale=2,
        ),
        "HAT",
        2,
    ),
    "OmniSR": (lambda: OmniSR.OmniSR(num_feat=16, up_scale=2), "OmniSR", 2),
    "SPAN": (lambda: SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2), "SPAN", 2),
    "RealCUGAN": (lambda: RealCUGAN.UpCunet2x(in_channels=3, out_channels=3), "RealCUGAN", 2),
}  # fmt: skip
"""By the names of people: what makes the network, its architecture in spandrel, and its scale."""


def weights(name: str, seed: int = 0, gain: float = 1) -> Weights:
    """Return the weights of a small network as files hold them, those of convolutions times `gain`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = {
            key: value * gain if value.dim() == 4 and value.is_floating_point() else value.clone()
            for key, value in NETWORKS[name][0]().state_dict().items()
        }
    if name.startswith("Real-ESRGAN"):
        return {_renamed(key): value for key, value in made.items()}
    return made


def write(path: Path, content: Weights, wrapping: str | None = None) -> Path:
    """Write an upscaler's file: safetensors, or PyTorch's form with the weights under `wrapping`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: value.contiguous() for name, value in content.items()}, path)
    else:
        torch.save({wrapping: content} if wrapping else content, path)
    return path


def _renamed(key: str) -> str:
    for pattern, new in _NEW_NAMES:
        key = re.sub(pattern, new, key)
    return key
