"""IP-Adapters (Ye et al. 2023, arXiv:2308.06721) from their files, by the shapes of the weights.

A file has two parts. `image_proj` makes tokens of an image's features: of the encoder's result by one matrix (plain),
or of the layer before its last by a resampler (plus) or by a network that keeps a token for each place (full).
`ip_adapter` makes keys and values of these tokens for each cross-attention of a U-Net.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.architectures.sd1 import SD1
from worker.engine.architectures.sd2 import SD2
from worker.engine.architectures.sdxl import SDXL
from worker.engine.files import tensors
from worker.engine.files.config_bounds import moderate
from worker.engine.files.kinds import OtherKind

Form = Literal["plain", "plus", "full"]
Features = Literal["projected", "hidden"]

PROJECTION: Final = "image_proj."
LAYERS: Final = "ip_adapter."
_LAYER: Final = re.compile(r"ip_adapter\.(0|[1-9]\d{0,3})\.to_[kv]_ip\.weight")
_MOST_LAYERS: Final = 256  # cross-attentions; Stable Diffusion XL has 70
_MOST_TOKENS: Final = 256  # of a picture
_HEAD: Final = 64  # width of a head of a resampler
_BY_CONTEXT: Final = {768: SD1.name, 1024: SD2.name, 2048: SDXL.name}
_INSTANT_ID: Final = 512, 2048  # width of a face's features, and of the texts of Stable Diffusion XL
_OF_XL: Final = 2  # channels of the first level with attention, by the first level's
_NEW_NAMES: Final = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"^proj\.(weight|bias)$", r"image_embeds.\1"),  # plain
        (r"^proj\.0\.", "ff.net.0.proj."),  # full
        (r"^proj\.2\.", "ff.net.2."),
        (r"^proj\.3\.", "norm."),
        (r"^layers\.(\d+)\.0\.norm1\.", r"layers.\1.ln0."),  # plus
        (r"^layers\.(\d+)\.0\.norm2\.", r"layers.\1.ln1."),
        (r"^layers\.(\d+)\.0\.to_q\.", r"layers.\1.attn.to_q."),
        (r"^layers\.(\d+)\.0\.to_out\.", r"layers.\1.attn.to_out.0."),
        (r"^layers\.(\d+)\.1\.0\.", r"layers.\1.ff.0."),
        (r"^layers\.(\d+)\.1\.1\.", r"layers.\1.ff.1.net.0.proj."),
        (r"^layers\.(\d+)\.1\.3\.", r"layers.\1.ff.1.net.2."),
    )
)
"""The names of the original layout and those in diffusers' classes, without their prefix."""
_KEYS_AND_VALUES: Final = re.compile(r"^layers\.(\d+)\.0\.to_kv\.weight$")


class Sizes(NamedTuple):
    """The sizes that have to fit an image encoder and a U-Net."""

    form: Form
    image_width: int
    context: int
    widths: tuple[int, ...]  # of the keys of each cross-attention, in order

    @property
    def features(self) -> Features:
        """Which features of an image it reads."""
        return "projected" if self.form == "plain" else "hidden"


def is_one(path: Path, weights: Mapping[str, object] | None) -> bool:
    """Return whether the file at `path` with these weights is an IP-Adapter; None: a folder, which is none."""
    del path
    return weights is not None and any(name.startswith((PROJECTION, LAYERS)) for name in weights)


def read(path: Path) -> Part:
    """Return the IP-Adapter in the file at `path`. Raises ModelFileError."""
    return of_weights(tensors.read(path))


def of_weights(weights: Mapping[str, Tensor]) -> Part:
    """Return the IP-Adapter with these weights, under the names of diffusers' classes. Raises ModelFileError."""
    _require_supported(weights)
    projection = {name.removeprefix(PROJECTION): one for name, one in weights.items() if name.startswith(PROJECTION)}
    config = moderate({**_projection(projection), **_layers(weights)})
    renamed = {f"{PROJECTION}{name}": one for name, one in _renamed(projection).items()}
    return Part(config, renamed | {name: one for name, one in weights.items() if not name.startswith(PROJECTION)})


def sizes(part: Part) -> Sizes:
    """Return the sizes of an IP-Adapter."""
    layers = range(part.config["layers"])
    widths = tuple(part.weights[f"{LAYERS}{2 * layer + 1}.to_k_ip.weight"].shape[0] for layer in layers)
    return Sizes(part.config["form"], part.config["image_width"], part.config["context"], widths)


def architecture(found: Sizes) -> str | None:
    """Return the name of the architecture whose U-Nets read texts of its width; None: no usual one."""
    return _BY_CONTEXT.get(found.context)


def details(part: Part) -> dict[str, Any]:
    """Return what has to fit an image encoder and a checkpoint."""
    found = sizes(part)
    of = architecture(found)
    width = {} if of is None else {"width": found.widths[0] // (_OF_XL if of == SDXL.name else 1)}
    tokens = {} if found.form == "full" else {"tokens": part.config["tokens"]}
    return {
        "form": found.form,
        "image_width": found.image_width,
        "image_features": found.features,
        "context": found.context,
        **tokens,
        **width,
    }


def _require_supported(weights: Mapping[str, Tensor]) -> None:
    """Raise OtherKind for a relative that reads something other than an image encoder's features."""
    names = {name.removeprefix(PROJECTION) for name in weights if name.startswith(PROJECTION)}
    if any(name.startswith("perceiver_resampler.") for name in names):
        raise OtherKind("an IP-Adapter FaceID Plus, which reads the features of a face recogniser")
    is_plain_or_full = names & {"proj.weight", "proj.3.weight"}
    if any("_lora." in name for name in weights) or ("norm.weight" in names and not is_plain_or_full):
        raise OtherKind("an IP-Adapter FaceID, which reads the features of a face recogniser")
    if not names:
        raise ModelFileError("is an IP-Adapter without the part that reads pictures (image_proj.*)")
    if not is_plain_or_full and "latents" not in names:
        raise OtherKind("an IP-Adapter of an unknown form")


def _projection(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the configuration of the part that makes tokens of an image's features. Raises ModelFileError."""
    if "proj.weight" in weights:
        outputs, image_width = _matrix(weights, "proj.weight")
        context = _vector(weights, "norm.weight")
        if outputs % context or not 1 <= outputs // context <= _MOST_TOKENS:
            raise ModelFileError(f"makes {outputs:,} numbers of a picture, not tokens of {context:,}")
        return {"form": "plain", "image_width": image_width, "context": context, "tokens": outputs // context}
    if "proj.3.weight" in weights:
        _, image_width = _matrix(weights, "proj.0.weight")
        return {"form": "full", "image_width": image_width, "context": _vector(weights, "proj.3.weight")}
    return _resampler(weights)


def _resampler(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    hidden, image_width = _matrix(weights, "proj_in.weight")
    context, _ = _matrix(weights, "proj_out.weight")
    if (image_width, context) == _INSTANT_ID:
        raise OtherKind("an InstantID adapter, which reads the features of a face recogniser")
    heads, rest = divmod(_matrix(weights, "layers.0.0.to_q.weight")[0], _HEAD)
    inner, _ = _matrix(weights, "layers.0.1.1.weight")
    latents = weights["latents"]
    if latents.dim() != 3 or not 1 <= latents.shape[1] <= _MOST_TOKENS:
        raise ModelFileError(f"its image_proj.latents have the shape {tuple(latents.shape)}: not tokens of a picture")
    if rest or not heads or inner % hidden:
        raise ModelFileError(
            "its image_proj.layers.0 is not one of a resampler: heads are 64 wide, layers widen by whole numbers"
        )
    return {
        "form": "plus",
        "image_width": image_width,
        "context": context,
        "tokens": latents.shape[1],
        "width": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": len({name.split(".")[1] for name in weights if name.startswith("layers.")}),
        "ratio": inner // hidden,
    }


def _layers(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return how many cross-attentions have keys and values. Raises ModelFileError unless they are numbered as usual.

    Layers of attention to the picture itself, which have none, are numbered too: so these numbers are odd.
    """
    found = {int(match[1]) for name in weights if (match := _LAYER.fullmatch(name))}
    if not found:
        raise ModelFileError("is an IP-Adapter without keys and values (ip_adapter.1.to_k_ip.weight, …)")
    if len(found) > _MOST_LAYERS:
        raise ModelFileError(f"has keys and values for {len(found):,} layers; at most {_MOST_LAYERS} are read")
    if found != {2 * place + 1 for place in range(len(found))}:
        raise OtherKind("an IP-Adapter of another architecture: its layers are not numbered 1, 3, 5, …")
    for number in sorted(found):
        for part in ("to_k_ip", "to_v_ip"):
            _matrix(weights, f"{LAYERS}{number}.{part}.weight", "")
    return {"layers": len(found)}


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that make tokens, under the names in diffusers' classes; there keys and values are apart."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if match := _KEYS_AND_VALUES.fullmatch(name):
            keys, values = weight.chunk(2) if weight.dim() and len(weight) > 1 else (weight, weight)
            found |= {f"layers.{match[1]}.attn.to_k.weight": keys, f"layers.{match[1]}.attn.to_v.weight": values}
            continue
        new = next((pattern.sub(new, name) for pattern, new in _NEW_NAMES if pattern.match(name)), name)
        found[new] = weight
    return found


def _matrix(weights: Mapping[str, Tensor], name: str, prefix: str = PROJECTION) -> tuple[int, int]:
    """Return the outputs and inputs of a layer. Raises ModelFileError."""
    weight = weights.get(name)
    if weight is None or weight.dim() != 2 or not weight.numel():
        raise ModelFileError(f"its {prefix}{name} is missing or misshapen")
    return weight.shape[0], weight.shape[1]


def _vector(weights: Mapping[str, Tensor], name: str) -> int:
    """Return the length of a weight of one dimension. Raises ModelFileError."""
    weight = weights.get(name)
    if weight is None or weight.dim() != 1 or not weight.numel():
        raise ModelFileError(f"its {PROJECTION}{name} is missing or misshapen")
    return weight.shape[0]
