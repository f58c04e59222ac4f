"""ComfyUI's graph of nodes, as it writes it into pictures (`prompt`, in the form of its API).

`{"3": {"class_type": "KSampler", "inputs": {"steps": 20, "model": ["4", 0], …}}, …}`: an input is a value, or a link to
the node that it comes from. Read from the sampler that comes last: along its links lie the texts, the checkpoint, the
size; its LoRAs become tags of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.infotext.comfyui_graph import (
    FAR,
    KIND,
    MODELS,
    Graph,
    link_of,
    links,
    on_the_way,
    reached,
    value_of,
    way,
)
from shared.infotext.comfyui_loras import loras
from shared.infotext.found import Found, plain, unreadable
from shared.infotext.grammar import Parts
from shared.params.codecs import OFFSET, SIZE
from shared.prompts import extra_networks

_MOST_NAMED: Final = 20
_LATENTS: Final = ("latent_image", "latent", "samples", "latent_upscaled")
_TEXTS: Final = ("text", "text_g", "prompt", "string", "populated_text", "wildcard_text", "clip_l", "text_l")
_CONDITIONS: Final = (
    "conditioning",
    "conditioning_1",
    "conditioning_to",
    "cond",
    "conditioning_2",
    "conditioning_from",
)
_CHECKPOINTS: Final = ("ckpt_name", "base_ckpt_name", "ckpt")
_OF_SDXL: Final = "CLIPTextEncodeSDXL"
_SIZES_OF_SDXL: Final = {
    "SDXL original size": (SIZE, "width", "height"),
    "SDXL crop": (OFFSET, "crop_w", "crop_h"),
    "SDXL target size": (SIZE, "target_width", "target_height"),
}
"""What its encoder's node says beside the texts: the name in the text, and the inputs."""
_PIECE: Final = re.compile(r"(?:text|string)_?(?:[a-d]|\d)")
_SCHEDULES: Final = {
    "KarrasScheduler": "karras",
    "ExponentialScheduler": "exponential",
    "PolyexponentialScheduler": "polyexponential",
    "BetaSamplingScheduler": "beta",
    "AlignYourStepsScheduler": "align_your_steps",
}
_UNDERSTOOD: Final = re.compile(
    r"KSampler.*|SamplerCustom.*|Sampler\w+|RandomNoise|CFGGuider|BasicGuider|\w+Scheduler|CLIPTextEncode\w*|"
    r"CheckpointLoader\w*|CLIPSetLastLayer|Empty\w*Latent\w*|LatentUpscale\w*|VAE(?:Decode|Loader|Encode)\w*|"
    r"ConditioningZeroOut|(?:Save|Preview|Load)Image.*|Image ?Saver?.*|Save.*Metadata.*|LoraLoader(?:ModelOnly)?|"
    r"Primitive.*|Reroute.*|Note.*|Show ?Text.*|.*Efficient.*|Int.*|Float.*|String.*|Seed.*",
)
"""Kinds of nodes that are read, or that change no picture."""
_PLAIN_ENCODER: Final = re.compile(r"CLIPTextEncode\w*")
"""Kinds of nodes to which a tag such as <lora:name:1> is a word like any other."""


def found(nodes: Graph) -> Found:
    """Return what a graph amounts to."""
    samplers = [name for name in nodes if _is_sampler(nodes[name])]
    if not samplers:
        return unreadable("ComfyUI", "its graph has no sampler that is known here")
    before = reached(nodes, [link for name in samplers for link in links(nodes, name)])
    last = ([name for name in samplers if name not in before] or samplers)[-1]
    notes = [f"ComfyUI: {len(samplers)} samplers: only the last one is read"] if len(samplers) > 1 else []
    prompts = {side: list(dict.fromkeys(filter(None, _texts(nodes, last, side)))) for side in ("positive", "negative")}
    for side, (_, *further) in ((side, texts) for side, texts in prompts.items() if texts):
        notes += [f"ComfyUI: joined to the {side} prompt: {text[:80]}" for text in further]
    if not prompts["positive"]:
        notes.append("ComfyUI: the prompt is empty, or comes from nodes that are not known here")
    prompt, negative = (texts[0] if texts else "" for texts in prompts.values())
    networks = loras(nodes, last, _conditions(nodes, last, "positive"))
    notes += [*networks.left_out, *_left_out(nodes, last)]
    return Found(Parts(" ".join(filter(None, [prompt, *networks.tags])), negative, _values(nodes, last)), tuple(notes))


def _values(nodes: Graph, sampler: str) -> dict[str, str]:
    """Return the values of a sampler and of what leads to it, by their names in the text."""
    values = {
        "Steps": value_of(nodes, sampler, "steps", "sigmas"),
        "Sampler": value_of(nodes, sampler, "sampler_name", "sampler") or _own_kind(nodes, sampler),
        "Schedule type": value_of(nodes, sampler, "scheduler", "sigmas") or _own_schedule(nodes, sampler),
        "CFG scale": value_of(nodes, sampler, "cfg", "guider"),
        "Seed": value_of(nodes, sampler, "seed", "noise_seed", "noise"),
        "Size": _size(nodes, sampler),
        "Model": on_the_way(nodes, sampler, MODELS, _CHECKPOINTS),
        "VAE": _vae(nodes),
        "Clip skip": _clip_skip(nodes, sampler),
    }
    values |= {name: text for name, text in _sizes_of_sdxl(nodes, sampler).items() if text != values["Size"]}
    denoising = value_of(nodes, sampler, "denoise", "sigmas")
    if isinstance(denoising, (int, float)) and denoising < 1:
        values["Denoising strength"] = denoising
    return {name: plain(value) for name, value in values.items() if plain(value)} | {"Version": "ComfyUI"}


def _is_sampler(node: Mapping[str, Any]) -> bool:
    has_way = "sampler_name" in node or "sampler" in node
    return has_way and any(name in node for name in _LATENTS) and ("positive" in node or "guider" in node)


def _own_kind(nodes: Graph, sampler: str) -> str | None:
    """Return the sampler that a node names by its own class, such as SamplerEulerAncestral."""
    link = link_of(nodes, nodes[sampler].get("sampler"))
    return str(nodes[link][KIND]).removeprefix("Sampler") if link else None


def _own_schedule(nodes: Graph, sampler: str) -> str | None:
    return next(
        (known for one in way(nodes, sampler, ("sigmas",)) if (known := _SCHEDULES.get(nodes[one][KIND]))), None
    )


def _size(nodes: Graph, sampler: str) -> str | None:
    """Return the size of the latent that a sampler starts from."""
    scale = 1.0
    for name in way(nodes, sampler, _LATENTS):
        width = value_of(nodes, name, "width", "empty_latent_width")
        height = value_of(nodes, name, "height", "empty_latent_height")
        if width and height and isinstance(width, int) and isinstance(height, int):
            return f"{int(width * scale)}x{int(height * scale)}"
        factor = value_of(nodes, name, "scale_by")
        scale *= factor if isinstance(factor, (int, float)) and 0 < factor < FAR else 1
    return None


def _sizes_of_sdxl(nodes: Graph, sampler: str) -> dict[str, str]:
    """Return the sizes that a node of SDXL's encoders gives beside its texts; a crop of nothing is left out."""
    encoders = (name for name in _conditions(nodes, sampler, "positive") if nodes[name][KIND].startswith(_OF_SDXL))
    if (encoder := next(encoders, None)) is None:
        return {}
    said = {}
    for name, (codec, *inputs) in _SIZES_OF_SDXL.items():
        numbers = [value_of(nodes, encoder, one) for one in inputs]
        if all(type(number) is int for number in numbers) and any(numbers):
            said[name] = codec.write(*numbers)
    return said


def _vae(nodes: Graph) -> Any:  # noqa: ANN401 - as above
    """Return the file of the VAE that decoded a picture, if it is not the checkpoint's."""
    decoders = [name for name in nodes if str(nodes[name][KIND]).startswith("VAEDecode")]
    loaders = (link_of(nodes, nodes[name].get("vae")) for name in decoders)
    return next((value for one in loaders if one and (value := nodes[one].get("vae_name"))), None)


def _clip_skip(nodes: Graph, sampler: str) -> str | None:
    """Return the layer of the text encoder to read, from the end; it is counted from -1 there."""
    for encoder in _conditions(nodes, sampler, "positive"):
        layer = on_the_way(nodes, encoder, ("clip",), ("stop_at_clip_layer", "clip_skip"))
        if isinstance(layer, int) and layer < 0:
            return str(-layer)
    return None


def _conditions(nodes: Graph, sampler: str, side: str) -> Iterator[str]:
    """Yield the nodes from which a sampler has its texts of one side."""
    inputs = (side, "guider", *_CONDITIONS) if side == "positive" else (side, *_CONDITIONS)
    first = next((link for one in (side, "guider") if (link := link_of(nodes, nodes[sampler].get(one)))), None)
    waiting, seen = [first] if first else [], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen or nodes[name][KIND] == "ConditioningZeroOut":
            continue
        seen.add(name)
        yield name
        if not any(text in nodes[name] for text in _TEXTS):
            waiting += [link for one in inputs if (link := link_of(nodes, nodes[name].get(one)))]


def _texts(nodes: Graph, sampler: str, side: str) -> Iterator[str]:
    for name in _conditions(nodes, sampler, side):
        node = nodes[name]
        text = node.get(side) if isinstance(node.get(side), str) else _text(nodes, name)
        if isinstance(text, str):
            yield (extra_networks.without(text) if _PLAIN_ENCODER.fullmatch(node[KIND]) else text).strip()


def _text(nodes: Graph, name: str) -> str | None:
    """Return the text that a node encodes, put together from pieces where it is."""
    text = value_of(nodes, name, *_TEXTS)
    if isinstance(text, str):
        return text
    for one in way(nodes, name, _TEXTS):
        pieces = [value_of(nodes, one, piece) for piece in sorted(nodes[one]) if _PIECE.fullmatch(piece)]
        if texts := [piece for piece in pieces if isinstance(piece, str) and piece]:
            delimiter = nodes[one].get("delimiter")
            return (delimiter if isinstance(delimiter, str) else " ").join(texts)
    return None


def _left_out(nodes: Graph, sampler: str) -> Iterator[str]:
    """Yield notes of what the farm has no counterpart for."""
    for side in ("positive", "negative"):
        for name in _conditions(nodes, sampler, side):
            text = _text(nodes, name) if _PLAIN_ENCODER.fullmatch(nodes[name][KIND]) else None
            if text and extra_networks.without(text) != text:
                yield f"ComfyUI: tags in the {side} prompt, which its text encoders take for words: {text.strip()[:80]}"
            first, second = (value_of(nodes, name, one) for one in ("text_l", "text_g"))
            if isinstance(first, str) and isinstance(second, str) and first.strip() not in ("", second.strip()):
                yield f"ComfyUI: {side} prompt of CLIP-L alone: {first.strip()[:80]}: both encoders read one text here"
    if any(nodes[name][KIND].startswith("VAEEncode") for name in reached(nodes, [sampler])):
        yield "ComfyUI: a picture to start from, which is not in the file"
    kinds = list(dict.fromkeys(str(node[KIND]) for node in nodes.values() if not _UNDERSTOOD.fullmatch(node[KIND])))
    if kinds:
        further = f" and {len(kinds) - _MOST_NAMED} more" if len(kinds) > _MOST_NAMED else ""
        yield f"ComfyUI: nodes that are not known here: {', '.join(kind[:40] for kind in kinds[:_MOST_NAMED])}{further}"
