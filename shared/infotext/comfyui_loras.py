"""The LoRAs that nodes of a ComfyUI graph apply, as the tags of a prompt."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePath
from typing import Any, Final, NamedTuple

from shared.infotext.comfyui_graph import KIND, MODELS, Graph, link_of, reached, value_of, way
from shared.models.kinds import KINDS
from shared.prompts.adapters import LARGEST_WEIGHT

_SIGNS: Final = frozenset(":<>#=")  # that end a name in a tag, or change what it is
_LONGEST: Final = 200  # characters of a name
_SHOWN: Final = 80
_LOADERS: Final = frozenset({"LoraLoader", "LoraLoaderModelOnly"})
"""Kinds of nodes whose weights are all that they say: others weigh each block of the U-Net, or draw lots."""
_NAME, _UNET, _TEXT_ENCODER = "lora_name", "strength_model", "strength_clip"


class Loras(NamedTuple):
    """The tags, in the order in which the nodes apply their files, and notes of nodes that make none."""

    tags: list[str]
    left_out: list[str]


class _Weights(NamedTuple):
    text_encoder: float
    unet: float

    def tag(self, name: str) -> str:
        both = [f"{round(weight, 6):g}" for weight in self]
        return f"<lora:{name}:{':'.join(dict.fromkeys(both))}>"


def loras(nodes: Graph, sampler: str, encoders: Iterable[str]) -> Loras:
    """Return the LoRAs on the way to a sampler's model, and on that to the text encoder of its prompt.

    A node acts on what is read through it: a text encoder that is taken from before the node has none of it. Two nodes
    with one file add their weights up. Other nodes with LoRAs that lead to the sampler are left out.
    """
    to_model = [*way(nodes, sampler, MODELS)]
    encoder = next((one for one in encoders if link_of(nodes, nodes[one].get("clip"))), None)
    to_text = to_model if encoder is None else [*way(nodes, encoder, ("clip",))]
    weights: dict[str, _Weights] = {}
    leading = reached(nodes, [sampler])
    left_out = {node: None for node in nodes if node in leading and _file(nodes, node)}
    for node in reversed(dict.fromkeys([*to_model, *to_text])):
        name, more = _stem(_file(nodes, node)), _weights(nodes, node, to_model, to_text)
        before = weights.get(name, _Weights(0, 0))
        if not name or more is None:
            continue
        added = _Weights(before.text_encoder + more.text_encoder, before.unet + more.unet)
        if max(map(abs, added)) <= LARGEST_WEIGHT:
            weights[name] = added
            left_out.pop(node, None)
    tags = [one.tag(name) for name, one in weights.items() if any(one)]
    unread = (f"lora {_file(nodes, node)[:_SHOWN]}" for node in left_out)
    return Loras(tags, [f"{one}: not read; a tag in the prompt names it, such as <lora:name:0.8>" for one in unread])


def _file(nodes: Graph, node: str) -> str:
    """Return the file that a node names, as its author's machine has it; empty: none."""
    name = value_of(nodes, node, _NAME) if _NAME in nodes[node] else None
    return name if isinstance(name, str) and name != "None" else ""


def _stem(file: str) -> str:
    """Return what a tag calls a file; empty if no tag can."""
    name = PurePath(file.replace("\\", "/")).name
    suffix = PurePath(name).suffix
    stem = name.removesuffix(suffix) if suffix.lower() in KINDS["lora"].suffixes else name
    return stem.strip() if len(stem) <= _LONGEST and _SIGNS.isdisjoint(stem) and stem.isprintable() else ""


def _weights(nodes: Graph, node: str, to_model: Collection[str], to_text: Collection[str]) -> _Weights | None:
    """Return the weights that a node gives its file; None: it says none that a tag can hold."""
    inputs = nodes[node]
    if inputs[KIND] not in _LOADERS or _UNET not in inputs:
        return None
    unet = value_of(nodes, node, _UNET) if node in to_model else 0.0
    text_encoder = value_of(nodes, node, _TEXT_ENCODER) if node in to_text and _TEXT_ENCODER in inputs else 0.0
    return _Weights(text_encoder, unet) if _is_number(unet) and _is_number(text_encoder) else None


def _is_number(value: Any) -> bool:  # noqa: ANN401 - whatever the input holds
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= LARGEST_WEIGHT  # not a NaN
