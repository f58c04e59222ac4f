"""Kinds of model files that the farm cannot use yet, recognised by the names of their weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from shared.errors import ModelFileError


class OtherKind(ModelFileError):
    """A file of a known kind that the farm cannot use yet, or of an unknown kind."""

    def __init__(self, what: str | None) -> None:
        known = f"is {what}: the farm cannot use these yet"
        super().__init__(known if what else "is not a model of a known kind")


Names = Collection[str]
_Recognises = Callable[[Names], bool]


def _has(*names: str) -> _Recognises:
    return lambda given: all(name in given for name in names)


def _starts(*prefixes: str) -> _Recognises:
    return lambda given: any(name.startswith(prefixes) for name in given)


def _within(*parts: str) -> _Recognises:
    return lambda given: any(part in name for name in given for part in parts)


def _pair(part: str, *others: str) -> _Recognises:
    """Recognise names of which some hold `part` and some hold one of `others`."""
    return lambda given: _within(part)(given) and _within(*others)(given)


_LORA_BEGINNINGS: Final = ("lora_unet_", "lora_te", "lora_transformer_", "oft_unet_", "oft_te", "lycoris_")
_LORA_PARTS: Final = (
    ".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora.down.", ".lora.up.", "_lora.down.", "_lora.up.",
    ".hada_w1", ".hada_w2", ".lokr_w1", ".lokr_w2", ".oft_blocks", ".oft_diag", ".oft_R", ".on_input", ".dora_scale",
)  # fmt: skip
_NOT_LORA: Final = ("image_proj.", "ip_adapter.", "lora_controlnet")
"""Beginnings of names in files that hold low-rank layers beside others."""
_WHOLE: Final[tuple[tuple[str, _Recognises], ...]] = (  # with any other weights in the file
    ("a Control-LoRA", _starts("lora_controlnet")),
    ("a checkpoint quantised by bitsandbytes (nf4, fp4 or int8)", _within(".quant_state.bitsandbytes", ".SCB")),
    ("an AuraFlow model", _within("double_layers.0.", "joint_transformer_blocks.")),
    ("a Stable Diffusion 3 model", _within("joint_blocks.")),
    ("a Stable Diffusion 3 model", _pair("context_embedder.", "pos_embed.")),
    ("a Chroma model", _within("distilled_guidance_layer.")),
    ("a Flux 2 model", _within("single_stream_modulation.", "double_stream_modulation_img.")),
    ("a HiDream model", _within("double_stream_blocks.")),
    ("a Hunyuan video model", _within("individual_token_refiner.")),
    ("a Flux model", _within("double_blocks.", "single_transformer_blocks.")),
    ("a Z-Image model", _pair("cap_embedder.", "x_pad_token", "cap_pad_token")),
    ("a Z-Image or Lumina 2 model", _pair("cap_embedder.", "noise_refiner.", "context_refiner.")),
    ("a Lumina 2 model", _within("cap_embedder.", "time_caption_embed.")),
    ("a Qwen-Image model", _within("transformer_blocks.0.img_mod.", "txt_in.text_norm.")),
    ("a Krea 2 model", _within("txtfusion.")),
    ("an Anima or Cosmos model", _within("llm_adapter.", "blocks.0.adaln_modulation_self_attn.", "net.x_embedder.")),
    ("a Wan model", _within("head.modulation", "blocks.0.self_attn.norm_q.")),
    ("a Wan model", _pair("condition_embedder.", "scale_shift_table")),
    ("an LTX video model", _within("patchify_proj.")),
    ("a PixArt or Sana model", _pair("caption_projection.", "scale_shift_table")),
    ("a Stable Cascade model", _within("clip_txt_mapper.", "effnet_mapper.", ".channelwise.0.")),
    ("a motion module (AnimateDiff)", _within("motion_modules.", "temporal_transformer.")),
)
_ALONE: Final[tuple[tuple[str, _Recognises], ...]] = (  # the first that fits, in a file that is not a checkpoint
    ("a ControlNet-LLLite", _starts("lllite_")),
    ("a ControlNet of another architecture", _within("controlnet_")),
    ("a T2I adapter", _starts("adapter.body.", "adapter.conv_in.")),
    ("a T2I adapter", lambda given: _starts("body.0.block1.", "body.0.in_conv.")(given) and "conv_in.weight" in given),
    ("an upscaler of an unknown architecture", _has("conv_first.weight")),
    ("an upscaler of an unknown architecture", _within(".sub.0.RDB1.", ".rdb1.")),
    ("an upscaler of an unknown architecture", _has("body.0.weight", "body.1.weight")),
    ("a face restorer", _starts("stylegan_decoder.", "idx_pred_layer.", "feat_emb.")),
    ("a text encoder alone", _starts("text_model.", "transformer.text_model.", "transformer.resblocks.")),
    ("a text encoder alone", _starts("encoder.block.0.", "shared.weight", "clip_l.transformer.", "text_encoders.")),
    ("an image encoder under OpenCLIP's names", _starts("visual.transformer.")),
    ("a U-Net alone", lambda given: _starts("down_blocks.")(given) and _starts("time_embedding.")(given)),
    ("a U-Net alone", _starts("input_blocks.0.0.")),
    ("the judge of the demo checkpoints", _has("choices.weight", "features.0.weight")),
)
CHECKPOINT_PREFIXES: Final = ("model.diffusion_model.", "cond_stage_model.", "conditioner.")
"""Beginnings of names that only checkpoints have, and no VAE alone."""
_CHECKPOINT: Final = (*CHECKPOINT_PREFIXES, "first_stage_model.", "model_ema.")


def is_checkpoint(weights: Names) -> bool:
    """Return whether some names are those of a whole checkpoint."""
    return any(name.startswith(_CHECKPOINT) for name in weights)


def is_lora(weights: Names) -> bool:
    """Return whether some names are those of an adapter of the LoRA family, for whatever architecture."""
    if is_checkpoint(weights) or any(name.startswith(_NOT_LORA) for name in weights):
        return False
    is_one = any(name.startswith(_LORA_BEGINNINGS) for name in weights)
    return is_one or any(part in name for name in weights for part in _LORA_PARTS)


def named(weights: Mapping[str, object]) -> str | None:
    """Return what `weights` are by their names, unless they are a checkpoint's; None if no kind has such names."""
    table = _WHOLE if is_checkpoint(weights) else (*_WHOLE, *_ALONE)
    return next((what for what, recognises in table if recognises(weights)), None)


def require_known(weights: Mapping[str, object]) -> None:
    """Raise ModelFileError unless the names of `weights` may be those of a checkpoint; OtherKind if the farm cannot use
    files of their kind.
    """
    if is_lora(weights):
        raise ModelFileError("is a LoRA, not a checkpoint: prompts name it, as in <lora:name:0.8>")
    what = named(weights)
    if what is not None:
        raise OtherKind(what)
    if not is_checkpoint(weights):
        raise OtherKind(None)
