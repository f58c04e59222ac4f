"""Names of weights in files of the LoRA family, as every trainer writes them: kohya, LyCORIS, diffusers (old and by
peft) and peft itself.

A name is a network's prefix, a layer's path and a parameter. The path keeps its points or has underscores for them,
which loses where the points were: only a network tells (`adapters.reading.modules`).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

UNET: Final = "unet"
TEXT_ENCODER: Final = "text_encoder"
TEXT_ENCODER_2: Final = "text_encoder_2"

_LONGEST: Final = 512  # of a name; real ones have up to 120 letters
_PREFIXES: Final = {  # the first that fits
    "lora_unet_": UNET, "oft_unet_": UNET, "lycoris_": UNET, "unet.": UNET,
    "model.diffusion_model.": UNET, "diffusion_model.": UNET,
    "lora_te1_": TEXT_ENCODER, "lora_te2_": TEXT_ENCODER_2, "lora_te_": TEXT_ENCODER, "oft_te_": TEXT_ENCODER,
    "text_encoder.": TEXT_ENCODER, "text_encoder_2.": TEXT_ENCODER_2,
    "text_encoders.clip_l.transformer.": TEXT_ENCODER, "text_encoders.clip_g.transformer.": TEXT_ENCODER_2,
}  # fmt: skip
_ROOTS: Final = {  # beginnings of paths, in files that name no network
    UNET: ("down_blocks.", "mid_block.", "up_blocks.", "conv_in.", "conv_out.", "time_embedding.", "add_embedding.",
           "input_blocks.", "middle_block.", "output_blocks."),
    TEXT_ENCODER: ("text_model.", "encoder.layers."),
}  # fmt: skip
_TEXT_LAYERS: Final = ("encoder_layers_", "embeddings_", "final_layer_norm", "text_projection")
_LAYERS: Final = {  # beginnings of paths, in every layout
    UNET: (
        "down_blocks_", "mid_block_", "up_blocks_", "conv_in", "conv_out", "conv_norm_out", "time_embedding_",
        "add_embedding_", "input_blocks_", "middle_block_", "output_blocks_", "time_embed_", "label_emb_", "out_",
    ),
    TEXT_ENCODER: _TEXT_LAYERS,
    TEXT_ENCODER_2: _TEXT_LAYERS,
}  # fmt: skip
_PEFT: Final = "base_model.model."

_PARAMETERS: Final = {
    **{f"{stem}.weight": "down" for stem in ("lora_down", "lora_A", "lora.down", "lora_linear_layer.down")},
    **{f"{stem}.weight": "up" for stem in ("lora_up", "lora_B", "lora.up", "lora_linear_layer.up")},
    "lora_mid.weight": "mid", "alpha": "alpha", "lora.alpha": "alpha", "lora_linear_layer.alpha": "alpha",
    "dora_scale": "dora_scale", "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude",
    **{f"{part}.weight": part for part in ("a1", "a2", "b1", "b2", "bm")},
    **{name: name for name in (
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
        "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
        "oft_blocks", "oft_diag", "rescale", "diff", "diff_b", "w_norm", "b_norm", "weight", "on_input",
    )},
}  # fmt: skip
"""Endings of names, behind a point -> what this package calls the parameter."""
_OLD_ENDING: Final = re.compile(r"_lora(?=\.(?:down|up)\.weight$|\.alpha$)")
_ADAPTER_NAME: Final = re.compile(r"(?<=\.lora_[AB])\.\w+(?=\.weight$)|(?<=\.lora_magnitude_vector)\.\w+(?=\.weight$)")
_OLD_LAYER: Final = re.compile(r"(?<=_)processor_")

_BUNDLED: Final = "bundle_emb."


class Name(NamedTuple):
    """What a name says."""

    network: str  # by diffusers' name
    layer: str  # its path with underscores for points
    parameter: str
    title: str  # the layer as the file names it


def parsed(name: str) -> Name | None:
    """Return what the name of a weight says; None if no trainer of Stable Diffusion writes such a name."""
    if len(name) > _LONGEST:
        return None
    plain = _ADAPTER_NAME.sub("", _OLD_ENDING.sub(".lora", name.removeprefix(_PEFT)))
    prefix = next((prefix for prefix in _PREFIXES if plain.startswith(prefix)), "")
    network = _PREFIXES.get(prefix) or next((name for name, roots in _ROOTS.items() if plain.startswith(roots)), None)
    found = _split(plain.removeprefix(prefix).removeprefix(_PEFT))
    if network is None or found is None:
        return None
    path, parameter = found
    layer = _OLD_LAYER.sub("", path.replace(".", "_")).removeprefix("text_model_")
    if not layer.startswith(_LAYERS[network]):
        return None
    return Name(network, layer, parameter, f"{prefix}{path}")


def bundled(name: str) -> str | None:
    """Return the name of the embedding that a weight belongs to if it came bundled with an adapter; else None."""
    return name.removeprefix(_BUNDLED).partition(".")[0] if name.startswith(_BUNDLED) else None


def _split(name: str) -> tuple[str, str] | None:
    """Return a name's path and its parameter."""
    parts = name.split(".")
    for length in (3, 2, 1):
        parameter = _PARAMETERS.get(".".join(parts[-length:]))
        if parameter and len(parts) > length:
            return ".".join(parts[:-length]), parameter
    return None
