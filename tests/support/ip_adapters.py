"""Small random IP-Adapters for the small checkpoints, and image encoders that they read, in every form of file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from tests.support.small_checkpoints import Small
from worker.engine.architectures.reading.ip_adapters import Form

EncoderForm = Literal["file", "pickle", "whole CLIP", "folder"]
SIDE: Final = 56  # pixels of a picture
_PATCH: Final = 14
_HIDDEN: Final = 128  # width of the layers: two heads
_PROJECTED: Final = 48
_WIDTH: Final = 96  # of the resampler
_INNER: Final = 128  # of its attention: two heads
_TOKENS: Final = {"plain": 4, "plus": 6, "full": (SIDE // _PATCH) ** 2 + 1}
_LAYERS: Final = 4  # of the resampler; diffusers reads no other count
_STRENGTH: Final = 2.0  # deviation of an adapter's values


def encoder(seed: int = 0, **config: Any) -> CLIPVisionModelWithProjection:
    """Return an image encoder, its weights drawn from `seed` and rounded to half precision."""
    sizes = {
        "hidden_size": _HIDDEN, "intermediate_size": 2 * _HIDDEN, "projection_dim": _PROJECTED, "image_size": SIDE,
        "patch_size": _PATCH, "num_hidden_layers": 3, "num_attention_heads": 2,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes | config))
        for name, weight in network.named_parameters():
            if weight.dim() > 1:  # transformers draws them so small that all pictures look alike
                weight.normal_(std=weight[0].numel() ** -0.5)
            elif "norm" not in name:
                weight.normal_(std=0.1)
            weight.copy_(weight.half())
    return network.eval()


def write_encoder(network: CLIPVisionModelWithProjection, path: Path, form: EncoderForm = "file") -> Path:
    """Write an image encoder in one of the forms, and return its path: `path` with its ending, or a folder."""
    weights = {name: one.detach().half().contiguous().clone() for name, one in network.state_dict().items()}
    if form == "folder":
        network.config.save_pretrained(path)
        save_file(weights, path / "model.safetensors", {"format": "pt"})
        return path
    if form == "whole CLIP":
        CLIPConfig(vision_config=network.config.to_dict(), projection_dim=_PROJECTED).save_pretrained(path)
        weights |= {"text_model.final_layer_norm.weight": torch.ones(8), "logit_scale": torch.ones(())}
        save_file(weights, path / "model.safetensors", {"format": "pt"})
        return path
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # as older files have it
    path = path.with_suffix(".bin" if form == "pickle" else ".safetensors")
    torch.save(weights, path) if form == "pickle" else save_file(weights, path, {"format": "pt"})
    return path


def build(small: Small, form: Form = "plain", seed: int = 0) -> dict[str, Tensor]:
    """Return the weights of an IP-Adapter for `small` in the original layout, drawn from `seed`."""
    draw, context = torch.Generator().manual_seed(seed), small.unet.config["cross_attention_dim"]

    def drawn(*shape: int, strength: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=draw) * strength * shape[-1] ** -0.5).half()

    found = {f"image_proj.{name}": one for name, one in _projection(form, context, drawn).items()}
    layers = [layer.to_k.weight for path, layer in small.unet.named_modules() if path.endswith("attn2")]
    for place, keys in enumerate(layers):
        for part in ("to_k_ip", "to_v_ip"):
            found[f"ip_adapter.{2 * place + 1}.{part}.weight"] = drawn(*keys.shape, strength=_STRENGTH)
    return found


def _projection(form: Form, context: int, drawn: Any) -> dict[str, Tensor]:
    """Return the weights that make tokens of a picture's features."""

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + drawn(width), f"{name}.bias": drawn(width)}

    def linear(name: str, outputs: int, inputs: int) -> dict[str, Tensor]:
        return {f"{name}.weight": drawn(outputs, inputs), f"{name}.bias": drawn(outputs)}

    if form == "plain":
        return linear("proj", _TOKENS["plain"] * context, _PROJECTED) | norm("norm", context)
    if form == "full":
        return linear("proj.0", _HIDDEN, _HIDDEN) | linear("proj.2", context, _HIDDEN) | norm("proj.3", context)
    found = {
        "latents": drawn(1, _TOKENS["plus"], _WIDTH),
        **linear("proj_in", _WIDTH, _HIDDEN),
        **linear("proj_out", context, _WIDTH),
        **norm("norm_out", context),
    }
    for layer in range(_LAYERS):
        found |= norm(f"layers.{layer}.0.norm1", _WIDTH) | norm(f"layers.{layer}.0.norm2", _WIDTH)
        found |= norm(f"layers.{layer}.1.0", _WIDTH)
        found[f"layers.{layer}.0.to_q.weight"] = drawn(_INNER, _WIDTH)
        found[f"layers.{layer}.0.to_kv.weight"] = drawn(2 * _INNER, _WIDTH)
        found[f"layers.{layer}.0.to_out.weight"] = drawn(_WIDTH, _INNER)
        found[f"layers.{layer}.1.1.weight"] = drawn(4 * _WIDTH, _WIDTH)
        found[f"layers.{layer}.1.3.weight"] = drawn(_WIDTH, 4 * _WIDTH)
    return found


def write(weights: Mapping[str, Tensor], path: Path, *, is_pickle: bool = False) -> Path:
    """Write an IP-Adapter as a safetensors file, or as PyTorch's with both parts apart, and return its path."""
    if not is_pickle:
        path = path.with_suffix(".safetensors")
        save_file(dict(weights), path, {"format": "pt"})
        return path
    path = path.with_suffix(".bin")
    torch.save(apart(weights), path)
    return path


def apart(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the weights of an IP-Adapter in its two parts, as diffusers takes them."""
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, one in weights.items():
        part, _, inner = name.partition(".")
        parts[part][inner] = one
    return parts
