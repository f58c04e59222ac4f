"""Small random files of plain LoRA and LoCon for a checkpoint at hand, in the names of every trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from tools.demo_checkpoint import layout
from worker.engine.adapters.reading.fitting import networks_of
from worker.engine.architectures.weights import Weights

Tensors = dict[str, Tensor]
LAYERS: Final = (
    "conv_in", "resnets.0.conv1", "resnets.0.time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv", "proj_in",
    "attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ff.net.0.proj", "q_proj", "out_proj", "fc1",
)  # fmt: skip
"""Ends of paths: of every sort of layer that files have."""
ATTENTION: Final = ("attn1.to_q", "attn2.to_out.0", "q_proj", "out_proj")
"""Those that diffusers' oldest files have."""


class Drawn(NamedTuple):
    """One layer's factors."""

    down: Tensor
    up: Tensor
    alpha: float | None


Adapter = Mapping[str, Mapping[str, Drawn]]
"""By diffusers' name of the network, then by the layer's path without `text_model.`."""


def drawn(weights: Weights, seed: int = 0, layers: Sequence[str] = LAYERS, *, with_alpha: bool = True) -> Adapter:
    """Return an adapter drawn from `seed` for the layers that end so: ranks of 1 to 6, some convolutions."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: {path.removeprefix("text_model."): _layer(one, draw, with_alpha) for path, one in chosen(network, layers)}
        for name, network in networks_of(weights).items()
    }


def chosen(
    network: nn.Module, layers: Sequence[str], kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of `network` of these kinds whose paths end so, with their paths."""
    for path, module in network.named_modules():
        if isinstance(module, kinds) and path.endswith(tuple(layers)):
            yield path, module


def _layer(module: nn.Module, draw: torch.Generator, with_alpha: bool) -> Drawn:  # noqa: FBT001
    weight = module.get_parameter("weight")
    rank = int(torch.randint(1, 7, (), generator=draw))
    down = torch.randn(rank, *weight.shape[1:], generator=draw)
    up = torch.randn(len(weight), rank, *(1 for _ in weight.shape[2:]), generator=draw)
    return Drawn(down, up, rank / 2 if with_alpha else None)


def kohya(adapter: Adapter) -> Tensors:
    """Return it under kohya's names, by diffusers' paths."""
    return _kohya(adapter, lambda path: path)


def kohya_original(adapter: Adapter, weights: Weights) -> Tensors:
    """Return it under kohya's names, by the original layout's paths."""
    return _kohya(adapter, original_name(weights))


def original_name(weights: Weights) -> Callable[[str], str]:
    """Return a function from the path of a layer of the U-Net to its name in the original layout."""
    paths = [path for path, _ in weights.unet.named_parameters()]
    attentive = {int(path.split(".")[1]) for path in paths if path.startswith("up_blocks.") and ".attentions." in path}
    name = layout.unet_names(weights.unet.config["layers_per_block"], attentive)
    return lambda path: name(f"{path}.").removesuffix(".")


def _kohya(adapter: Adapter, unet_name: Callable[[str], str]) -> Tensors:
    texts = ("lora_te1", "lora_te2") if "text_encoder_2" in adapter else ("lora_te",)
    prefixes = {"unet": "lora_unet", **dict(zip(("text_encoder", "text_encoder_2"), texts, strict=False))}
    found: Tensors = {}
    for name, layers in adapter.items():
        for path, (down, up, alpha) in layers.items():
            stem = unet_name(path) if name == "unet" else f"text_model.{path}"
            layer = f"{prefixes[name]}_{stem}".replace(".", "_")
            found |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
            found |= {} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)}
    return found


def comfy(adapter: Adapter, weights: Weights) -> Tensors:
    """Return it by the original layout's paths, with points."""
    name = original_name(weights)
    prefixes = {
        "text_encoder": "text_encoders.clip_l.transformer.",
        "text_encoder_2": "text_encoders.clip_g.transformer.",
    }
    return _dotted(
        adapter,
        lambda network, path: f"diffusion_model.{name(path)}" if network == "unet" else prefixes[network] + _text(path),
        ("lora_down", "lora_up"),
    )


def peft(adapter: Adapter) -> Tensors:
    """Return it as diffusers saves it today, by peft."""
    return _dotted(adapter, _path, ("lora_A", "lora_B"))


def peft_alone(adapter: Adapter) -> Tensors:
    """Return it as peft saves it, each network behind its name."""
    return _dotted(
        adapter,
        lambda network, path: f"{network}.base_model.model.{path if network == 'unet' else _text(path)}",
        ("lora_A.default", "lora_B.default"),
    )


def diffusers(adapter: Adapter) -> Tensors:
    """Return it as diffusers saved it before it used peft."""
    return _dotted(adapter, _path, ("lora.down", "lora.up"), ("lora_linear_layer.down", "lora_linear_layer.up"))


def diffusers_oldest(adapter: Adapter) -> Tensors:
    """Return its attention as diffusers saved it first: in processors."""
    renamed = {"to_out.0": "to_out", "q_proj": "to_q", "out_proj": "to_out"}
    found: Tensors = {}
    for network, layers in adapter.items():
        for path, (down, up, _) in layers.items():
            attention, projection = next(
                (path.removesuffix(f".{end}"), end) for end in _PROJECTIONS if path.endswith(end)
            )
            processor = f"{attention}.processor" if network == "unet" else _text(attention)
            layer = f"{network}.{processor}.{renamed.get(projection, projection)}_lora"
            found |= {f"{layer}.down.weight": down, f"{layer}.up.weight": up}
    return found


_PROJECTIONS: Final = ("to_q", "to_out.0", "q_proj", "out_proj")


def _path(network: str, path: str) -> str:
    return f"{network}.{path if network == 'unet' else _text(path)}"


def _text(path: str) -> str:
    return f"text_model.{path}"


def _dotted(
    adapter: Adapter, name: Callable[[str, str], str], ends: tuple[str, str], text_ends: tuple[str, str] | None = None
) -> Tensors:
    found: Tensors = {}
    for network, layers in adapter.items():
        first, second = ends if network == "unet" else text_ends or ends
        for path, (down, up, alpha) in layers.items():
            layer = name(network, path)
            found |= {f"{layer}.{first}.weight": down, f"{layer}.{second}.weight": up}
            found |= {} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)}
    return found


FORMS: Final[Mapping[str, Callable[[Adapter, Weights], Tensors]]] = {
    "kohya": lambda adapter, _: kohya(adapter),
    "kohya by original paths": kohya_original,
    "comfy": comfy,
    "peft": lambda adapter, _: peft(adapter),
    "peft alone": lambda adapter, _: peft_alone(adapter),
    "diffusers": lambda adapter, _: diffusers(adapter),
}
"""Every form of names for all layers."""
