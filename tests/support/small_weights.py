"""Small checkpoints of every architecture, resident on a CPU without a file in between."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from shared.prompts.tokenizer import Tokenizer
from tests.support import small_checkpoints
from tests.support.small_checkpoints import Kind
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.images import previews
from worker.engine.loading.batch_invariant import make_batch_invariant
from worker.engine.row_limits import RowLimits
from worker.engine.sigma_table import ALIGNED_SD1, ALIGNED_XL, SigmaTable

_ORDERS = {4: torch.channels_last}


def weights(name: str, on: Device, seed: int = 0) -> Weights:
    """Return the checkpoint of the kind `name` that `small_checkpoints.build` draws from `seed`."""
    small = small_checkpoints.build(name, seed)
    networks: Mapping[str, nn.Module] = {"unet": small.unet, "vae": small.vae, **small.text_encoders}
    for network in networks.values():
        network.eval().requires_grad_(requires_grad=False)
        for weight in network.parameters():
            weight.data = weight.data.contiguous(memory_format=_ORDERS.get(weight.dim(), torch.contiguous_format))
    make_batch_invariant(small.unet, on.row_limits or RowLimits())
    architecture = ARCHITECTURES[_architecture(name)]
    return Weights(
        architecture=architecture,
        unet=small.unet,
        vae=small.vae,
        text_encoders=architecture.text_encoders(networks),
        tokenizer=Tokenizer(),
        sigmas=_sigmas(small.kind),
        prediction=Prediction.VELOCITY if small.kind.predicts_velocity else Prediction.NOISE,
        latent_scale=small.kind.latent_scale,
        native_size=small.kind.native_size,
        latent_rgb=previews.latent_rgb(small.vae, small.kind.latent_scale),
        sample=previews.sample(small.vae, small.kind.latent_scale),
        device=on,
    )


def _architecture(name: str) -> str:
    return name if name in ARCHITECTURES else name.partition("-")[0]


def _sigmas(kind: Kind) -> SigmaTable:
    table = SigmaTable(SigmaTable.scaled_linear().values, ALIGNED_XL if kind.size_figures else ALIGNED_SD1)
    return table.at_zero_terminal_snr() if kind.has_zero_terminal_snr else table
