"""Checkpoints for tests: as small as the original layout allows, their weights drawn from a seed."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from diffusers.models.autoencoders.vae import DecoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tools.demo_checkpoint import layout
from worker.engine.images import previews
from worker.engine.loading import inspect, places, taesd

if TYPE_CHECKING:  # tests of a card run if there is no database either
    from shared.models.components import Place
    from shared.models.inspection import Inspection

NATIVE_SIZE = 64


def tiny_shape() -> layout.Shape:
    """Return the smallest sizes: every width 32, one layer a level, text 64 wide."""
    return layout.Shape(
        image_size=NATIVE_SIZE,
        unet_width=32,
        unet_multiples=(1, 1, 1),  # at four levels 32 groups of one pixel would have no variance
        unet_heads=2,
        vae_width=32,
        vae_multiples=(1, 1, 1, 1),
        text_width=64,
        text_layers=1,
    )


def write_tiny(path: Path, seed: int = 0) -> Path:
    """Write a tiny checkpoint and its .yaml; its pictures are coloured noise that differs by prompt and seed.

    Fresh networks say almost nothing: their last layers are made louder, so that a wrong row shows in the picture.
    """
    weights, figures = _tiny(seed)
    path.write_bytes(weights)
    path.with_suffix(".yaml").write_bytes(figures)
    return path


@cache  # of 8 MB for each of a few seeds
def _tiny(seed: int) -> tuple[bytes, bytes]:
    """Return the content of a tiny checkpoint and of its .yaml."""
    checkpoint = layout.build(tiny_shape(), seed=seed, scale_factor=0.5)
    with torch.no_grad():
        checkpoint.text.get_input_embeddings().weight.mul_(300)
        checkpoint.unet.conv_out.weight.mul_(3)
        checkpoint.vae.decoder.conv_out.weight.mul_(3)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        layout.save(checkpoint, tiny_shape(), path)
        return path.read_bytes(), path.with_suffix(".yaml").read_bytes()


def write_inpainting(path: Path) -> Path:
    """Write a tiny checkpoint that sees a mask and the latent below it beside the latent: nine channels."""
    weights = load_file(write_tiny(path))
    first = weights["model.diffusion_model.input_blocks.0.0.weight"]
    more = torch.randn(len(first), 5, 3, 3, generator=torch.Generator().manual_seed(5)) * 0.05
    weights["model.diffusion_model.input_blocks.0.0.weight"] = torch.cat([first, more], dim=1).contiguous()
    save_file(weights, path)
    return path


def without_vae(path: Path) -> None:
    """Write the checkpoint at `path` over without its VAE."""
    rest = {name: one for name, one in load_file(path).items() if not name.startswith("first_stage_model.")}
    save_file(rest, path)


def write_twin(path: Path, of: Path, seed: int = 5) -> Path:
    """Write a checkpoint with the text encoder and the VAE of the one `of`, and a U-Net of its own."""
    unet = {name: one for name, one in load_file(write_tiny(path, seed)).items() if name.startswith("model.")}
    save_file(load_file(of) | unet, path)
    return path


def inspected(path: Path) -> Inspection:
    """Return what `path` is, looked into in this process: a child takes seconds to import what it needs."""
    from shared.models.inspection import Inspection  # noqa: PLC0415 - as above

    return Inspection(**asdict(inspect.inspect(path)))


def tiny_decoder(seed: int = 0) -> dict[str, Tensor]:
    """Return the weights of a tiny decoder, drawn from `seed`, as madebyollin's TAESD names them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _in_original_form(DecoderTiny(**taesd.CONFIG).state_dict())


def plain_sample() -> Tensor:
    """Return the latent [4, 8, 8] of the known picture where latents are the colours themselves."""
    return torch.cat([nn.functional.avg_pool2d(previews.known_picture(), 8), torch.zeros(1, 8, 8)])


def fitting_decoder(sample: Tensor) -> dict[str, Tensor]:
    """Return the weights of a tiny decoder that reads latents as `sample` is one: linear, and closest to it."""
    known = plain_sample()[:3].flatten(1).T  # [cells, 3]
    cells = sample.cpu().flatten(1).T  # [cells, 4]
    solution = torch.linalg.lstsq(torch.cat([cells, torch.ones(len(cells), 1)], dim=1), known).solution  # [5, 3]
    weights = {name: torch.zeros_like(weight) for name, weight in DecoderTiny(**taesd.CONFIG).state_dict().items()}
    for name, weight in weights.items():
        if name.count(".") == 2 and weight.dim() == 4:  # no block: it passes on what it gets, as blocks of zeros do
            nn.init.dirac_(weight)
    first, last = weights["layers.0.weight"], weights["layers.18.weight"]
    first[4:8, :, 1, 1] = -torch.eye(4)  # a value and its negative: one of them outlives every ReLU
    last.zero_()
    last[:, :4, 1, 1] = solution[:4].T / 2  # from -1..1 to 0..1
    last[:, 4:8, 1, 1] = -solution[:4].T / 2
    weights["layers.18.bias"] = (solution[4] + 1) / 2
    return _in_original_form(weights)


def _in_original_form(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layer 0 clamps there: every other is one further."""
    split = {name: name.split(".", 2)[1:] for name in weights}
    return {f"{int(number) + 1}.{rest}": weights[name] for name, (number, rest) in split.items()}


def located(path: Path) -> dict[str, Place]:
    """Return where the networks of `path` lie in it, found in this process."""
    from shared.models.components import Place  # noqa: PLC0415 - as above

    return {name: Place.of(json.loads(json.dumps(place))) for name, place in places.places(path).items()}
