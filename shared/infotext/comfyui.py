"""ComfyUI's graph of nodes, as it writes it into pictures (`prompt`, in the form of its API).

`{"3": {"class_type": "KSampler", "inputs": {"steps": 20, "model": ["4", 0], …}}, …}`: an input is a value, or a link to
the node that it comes from. Read from the sampler that comes last: along its links lie the texts, the checkpoint, the
size. Time and depth are bounded, since links may lead in circles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.infotext.found import Found, Json, loaded, plain, unreadable
from shared.infotext.grammar import Parts
from shared.params.codecs import OFFSET, SIZE

Graph = Mapping[str, Mapping[str, Any]]  # inputs by node, with the node's kind under _KIND

_KIND: Final = ""
_FAR: Final = 100  # links that are followed from one node on
_MOST_NAMED: Final = 20
_LATENTS: Final = ("latent_image", "latent", "samples", "latent_upscaled")
_CONSTANTS: Final = ("value", "Value", "text", "string", "int", "float", "number", "seed", "STRING", "INT", "FLOAT")
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
    r"ConditioningZeroOut|(?:Save|Preview|Load)Image.*|Image ?Saver?.*|Save.*Metadata.*|Lora ?Loader.*|LoraLoader.*|"
    r"Primitive.*|Reroute.*|Note.*|Show ?Text.*|.*Efficient.*|Int.*|Float.*|String.*|Seed.*",
)
"""Kinds of nodes that are read, or that change no picture."""


def graph(document: Json) -> Graph | None:
    """Return the graph that a JSON object is or holds, or None."""
    for holder in (document, loaded(document.get("prompt")), loaded(document.get("Prompt"))):
        nodes = {
            name: {**node["inputs"], _KIND: node["class_type"]}
            for name, node in (holder or {}).items()
            if isinstance(node, dict)
            and isinstance(node.get("inputs"), dict)
            and isinstance(node.get("class_type"), str)
        }
        if nodes:
            return nodes
    return None


def found(nodes: Graph) -> Found:
    """Return what a graph amounts to."""
    samplers = [name for name in nodes if _is_sampler(nodes[name])]
    if not samplers:
        return unreadable("ComfyUI", "its graph has no sampler that is known here")
    before = _reached(nodes, [link for name in samplers for link in _links(nodes, name)])
    last = ([name for name in samplers if name not in before] or samplers)[-1]
    notes = [f"ComfyUI: {len(samplers)} samplers: only the last one is read"] if len(samplers) > 1 else []
    prompts = {side: list(dict.fromkeys(filter(None, _texts(nodes, last, side)))) for side in ("positive", "negative")}
    for side, (_, *further) in ((side, texts) for side, texts in prompts.items() if texts):
        notes += [f"ComfyUI: joined to the {side} prompt: {text[:80]}" for text in further]
    if not prompts["positive"]:
        notes.append("ComfyUI: the prompt is empty, or comes from nodes that are not known here")
    prompt, negative = (texts[0] if texts else "" for texts in prompts.values())
    return Found(Parts(prompt, negative, _values(nodes, last)), (*notes, *_left_out(nodes, last)))


def _values(nodes: Graph, sampler: str) -> dict[str, str]:
    """Return the values of a sampler and of what leads to it, by their names in the text."""
    values = {
        "Steps": _value(nodes, sampler, "steps", "sigmas"),
        "Sampler": _value(nodes, sampler, "sampler_name", "sampler") or _own_kind(nodes, sampler),
        "Schedule type": _value(nodes, sampler, "scheduler", "sigmas") or _own_schedule(nodes, sampler),
        "CFG scale": _value(nodes, sampler, "cfg", "guider"),
        "Seed": _value(nodes, sampler, "seed", "noise_seed", "noise"),
        "Size": _size(nodes, sampler),
        "Model": _on_the_way(nodes, sampler, ("model", "guider", "base_model"), _CHECKPOINTS),
        "VAE": _vae(nodes),
        "Clip skip": _clip_skip(nodes, sampler),
    }
    values |= {name: text for name, text in _sizes_of_sdxl(nodes, sampler).items() if text != values["Size"]}
    denoising = _value(nodes, sampler, "denoise", "sigmas")
    if isinstance(denoising, (int, float)) and denoising < 1:
        values["Denoising strength"] = denoising
    return {name: plain(value) for name, value in values.items() if plain(value)} | {"Version": "ComfyUI"}


def _is_sampler(node: Mapping[str, Any]) -> bool:
    has_way = "sampler_name" in node or "sampler" in node
    return has_way and any(name in node for name in _LATENTS) and ("positive" in node or "guider" in node)


def _link(nodes: Graph, value: object) -> str | None:
    """Return the node that an input comes from, if it comes from one."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], (str, int)):
        return None
    return str(value[0]) if str(value[0]) in nodes else None


def _links(nodes: Graph, name: str) -> list[str]:
    return [link for value in nodes[name].values() if (link := _link(nodes, value)) is not None]


def _reached(nodes: Graph, starts: list[str]) -> set[str]:
    """Return all nodes that lead to one of `starts`, and those themselves."""
    reached: set[str] = set()
    while starts:
        name = starts.pop()
        if name not in reached:
            reached.add(name)
            starts += _links(nodes, name)
    return reached


def _way(nodes: Graph, name: str, inputs: tuple[str, ...]) -> Iterator[str]:
    """Yield a node and those behind it, along the first of these inputs that is linked."""
    following: str | None = name
    for _ in range(_FAR):
        if following is None:
            return
        yield following
        node = nodes[following]
        following = next((link for one in inputs if (link := _link(nodes, node.get(one))) is not None), None)


def _value(nodes: Graph, name: str, *inputs: str) -> Any:  # noqa: ANN401 - whatever the input holds
    """Return what one of these inputs holds, here or in the node that it comes from."""
    names = inputs
    following: str | None = name
    for _ in range(_FAR):
        node = nodes[following or ""] if following else {}
        given = next((node[one] for one in names if node.get(one) is not None), None)
        following = _link(nodes, given)
        if following is None:
            return None if isinstance(given, (list, dict)) else given
        names = (*inputs, *_CONSTANTS)
    return None


def _on_the_way(nodes: Graph, name: str, inputs: tuple[str, ...], wanted: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Return the first of the wanted values among the nodes along `inputs`."""
    values = (_value(nodes, one, *wanted) for one in _way(nodes, name, inputs) if nodes[one].keys() & {*wanted})
    return next((value for value in values if value is not None), None)


def _own_kind(nodes: Graph, sampler: str) -> str | None:
    """Return the sampler that a node names by its own class, such as SamplerEulerAncestral."""
    link = _link(nodes, nodes[sampler].get("sampler"))
    return str(nodes[link][_KIND]).removeprefix("Sampler") if link else None


def _own_schedule(nodes: Graph, sampler: str) -> str | None:
    return next(
        (known for one in _way(nodes, sampler, ("sigmas",)) if (known := _SCHEDULES.get(nodes[one][_KIND]))), None
    )


def _size(nodes: Graph, sampler: str) -> str | None:
    """Return the size of the latent that a sampler starts from."""
    scale = 1.0
    for name in _way(nodes, sampler, _LATENTS):
        width = _value(nodes, name, "width", "empty_latent_width")
        height = _value(nodes, name, "height", "empty_latent_height")
        if width and height and isinstance(width, int) and isinstance(height, int):
            return f"{int(width * scale)}x{int(height * scale)}"
        factor = _value(nodes, name, "scale_by")
        scale *= factor if isinstance(factor, (int, float)) and 0 < factor < _FAR else 1
    return None


def _sizes_of_sdxl(nodes: Graph, sampler: str) -> dict[str, str]:
    """Return the sizes that a node of SDXL's encoders gives beside its texts; a crop of nothing is left out."""
    encoders = (name for name in _conditions(nodes, sampler, "positive") if nodes[name][_KIND].startswith(_OF_SDXL))
    if (encoder := next(encoders, None)) is None:
        return {}
    said = {}
    for name, (codec, *inputs) in _SIZES_OF_SDXL.items():
        numbers = [_value(nodes, encoder, one) for one in inputs]
        if all(type(number) is int for number in numbers) and any(numbers):
            said[name] = codec.write(*numbers)
    return said


def _vae(nodes: Graph) -> Any:  # noqa: ANN401 - as above
    """Return the file of the VAE that decoded a picture, if it is not the checkpoint's."""
    decoders = [name for name in nodes if str(nodes[name][_KIND]).startswith("VAEDecode")]
    loaders = (_link(nodes, nodes[name].get("vae")) for name in decoders)
    return next((value for one in loaders if one and (value := nodes[one].get("vae_name"))), None)


def _clip_skip(nodes: Graph, sampler: str) -> str | None:
    """Return the layer of the text encoder to read, from the end; it is counted from -1 there."""
    for encoder in _conditions(nodes, sampler, "positive"):
        layer = _on_the_way(nodes, encoder, ("clip",), ("stop_at_clip_layer", "clip_skip"))
        if isinstance(layer, int) and layer < 0:
            return str(-layer)
    return None


def _conditions(nodes: Graph, sampler: str, side: str) -> Iterator[str]:
    """Yield the nodes from which a sampler has its texts of one side."""
    inputs = (side, "guider", *_CONDITIONS) if side == "positive" else (side, *_CONDITIONS)
    first = next((link for one in (side, "guider") if (link := _link(nodes, nodes[sampler].get(one)))), None)
    waiting, seen = [first] if first else [], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen or nodes[name][_KIND] == "ConditioningZeroOut":
            continue
        seen.add(name)
        yield name
        if not any(text in nodes[name] for text in _TEXTS):
            waiting += [link for one in inputs if (link := _link(nodes, nodes[name].get(one)))]


def _texts(nodes: Graph, sampler: str, side: str) -> Iterator[str]:
    for name in _conditions(nodes, sampler, side):
        node = nodes[name]
        text = node.get(side) if isinstance(node.get(side), str) else _text(nodes, name)
        if isinstance(text, str):
            yield text.strip()


def _text(nodes: Graph, name: str) -> str | None:
    """Return the text that a node encodes, put together from pieces where it is."""
    text = _value(nodes, name, *_TEXTS)
    if isinstance(text, str):
        return text
    for one in _way(nodes, name, _TEXTS):
        pieces = [_value(nodes, one, piece) for piece in sorted(nodes[one]) if _PIECE.fullmatch(piece)]
        if texts := [piece for piece in pieces if isinstance(piece, str) and piece]:
            delimiter = nodes[one].get("delimiter")
            return (delimiter if isinstance(delimiter, str) else " ").join(texts)
    return None


def _left_out(nodes: Graph, sampler: str) -> Iterator[str]:
    """Yield notes of what the farm has no counterpart for: networks by their names, other nodes by their kinds."""
    for name in _reached(nodes, [sampler]):
        network = nodes[name].get("lora_name")
        if isinstance(network, str) and network != "None":
            yield f"lora {network[:80]}: not read; a tag in the prompt names it, such as <lora:name:0.8>"
    for side in ("positive", "negative"):
        for name in _conditions(nodes, sampler, side):
            first, second = (_value(nodes, name, one) for one in ("text_l", "text_g"))
            if isinstance(first, str) and isinstance(second, str) and first.strip() not in ("", second.strip()):
                yield f"ComfyUI: {side} prompt of CLIP-L alone: {first.strip()[:80]}: both encoders read one text here"
    if any(nodes[name][_KIND].startswith("VAEEncode") for name in _reached(nodes, [sampler])):
        yield "ComfyUI: a picture to start from, which is not in the file"
    kinds = list(dict.fromkeys(str(node[_KIND]) for node in nodes.values() if not _UNDERSTOOD.fullmatch(node[_KIND])))
    if kinds:
        further = f" and {len(kinds) - _MOST_NAMED} more" if len(kinds) > _MOST_NAMED else ""
        yield f"ComfyUI: nodes that are not known here: {', '.join(kind[:40] for kind in kinds[:_MOST_NAMED])}{further}"
