"""The number format that a VAE computes in, beside a U-Net in another."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from worker.engine import devices
from worker.engine.architectures.parts import Part
from worker.engine.devices import Device
from worker.engine.images.previews import sample

LARGEST: Final = 2.0**13
"""The most that a known picture may reach inside a VAE for float16, which ends at 65,504: other pictures reach more."""


def vae_dtype(part: Part, device: Device, dtype: torch.dtype) -> torch.dtype:
    """Return the number format of the VAE `part` beside a U-Net in `dtype`.

    Bfloat16 on cards that have it, else float32, because the VAE of Stable Diffusion XL overflows in float16; float16
    on the other cards if this VAE holds in it.
    """
    usual = devices.decoder_dtype(device, dtype)
    is_worth_it = device.kind == "cuda" and dtype == torch.float16 and usual == torch.float32
    return torch.float16 if is_worth_it and holds_in_float16(part) else usual


def holds_in_float16(part: Part) -> bool:
    """Return whether a VAE computes in float16: as its configuration says, else by a picture through it, in float32."""
    stated = part.config.get("force_upcast")
    return not stated if isinstance(stated, bool) else largest_number(part) <= LARGEST


@torch.inference_mode()
def largest_number(part: Part) -> float:
    """Return the largest magnitude inside a VAE on the host that encodes a known picture and decodes it again."""
    from worker.engine.loading import networks  # noqa: PLC0415 - diffusers takes seconds

    vae = networks.build_vae(part)
    networks.fill(vae, {name: weight.float() for name, weight in part.weights.items()})
    peaks: list[Tensor] = []

    def watch(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            peaks.append(output.abs().max())

    for module in vae.modules():
        module.register_forward_hook(watch)
    latent = sample(vae, 1.0)
    vae.decode(latent[None])
    return float(torch.nan_to_num(torch.stack(peaks), nan=torch.inf).max())
