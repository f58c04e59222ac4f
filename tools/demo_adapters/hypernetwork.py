"""A hypernetwork: small networks that change what attention reads as keys and values, one pair for each width.

The file is the web UIs' `.pt`: the pairs' weights by width, beside a description of their layers.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

STRUCTURE = (1, 2, 1)  # widths of the layers, in multiples of what is read
ACTIVATION = "relu"


class Change(nn.Module):
    """Adds to what keys or values are made of; nothing at first. `strength` is the weight in a prompt."""

    strength = 1.0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.linear[2].weight)
        nn.init.zeros_(self.linear[2].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.strength * self.linear(x)


def attach(unet: nn.Module) -> nn.ModuleDict:
    """Give the attention of a U-Net new changes, which act from now on: `WIDTH_k` and `WIDTH_v`."""
    torch.manual_seed(0)
    changes = nn.ModuleDict()
    for path, layer in unet.named_modules():
        if not path.endswith((".to_k", ".to_v")):
            continue
        name = f"{layer.in_features}_{path[-1]}"
        if name not in changes:
            changes[name] = Change(layer.in_features)
        layer.register_forward_pre_hook(lambda _layer, given, change=changes[name]: (change(given[0]),))
    return changes


def save(changes: nn.ModuleDict, path: Path, steps: int) -> None:
    """Write the `.pt` in half precision."""

    def weights(name: str) -> dict[str, Tensor]:
        return {key: value.half() for key, value in changes[name].state_dict().items()}

    widths = sorted({int(name.split("_")[0]) for name in changes})
    about = {
        "name": path.stem,
        "step": steps,
        "layer_structure": list(STRUCTURE),
        "activation_func": ACTIVATION,
        "weight_initialization": "Normal",
        "is_layer_norm": False,
        "use_dropout": False,
        "activate_output": False,
        "last_layer_dropout": False,
        "sd_checkpoint_name": "scenes-v1",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = {width: (weights(f"{width}_k"), weights(f"{width}_v")) for width in widths}
    torch.save(pairs | about, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def load(changes: nn.ModuleDict, path: Path) -> None:
    """Read what `save` wrote."""
    file = torch.load(path, weights_only=True)
    for name, change in changes.items():
        width, part = name.split("_")
        change.load_state_dict(file[int(width)]["kv".index(part)])
