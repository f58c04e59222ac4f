"""Low-rank adapters (LoRA, and LoCon for convolutions) of the demo checkpoint, in the names of kohya's sd-scripts.

Hu et al., "LoRA: Low-rank adaptation of large language models" (2021). A layer answers
`W x + alpha / rank * up(down(x))`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

RANK = 8
BASE = "scenes-v1.safetensors"
PREFIXES = {"unet": "lora_unet", "text": "lora_te_text_model"}
CONVOLUTIONS = (".resnets.", "samplers.")


class LowRank(nn.Module):
    """The addition to one layer, with `up` zero at first; `strength` is the weight that a prompt would give it."""

    strength = 1.0

    def __init__(self, layer: nn.Linear | nn.Conv2d, alpha: float, rank: int = RANK) -> None:
        super().__init__()
        self.alpha, self.rank = alpha, rank
        if isinstance(layer, nn.Conv2d):
            size = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
            self.down: nn.Module = nn.Conv2d(layer.in_channels, rank, bias=False, **size)
            self.up: nn.Module = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x)) * (self.strength * self.alpha / self.rank)


def attach(pair: nn.ModuleDict, *, text: bool, convolutions: bool, alpha: float = RANK) -> nn.ModuleDict:
    """Give the layers of a U-Net and a text encoder new low ranks, which act from now on; by their names in a file."""
    torch.manual_seed(0)
    adapters = nn.ModuleDict()
    for name, layer in _adapted(pair, text=text, convolutions=convolutions):
        adapters[name] = LowRank(layer, alpha)
        layer.register_forward_hook(lambda _layer, given, answer, low=adapters[name]: answer + low(given[0]))
    return adapters


def _adapted(pair: nn.ModuleDict, *, text: bool, convolutions: bool) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """The layers that are adapted: all of attention and, on request, of the text encoder and of residual blocks."""
    for network, prefix in PREFIXES.items():
        for path, layer in pair[network].named_modules():
            parts = (".layers.",) if network == "text" else (".attentions.", *CONVOLUTIONS * convolutions)
            is_asked_for = (text or network == "unet") and any(part in path for part in parts)
            if is_asked_for and isinstance(layer, nn.Linear | nn.Conv2d):
                yield f"{prefix}_{path}".replace(".", "_"), layer


def save(adapters: nn.ModuleDict, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file in half precision, with the hash that other programs look for."""
    tensors = {}
    for name, low in adapters.items():
        tensors |= {f"{name}.lora_down.weight": low.down.weight, f"{name}.lora_up.weight": low.up.weight}
        tensors[f"{name}.alpha"] = torch.tensor(float(low.alpha))
    tensors = {name: value.detach().half().contiguous() for name, value in tensors.items()}
    weights = _after_header(safetensors.torch.save(tensors))
    known = {**metadata, "sshs_model_hash": hashlib.sha256(weights).hexdigest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".partial").write_bytes(safetensors.torch.save(tensors, known))
    path.with_suffix(".partial").replace(path)


def metadata(name: str, pictures: int, steps: int, *, convolutions: bool, alpha: float = RANK) -> dict[str, str]:
    """What kohya's programs write into a file, and other programs show of it."""
    return {
        "format": "pt",
        "ss_output_name": name,
        "ss_sd_model_name": BASE,
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(float(alpha)),
        **(
            {"ss_network_args": json.dumps({"conv_dim": str(RANK), "conv_alpha": f"{alpha:g}"})} if convolutions else {}
        ),
        "ss_resolution": "(128, 128)",
        "ss_num_train_images": str(pictures),
        "ss_steps": str(steps),
        "ss_tag_frequency": json.dumps({name: {name: pictures}}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": name,
        "modelspec.trigger_phrase": name,
        "modelspec.license": "Apache-2.0",
    }


def load(adapters: nn.ModuleDict, path: Path) -> None:
    """Read what `save` wrote into low ranks of the same layers."""
    tensors = safetensors.torch.load_file(path)
    for name, low in adapters.items():
        low.down.load_state_dict({"weight": tensors[f"{name}.lora_down.weight"]})
        low.up.load_state_dict({"weight": tensors[f"{name}.lora_up.weight"]})


def _after_header(file: bytes) -> bytes:
    """The tensors' bytes: what follows the header, whose length stands in the first eight bytes."""
    return file[8 + int.from_bytes(file[:8], "little") :]
