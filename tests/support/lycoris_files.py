"""Random files of the LoRA family for a checkpoint at hand, made by LyCORIS, whose modules are the references."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import torch
from lycoris.modules import (
    ButterflyOFTModule,
    DiagOFTModule,
    FullModule,
    GLoRAModule,
    IA3Module,
    LoConModule,
    LohaModule,
    LokrModule,
    NormModule,
)  # fmt: skip
from torch import Tensor, nn

from tests.support.conditioned import with_empty_caches
from tests.support.lora_files import Adapter, chosen
from worker.engine.adapters.reading.fitting import networks_of
from worker.engine.architectures.weights import Weights

Tensors = dict[str, Tensor]
LAYERS: Final = (
    "resnets.0.conv1",
    "downsamplers.0.conv",
    "proj_in",
    "attn1.to_q",
    "attn2.to_k",
    "ff.net.0.proj",
    "fc1",
)
NORMS: Final = ("norm1", "norm2", "layer_norm1")


class Kind(NamedTuple):
    """One algorithm with one choice of its options."""

    module: type[nn.Module]
    options: Mapping[str, Any] = {}
    layers: Sequence[str] = LAYERS
    rank: int = 4


_TUCKER: Final = {"use_tucker": True}
_DORA: Final = {"weight_decompose": True}
_DORA_IN: Final = {"weight_decompose": True, "wd_on_out": False}
KINDS: Final[Mapping[str, Kind]] = {
    "LoCon": Kind(LoConModule),
    "LoCon, rank stabilised": Kind(LoConModule, {"rs_lora": True}),
    "LoCon, Tucker": Kind(LoConModule, _TUCKER),
    "DoRA": Kind(LoConModule, _DORA),
    "DoRA by columns": Kind(LoConModule, _DORA_IN),
    "DoRA, Tucker": Kind(LoConModule, _TUCKER | _DORA),
    "LoHa": Kind(LohaModule),
    "LoHa, Tucker": Kind(LohaModule, _TUCKER),
    "LoHa, DoRA": Kind(LohaModule, _DORA),
    "LoKr": Kind(LokrModule),
    "LoKr, one whole": Kind(LokrModule, {"factor": 4}),
    "LoKr, both factored": Kind(LokrModule, {"factor": 8, "decompose_both": True}, rank=2),
    "LoKr, both whole": Kind(LokrModule, {"factor": 4, "full_matrix": True}),
    "LoKr, Tucker": Kind(LokrModule, _TUCKER | {"factor": 4}),
    "LoKr, unbalanced": Kind(LokrModule, {"factor": 2, "unbalanced_factorization": True}),
    "LoKr, DoRA": Kind(LokrModule, _DORA | {"factor": 4}),
    "OFT": Kind(DiagOFTModule, rank=8),
    "OFT, held": Kind(DiagOFTModule, {"constraint": 0.002}, rank=8),
    "OFT, rescaled": Kind(DiagOFTModule, {"rescaled": True}, rank=8),
    "BOFT": Kind(ButterflyOFTModule, rank=8),
    "BOFT, rescaled": Kind(ButterflyOFTModule, {"rescaled": True}, rank=8),
    "GLoRA": Kind(GLoRAModule),
    "IA3": Kind(IA3Module),
    "IA3 on inputs": Kind(IA3Module, {"train_on_input": True}),
    "norms": Kind(NormModule, layers=NORMS),
    "full differences": Kind(FullModule),
}


class Made(NamedTuple):
    """A file, and LyCORIS's own modules for its layers."""

    tensors: Tensors
    modules: Mapping[tuple[str, str], Any]  # by diffusers' name of the network and the layer's path


def made(weights: Weights, name: str, seed: int = 0) -> Made:
    """Return a file of the kind `name` for layers of every sort, drawn from `seed`."""
    kind, tensors, modules = KINDS[name], {}, {}
    numbers = ("1", "2") if len(weights.text_encoders) > 1 else ("",)
    texts = {
        one.name: f"lora_te{number}_text_model" for one, number in zip(weights.text_encoders, numbers, strict=True)
    }
    prefixes = {"unet": "lora_unet", **texts}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for network, whole in networks_of(weights).items():
            for path, layer in chosen(whole, kind.layers, (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)):
                title = f"{prefixes[network]}_{path.removeprefix('text_model.')}".replace(".", "_")
                module = _module(kind, title, plain(layer))
                modules[network, path] = module
                tensors |= {f"{title}.{key}": one.detach().clone() for key, one in _stored(module).items()}
    return Made(tensors, modules)


def of_factors(weights: Weights, adapter: Adapter) -> dict[tuple[str, str], Any]:
    """Return LyCORIS's own modules with the factors of a plain LoRA or LoCon."""
    modules: dict[tuple[str, str], Any] = {}
    for network, whole in networks_of(weights).items():
        known = {path.removeprefix("text_model."): path for path, _ in whole.named_modules()}
        for name, (down, up, alpha) in adapter[network].items():
            rank, path = len(down), known[name]
            layer = plain(whole.get_submodule(path))
            module = LoConModule("one", layer, 1.0, lora_dim=rank, alpha=rank if alpha is None else alpha)
            module.lora_down.weight.data.copy_(down)
            module.lora_up.weight.data.copy_(up.view_as(module.lora_up.weight))
            modules[network, path] = module.eval()
    return modules


def running(weights: Weights, modules: Mapping[tuple[str, str], Any], texts: float, unet: float) -> Weights:
    """Return copies of the networks whose layers LyCORIS's modules compute, at these strengths."""
    encoders = [replace(one, network=copy.deepcopy(one.network)) for one in with_empty_caches(weights).text_encoders]
    changed = replace(weights, unet=copy.deepcopy(weights.unet), text_encoders=tuple(encoders))
    for (network, path), module in modules.items():
        module.multiplier = unet if network == "unet" else texts
        vars(networks_of(changed)[network].get_submodule(path))["forward"] = module.forward
    return changed


def plain(layer: nn.Module) -> nn.Module:
    """Return a layer with the same weights, of the class that it had before it was made batch invariant.

    LyCORIS takes other classes for quantised layers.
    """
    copied = copy.copy(layer)
    copied.__class__ = next(one for one in type(layer).__mro__ if one.__module__.startswith("torch.nn"))
    return copied


def _module(kind: Kind, title: str, layer: nn.Module) -> Any:
    """Return a module of LyCORIS whose weights differ from those that it starts with, by about a tenth."""
    module = kind.module(title, layer, 1.0, lora_dim=kind.rank, alpha=kind.rank / 2, **kind.options)
    for name, one in module.named_parameters():
        noise = torch.randn_like(one)
        one.copy_(one * (1 + 0.2 * noise) if name in {"dora_scale", "rescale"} else noise * 0.3)
    return module.eval()


def _stored(module: Any) -> Tensors:
    if isinstance(module, FullModule):
        return {"diff": module.weight} | ({} if module.bias is None else {"diff_b": module.bias})
    stored: Tensors = module.custom_state_dict() or module.state_dict()
    return stored
