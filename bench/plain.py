"""A plain loop of text encoder, U-Net (guidance as one call of two rows) and VAE: what a picture costs without a farm.

Written as one writes it first, and from the same files by another way: it shares no code with the engine. As a command
it loads a checkpoint, then reads numbers of pictures and answers each with the seconds that they took.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from shared.prompts.tokenizer import Tokenizer

STEPS: Final = 20
SCALE: Final = 7.0
SIDE: Final = 128  # pixels


@dataclass(frozen=True)
class Networks:
    """The three networks, the latents' scale, and the noise levels of the training timesteps."""

    text: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    latent_scale: float
    sigmas: NDArray[np.float64]


def load(checkpoint: Path, on: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Networks:
    """Return the networks of a single file that has a .yaml, channels last. Beside half precision the VAE is in
    bfloat16: Stable Diffusion's overflow in float16.
    """
    logging.set_verbosity_error()  # it warns of modules that are to stay in float32: none
    config = checkpoint.with_suffix(".yaml")
    params = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]["params"]
    vae_dtype = dtype if dtype == torch.float32 else torch.bfloat16
    read = {"original_config": str(config)}
    unet = UNet2DConditionModel.from_single_file(str(checkpoint), torch_dtype=dtype, **read)
    vae = AutoencoderKL.from_single_file(str(checkpoint), torch_dtype=vae_dtype, **read)
    roots = np.linspace(params["linear_start"] ** 0.5, params["linear_end"] ** 0.5, params["timesteps"])
    kept = np.cumprod(1 - roots**2)
    return Networks(
        text=_text_encoder(load_file(checkpoint)).to(on, dtype),
        unet=unet.eval().to(on, memory_format=torch.channels_last),
        vae=vae.eval().to(on, memory_format=torch.channels_last),
        latent_scale=params["scale_factor"],
        sigmas=np.sqrt((1 - kept) / kept),
    )


def _text_encoder(tensors: dict[str, Tensor]) -> CLIPTextModel:
    prefix = "cond_stage_model.transformer.text_model."
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    width = weights["final_layer_norm.weight"].numel()
    layers = sum(name.endswith("layer_norm1.bias") for name in weights)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        vocab_size=49408,
        eos_token_id=49407,
    )
    text = CLIPTextModel(config)
    text.load_state_dict(weights)
    return text.eval()


def picture(networks: Networks, prompt: str, seed: int, *, steps: int = STEPS, side: int = SIDE) -> NDArray[np.uint8]:
    """Return a picture [side, side, 3] by Euler a at CFG 7."""
    pixels: NDArray[np.uint8] = pictures(networks, prompt, [seed], steps=steps, side=side)[0]
    return pixels


@torch.inference_mode()
def pictures(
    networks: Networks, prompt: str, seeds: Sequence[int], *, steps: int = STEPS, side: int = SIDE
) -> NDArray[np.uint8]:
    """Return a batch of pictures [seeds, side, side, 3] by Euler a at CFG 7."""
    on, dtype = networks.unet.device, networks.unet.dtype
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (4, side // 8, side // 8)

    def noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(on)

    context = _contexts(networks, prompt).repeat_interleave(len(seeds), dim=0)
    timesteps = np.linspace(len(networks.sigmas) - 1, 0, steps)
    logarithms = np.interp(timesteps, np.arange(len(networks.sigmas)), np.log(networks.sigmas))
    sigmas = [*np.exp(logarithms).tolist(), 0.0]
    x = noise() * sigmas[0]
    for timestep, sigma, sigma_next in zip(timesteps.tolist(), sigmas, sigmas[1:], strict=False):
        scaled = (x / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1).to(dtype, memory_format=torch.channels_last)
        at = torch.tensor([timestep]).to(on)
        without, towards = networks.unet(scaled, at, context).sample.float().chunk(2)
        predicted = without + SCALE * (towards - without)
        up = sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5
        down = (sigma_next**2 - up**2) ** 0.5
        x = x + predicted * (down - sigma)
        if sigma_next > 0:
            x = x + noise() * up
    return np.stack([_decoded(networks, latent[None]) for latent in x])


def _decoded(networks: Networks, latent: Tensor) -> NDArray[np.uint8]:
    scaled = (latent / networks.latent_scale).to(networks.vae.dtype, memory_format=torch.channels_last)
    pixels = networks.vae.decode(scaled).sample[0].float().clamp(-1, 1)
    bytes_: NDArray[np.uint8] = ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return bytes_


def _contexts(networks: Networks, prompt: str) -> Tensor:
    """The embeddings of the empty prompt and of `prompt` [2, 77, width]."""
    rows = [[49406, *tokens, *[49407] * (76 - len(tokens))] for tokens in ([], Tokenizer().encode(prompt))]
    embedded: Any = networks.text(input_ids=torch.tensor(rows).to(networks.text.device))
    return embedded.last_hidden_state


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options that every measured process takes, and those of `parser`."""
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--card", default="cpu", help="cpu, or cuda:0: then in float16")
    return parser.parse_args()


def answer(render: Callable[[range], object], seed: int) -> None:
    """Answer each line of standard input, a number of pictures, with the seconds that `render` took for their seeds."""
    for count in map(int, sys.stdin):
        start = time.perf_counter()
        render(range(seed, seed + count))
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    """Answer numbers of pictures with seconds, one picture after the other."""
    options = parse(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    networks = load(options.checkpoint, options.card, torch.float32 if options.card == "cpu" else torch.float16)
    answer(lambda seeds: [picture(networks, options.prompt, seed) for seed in seeds], options.seed)


if __name__ == "__main__":
    main()
