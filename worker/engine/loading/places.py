"""Where the networks of a model file lie in it, so that the scan can hash each of them while it reads the file.

Imports diffusers and transformers, which takes seconds: imported when files are inspected, not before.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import nn

from shared.errors import ModelFileError
from worker.engine.architectures.parts import Part
from worker.engine.architectures.reading import control_nets
from worker.engine.files import tensors
from worker.engine.files.origins import Origins, Stretch
from worker.engine.loading import layouts, networks, taesd, vaes

_TEXT_FIGURES: Final = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps",
)  # fmt: skip
_WITHOUT_EFFECT: Final = frozenset(  # on what a network computes: the farm has them from elsewhere
    {"sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"}
)


class Place(NamedTuple):
    """One network of a model file, and where its weights lie in it."""

    form: str  # digest of everything but the bytes
    stored: Mapping[str, int]  # number format -> bytes
    stretches: tuple[Stretch, ...] | None  # in the order of the weights' names; None: some lie nowhere as they are


def places(path: Path) -> dict[str, Place]:
    """Return the place of each network of a usable model file; none if it is neither a checkpoint nor a VAE."""
    parts = _parts(path)
    origins = Origins(path)
    return {name: _place(part, network, origins) for name, (part, network) in parts.items()}


def _parts(path: Path) -> dict[str, tuple[Part, nn.Module]]:
    try:
        weights = None if path.is_dir() else tensors.read(path, "meta")
        if weights is not None and (taesd.holds_one(weights) or control_nets.is_one(path, weights)):
            return {}
        if weights is not None and vaes.holds_one(weights):
            part = vaes.part(weights)
            return {"vae": (part, networks.build_vae(part))}
        parts = layouts.read(path, "meta") if weights is None else layouts.of_file(path, weights)
        built = networks.build(parts)
    except ModelFileError:
        return {}
    return {name: (part, built[name]) for name, part in parts.networks.items()}


def _place(part: Part, network: nn.Module, origins: Origins) -> Place:
    named = dict(sorted(part.weights.items()))
    formats = {name: str(weight.dtype).removeprefix("torch.") for name, weight in named.items()}
    stored: Counter[str] = Counter()
    for name, weight in named.items():
        stored[formats[name]] += weight.nbytes
    described = [(name, formats[name], tuple(weight.shape)) for name, weight in named.items()]
    form = json.dumps([type(network).__name__, _config(network), described], sort_keys=True, default=str)
    found = [origins.stretch(weight) for weight in named.values()]
    whole = tuple(one for one in found if one is not None)
    digest = hashlib.sha256(form.encode()).hexdigest()
    return Place(digest, dict(stored), whole if len(whole) == len(found) else None)


def _config(network: nn.Module) -> dict[str, object]:
    """Return what a network's configuration says about its calls, defaults included."""
    config: Any = network.config
    if isinstance(config, Mapping):  # of diffusers; those of transformers are objects
        return {name: one for name, one in config.items() if not name.startswith("_") and name not in _WITHOUT_EFFECT}
    figures = {name: getattr(config, name) for name in _TEXT_FIGURES}
    return figures | ({"projection_dim": config.projection_dim} if hasattr(network, "text_projection") else {})
