"""Files of the LoRA family, read strictly: a weight that belongs to nothing is named, and none is left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.files import kinds, tensors
from worker.engine.files.lora import metadata, names
from worker.engine.files.lora.algorithms import LORA, RANK_BY_ROWS, Layer, Parameters, shortened
from worker.engine.files.lora.metadata import Metadata

Form = Literal["rows", "merged"]
_LISTED: Final = 3  # names in an error message
_TELLTALES: Final = frozenset({"a1", "b1", "diff", "diff_b", "w_norm"})
"""Parameters that tell an adapter by themselves only under a name of Stable Diffusion's."""
_FAMILIES: Final = (  # parts of names, with underscores for points, of what is trained for other architectures
    ("Flux 2", ("single_stream_modulation", "double_stream_modulation")),
    ("Chroma", ("distilled_guidance_layer",)),
    ("Hunyuan video", ("individual_token_refiner",)),
    ("Flux", ("double_blocks_", "single_blocks_", "single_transformer_blocks_")),
    ("Stable Diffusion 3", ("joint_blocks_", "attn_add_k_proj", "attn_add_q_proj", "attn_add_v_proj")),
    ("AuraFlow", ("double_layers_", "joint_transformer_blocks_")),
    ("Qwen-Image", ("_img_mod_", "_img_mlp_", "_txt_mlp_")),
    ("Krea 2", ("txtfusion",)),
    ("Anima or Cosmos", ("llm_adapter", "adaln_modulation_self_attn", "adaln_modulation_cross_attn")),
    ("Z-Image or Lumina 2", ("noise_refiner_", "context_refiner_", "cap_embedder", "layers_0_attention_")),
    ("Wan", ("blocks_0_self_attn_", "blocks_0_cross_attn_", "blocks_0_ffn_")),
    ("PixArt or Sana", ("caption_projection",)),
    ("LTX video", ("patchify_proj",)),
    ("Stable Cascade", ("clip_txt_mapper", "effnet_mapper")),
    ("the motion of AnimateDiff", ("motion_modules_", "temporal_transformer_")),
    ("HiDream", ("double_stream_blocks_",)),
    ("Stable Diffusion 3 or Flux", ("lora_te3_", "t5xxl", "text_encoder_3_")),
)
_TRANSFORMERS: Final = ("lora_transformer_", "transformer_")
"""Beginnings of names in files for architectures without a U-Net."""


@dataclass(frozen=True, eq=False)
class LoraFile:
    """What a file of the LoRA family holds, before it meets a checkpoint."""

    layers: Mapping[str, Mapping[str, Layer]]  # by network, then by the layer's path with underscores for points
    bundled: tuple[str, ...] = ()  # names of embeddings that came with it
    metadata: Metadata = field(default_factory=dict)

    @property
    def every(self) -> list[Layer]:
        """All layers."""
        return [layer for layers in self.layers.values() for layer in layers.values()]

    @cached_property
    def rank(self) -> int | None:
        """The largest rank of its layers; None if its algorithm has none."""
        return max((layer.sizes.rank for layer in self.every if layer.sizes.rank), default=None)

    @cached_property
    def form(self) -> Form:
        """Whether rows of a call can have it, or it has to be merged."""
        is_small = (self.rank or 0) <= RANK_BY_ROWS
        return "rows" if is_small and all(layer.is_low_rank for layer in self.every) else "merged"

    @cached_property
    def algorithm(self) -> str:
        """Its algorithms, for people, the commonest first."""
        counts = Counter(layer.label for layer in self.every)
        pairs = [layer.parameters for layer in self.every if layer.algorithm is LORA]
        if any(one["down"].shape[2:].numel() > 1 or "mid" in one for one in pairs):
            counts = Counter({"LoCon" if label == "LoRA" else label: count for label, count in counts.items()})
        return " with ".join(label for label, _ in counts.most_common())


def holds_one(weights: Collection[str]) -> bool:
    """Return whether these are the names of an adapter of the LoRA family, for whatever architecture."""
    if kinds.is_lora(weights):
        return True
    parsed = (names.parsed(name) for name in weights)
    return not kinds.is_checkpoint(weights) and any(one is not None and one.parameter in _TELLTALES for one in parsed)


def read(path: Path, where: tensors.Where = "cpu") -> LoraFile:
    """Return what the file at `path` holds; on the CPU as views of it. Raises ModelFileError with the reason."""
    weights = tensors.read(path, where)
    return of_weights(weights, metadata.read(path))


def of_weights(weights: Mapping[str, Tensor], entries: Metadata) -> LoraFile:
    """Return the adapter that `weights` are, with the entries of their file's header. Raises ModelFileError."""
    _require_known_architecture(weights)
    parameters: dict[tuple[str, str], Parameters] = defaultdict(Parameters)
    titles: dict[tuple[str, str], str] = {}
    unknown, bundled = [], []
    for name, weight in weights.items():
        if embedding := names.bundled(name):
            bundled.append(embedding)
        elif (parsed := names.parsed(name)) is None:
            unknown.append(name)
        else:
            place = parsed.network, parsed.layer
            if parsed.parameter in parameters[place]:
                raise ModelFileError(f"has {parsed.parameter} of one layer twice: {shortened(name)} is the second")
            parameters[place][parsed.parameter] = weight
            titles.setdefault(place, parsed.title)
    if unknown:
        raise ModelFileError(f"has {listed(unknown, len(weights))} that belong to no layer of Stable Diffusion")
    if not parameters:
        raise ModelFileError("holds no layers")
    layers: dict[str, dict[str, Layer]] = defaultdict(dict)
    stated = {network: metadata.peft(entries, network) for network, _ in parameters}
    for (network, layer), own in parameters.items():
        alpha = metadata.peft_alpha(stated[network], layer)
        is_stabilised = stated[network].get("use_rslora") is True
        layers[network][layer] = Layer(titles[network, layer], own, alpha, is_stabilised)
    return LoraFile(layers, tuple(dict.fromkeys(bundled)), entries)


def listed(some: Collection[str], count: int, what: str = "weights") -> str:
    """Return the number of `some` of `count` names, and the first few of them, for an error message."""
    first = ", ".join(map(shortened, sorted(some)[:_LISTED]))
    return f"{len(some):,} of {count:,} {what} (first {first})"


def _require_known_architecture(weights: Collection[str]) -> None:
    """Raise ModelFileError if it was trained for an architecture that the farm does not render."""
    plain = [name.replace(".", "_") for name in weights if len(name) < 1000]
    family = next((one for one, parts in _FAMILIES if any(part in name for name in plain for part in parts)), None)
    if family is None and any(name.startswith(_TRANSFORMERS) for name in plain):
        family = "a transformer"
    if family is not None:
        raise ModelFileError(f"is a LoRA for {family}: those for Stable Diffusion 1, 2 and XL are used")
