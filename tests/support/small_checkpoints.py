"""Small random checkpoints of every architecture, as single files in the original layout and as diffusers folders.

Both forms of one `build` hold the same weights. The layouts' rules are those of the real ones: heads 64 wide, 32 groups
a norm, transformers of several depths and a level without, CLIP's vocabulary, and a file of Stable Diffusion 2 with
one layer of text more than its folder. A call of a U-Net at 64x64 pixels takes milliseconds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from shared.prompts import tokenizer
from tests.support import original_layout
from tools.demo_checkpoint import layout

UNET_WIDTH: Final = 64
CLIP_L_WIDTH: Final = 64
OPEN_CLIP_WIDTH: Final = 128
CLIP_L_LAYERS: Final = 3
OPEN_CLIP_LAYERS: Final = 3
SIZE_FIGURE_WIDTH: Final = 256  # of the embedding of one figure about the picture's size
_SD1_TEXT: Final = "cond_stage_model.transformer."  # prefixes of text encoders in single files
_SD2_TEXT: Final = "cond_stage_model.model."
_SDXL_TEXT: Final = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
_REFINER_TEXT: Final = "conditioner.embedders.0.model."
_PASSED_ON: Final = 0.85  # share of the noisy latent
_GAIN: Final = 3**0.5  # PyTorch draws a layer's weights so that it divides the standard deviation by this


@dataclass(frozen=True)
class Kind:
    """An architecture or a variant of one, by all that differs from another."""

    pipeline: str  # in diffusers
    text_encoders: Mapping[str, str]  # name in diffusers -> prefix in a single file
    depths: tuple[int, ...]  # transformers a block, by level of the U-Net; 0: no attention
    multiples: tuple[int, ...]  # of the U-Net's width, by level
    context_width: int
    native_size: int  # pixels of a side
    size_figures: int = 0
    latent_scale: float = 0.18215
    channels: int = 4  # 9: sees a mask, and the masked picture's latent
    predicts_velocity: bool = False
    has_zero_terminal_snr: bool = False

    @property
    def states_sizes(self) -> bool:
        """Whether a single file is read by the sizes in its .yaml."""
        return _SD1_TEXT in self.text_encoders.values()

    @property
    def needs_yaml(self) -> bool:
        """Whether nothing in a single file says what it predicts, or how large it is."""
        return self.states_sizes or (_SD2_TEXT in self.text_encoders.values() and self.channels == 4)


_SD1: Final = Kind(
    "StableDiffusionPipeline", {"text_encoder": _SD1_TEXT},
    depths=(1, 1, 0), multiples=(1, 1, 1), context_width=CLIP_L_WIDTH, native_size=512,
)  # fmt: skip
_SD2: Final = replace(
    _SD1, text_encoders={"text_encoder": _SD2_TEXT}, multiples=(1, 2, 2), context_width=OPEN_CLIP_WIDTH
)
_SDXL: Final = Kind(
    "StableDiffusionXLPipeline", dict(zip(("text_encoder", "text_encoder_2"), _SDXL_TEXT, strict=True)),
    depths=(0, 1, 2), multiples=(1, 2, 2), context_width=CLIP_L_WIDTH + OPEN_CLIP_WIDTH,
    native_size=1024, size_figures=6, latent_scale=0.13025,
)  # fmt: skip
KINDS: Final[Mapping[str, Kind]] = {
    "sd1": _SD1,
    "sd2": _SD2,
    "sd2-velocity": replace(_SD2, predicts_velocity=True, native_size=768),
    "sd2-inpainting": replace(_SD2, pipeline="StableDiffusionInpaintPipeline", channels=9),
    "sdxl": _SDXL,
    "sdxl-refiner": replace(
        _SDXL, pipeline="StableDiffusionXLImg2ImgPipeline", text_encoders={"text_encoder_2": _REFINER_TEXT},
        depths=(0, 2, 2, 0), multiples=(1, 2, 2, 2), context_width=OPEN_CLIP_WIDTH, size_figures=5,
    ),
    "sdxl-inpainting": replace(_SDXL, pipeline="StableDiffusionXLInpaintPipeline", channels=9),
    "sdxl-velocity": replace(_SDXL, predicts_velocity=True, has_zero_terminal_snr=True),
}  # fmt: skip


@dataclass(frozen=True)
class Small:
    """The networks of one small checkpoint in memory, in float32."""

    kind: Kind
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: Mapping[str, nn.Module]  # by their names in diffusers
    last_layer: Mapping[str, Tensor]  # of Stable Diffusion 2's text encoder: only the single file holds it


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float16) -> Small:
    """Return a checkpoint of the kind `name`, its weights drawn from `seed` and rounded to `dtype`."""
    return copy.deepcopy(built(name, seed, dtype))


@lru_cache(3)  # of some 80 MB; a base model, its refiner and another one
def built(name: str, seed: int = 0, dtype: torch.dtype = torch.float16) -> Small:
    """Return the same, only to be read: it is drawn once."""
    kind = KINDS[name]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        encoders = {place: _text_encoder(prefix) for place, prefix in kind.text_encoders.items()}
        last = _last_layer() if _SD2_TEXT in kind.text_encoders.values() else {}
        small = Small(kind, _unet(kind), _vae(kind), encoders, last)
        for network in (small.unet, small.vae, *encoders.values()):
            for weight in network.parameters():
                weight.copy_(weight.to(dtype))
    return small


def write_file(
    small: Small,
    path: Path,
    dtype: torch.dtype = torch.float16,
    *,
    with_vae: bool = True,
    with_yaml: bool | None = None,
) -> Path:
    """Write a single file in the original layout, its weights as `dtype`, and return `path`.

    There is a .yaml beside it if its kind needs one, unless `with_yaml` says otherwise.
    """
    stored = {
        name: weight.detach().to(dtype if weight.is_floating_point() else weight.dtype).contiguous().clone()
        for name, weight in original_tensors(small).items()
        if with_vae or not name.startswith("first_stage_model.")
    }
    save_file(stored, path, {"format": "pt"})
    if small.kind.needs_yaml if with_yaml is None else with_yaml:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(original_config(small.kind)), encoding="utf-8")
    return path


def write_folder(
    small: Small, path: Path, dtype: torch.dtype = torch.float16, *,
    with_vae: bool = True, variant: str | None = None, shard_bytes: int = 10**9,
) -> Path:  # fmt: skip
    """Write a folder of diffusers, its weights as `dtype` in files of at most `shard_bytes`, and return `path`."""
    rules: dict[str, Any] = {"variant": variant, "max_shard_size": shard_bytes}
    for name, network in {"unet": small.unet, **({"vae": small.vae} if with_vae else {})}.items():
        copy.deepcopy(network).to(dtype).save_pretrained(path / name, **rules)
    for name, network in small.text_encoders.items():
        stored = copy.deepcopy(network).to(dtype)
        named = {f"text_model.{key}" if "text_" not in key else key: one for key, one in stored.state_dict().items()}
        stored.save_pretrained(path / name, state_dict=named, **rules)
    scheduler(small.kind).save_pretrained(path / "scheduler")
    for name, prefix in small.kind.text_encoders.items():
        clip_tokenizer(prefix).save_pretrained(path / name.replace("text_encoder", "tokenizer"))
    (path / "model_index.json").write_text(json.dumps(_model_index(small), indent=2), encoding="utf-8")
    return path


def original_tensors(small: Small) -> dict[str, Tensor]:
    """Return all weights under their names in the original layout, and what else such files hold."""
    found = layout.unet_tensors(small.unet) | layout.vae_tensors(small.vae)
    for name, prefix in small.kind.text_encoders.items():
        to_original = original_layout.open_clip if is_open_clip(prefix) else original_layout.clip
        found |= to_original(prefix, {**small.text_encoders[name].state_dict(), **small.last_layer})
    if small.kind.size_figures == 0:
        found["alphas_cumprod"] = scheduler(small.kind).alphas_cumprod
    if small.kind.size_figures and small.kind.predicts_velocity:
        found["v_pred"] = torch.tensor([])
    if small.kind.has_zero_terminal_snr:
        found["ztsnr"] = torch.tensor([])
    return found


def original_config(kind: Kind) -> dict[str, Any]:
    """Return the configuration of Stable Diffusion 1 or 2 as it stands in a .yaml."""
    shape = layout.Shape(
        image_size=kind.native_size, unet_width=UNET_WIDTH, unet_multiples=kind.multiples,
        attention_resolutions=tuple(2**level for level, depth in enumerate(kind.depths) if depth),
        unet_layers=1, unet_heads=2, vae_width=32, vae_multiples=(1, 2, 2, 2), vae_layers=1,
        text_width=kind.context_width,
    )  # fmt: skip
    config = layout.original_config(shape, kind.latent_scale)
    params = config["model"]["params"]
    params["parameterization"] = "v" if kind.predicts_velocity else "eps"
    unet = params["unet_config"]["params"]
    unet["in_channels"] = kind.channels
    if not kind.states_sizes:
        del unet["num_heads"]
        unet |= {"num_head_channels": 64, "use_linear_in_transformer": True}
        target = "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"
        params["cond_stage_config"] = {"target": target, "params": {"freeze": True, "layer": "penultimate"}}
    return config


def scheduler(kind: Kind) -> EulerDiscreteScheduler:
    """Return the scheduler that a folder of this kind names."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction" if kind.predicts_velocity else "epsilon",
        timestep_spacing="trailing" if kind.has_zero_terminal_snr else "leading",
        rescale_betas_zero_snr=kind.has_zero_terminal_snr,
        steps_offset=1,
    )


@cache
def clip_tokenizer(prefix: str) -> CLIPTokenizer:
    """Return transformers' tokenizer for the text encoder that single files have under `prefix`."""
    tokens, merges = tokenizer._vocabulary()
    special = {"<|startoftext|>": tokenizer.BOS, "<|endoftext|>": tokenizer.EOS}
    filling = "!" if is_open_clip(prefix) else "<|endoftext|>"  # "!" is token 0
    return CLIPTokenizer(vocab=tokens | special, merges=merges, pad_token=filling, model_max_length=tokenizer.TOKENS)


def is_open_clip(prefix: str) -> bool:
    """Return whether the text encoder that single files have under `prefix` is OpenCLIP's, else it is OpenAI's."""
    return prefix.endswith(".model.")


def _text_encoder(prefix: str) -> nn.Module:
    """Return a text encoder whose words differ: transformers would draw them all close to zero."""
    is_open = is_open_clip(prefix)
    width = OPEN_CLIP_WIDTH if is_open else CLIP_L_WIDTH
    config = CLIPTextConfig(
        vocab_size=layout.VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=OPEN_CLIP_LAYERS if is_open else CLIP_L_LAYERS,
        num_attention_heads=width // 64,
        hidden_act="gelu" if is_open else "quick_gelu",
        projection_dim=width,
        bos_token_id=0,  # these three as Stability's folders have them
        eos_token_id=2,
        pad_token_id=1,
    )
    has_projection = is_open and prefix != _SD2_TEXT
    encoder = (CLIPTextModelWithProjection if has_projection else CLIPTextModel)(config)
    nn.init.normal_(encoder.get_input_embeddings().weight)
    return encoder.eval()


def _last_layer() -> dict[str, Tensor]:
    weights = _text_encoder(_SD2_TEXT).state_dict()
    first = "encoder.layers.0."
    last = f"encoder.layers.{OPEN_CLIP_LAYERS}."
    return {name.replace(first, last): weight for name, weight in weights.items() if name.startswith(first)}


def _unet(kind: Kind) -> UNet2DConditionModel:
    """Return a U-Net that predicts about as much as a trained one does, and that differs by all that it sees."""
    widths = [UNET_WIDTH * multiple for multiple in kind.multiples]
    down = [f"{'CrossAttn' if depth else ''}DownBlock2D" for depth in kind.depths]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_FIGURE_WIDTH,
        "projection_class_embeddings_input_dim": kind.size_figures * SIZE_FIGURE_WIDTH + OPEN_CLIP_WIDTH,
    }
    unet = UNet2DConditionModel(
        sample_size=kind.native_size // 8,
        in_channels=kind.channels,
        down_block_types=down,
        up_block_types=[block.replace("Down", "Up") for block in reversed(down)],
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=kind.context_width,
        attention_head_dim=2 if kind.states_sizes else [width // 64 for width in widths],  # their number
        use_linear_projection=not kind.states_sizes,
        transformer_layers_per_block=[max(depth, 1) for depth in kind.depths],
        **(added if kind.size_figures else {}),
    )
    _amplify(unet)
    if not kind.predicts_velocity:
        unet.conv_out.weight.div_(8)
        _pass_input_on(unet)
    return unet.eval()


def _pass_input_on(unet: UNet2DConditionModel) -> None:
    """Add most of the noisy latent to what the U-Net predicts, because that is mostly noise: final latents stay small.

    The first layer of the way down and the last ones of the way up pass each channel on as itself and its negative, a
    group of the last norm; silu(x) - silu(-x) is x. The whole of it would leave a latent of nothing at last, whose norm
    amplifies rounding.
    """
    copies = 2 * unet.config.out_channels
    block = unet.up_blocks[-1]
    last = block.resnets[-1]
    ends = [last.conv2, *(attention.proj_out for attention in getattr(block, "attentions", [])[-1:])]
    for layer in (unet.conv_in, last.conv_shortcut, *ends):
        layer.weight[:copies] = 0
        layer.bias[:copies] = 0
    unet.conv_out.weight[:, :copies] = 0
    for place in range(copies):
        channel, sign = place // 2, 1 - 2 * (place % 2)
        unet.conv_in.weight[place, channel, 1, 1] = sign
        last.conv_shortcut.weight[place, UNET_WIDTH + place] = 1  # behind the result of the layer before
        unet.conv_out.weight[channel, place, 1, 1] = sign * _PASSED_ON


def _vae(kind: Kind) -> AutoencoderKL:
    """Return a VAE whose latents and pictures are neither flat nor clipped."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[32, 64, 64, 64],
        layers_per_block=1,
        sample_size=kind.native_size,
        scaling_factor=kind.latent_scale,
        force_upcast=True,
    )
    _amplify(vae)
    vae.quant_conv.weight.mul_(1 / kind.latent_scale)
    return vae.eval()


def _amplify(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.mul_(_GAIN)


def _model_index(small: Small) -> dict[str, Any]:
    text = {}
    for name, network in small.text_encoders.items():
        text[name] = ["transformers", type(network).__name__]
        text[name.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    if list(text) == ["text_encoder_2", "tokenizer_2"]:
        text |= {"text_encoder": [None, None], "tokenizer": [None, None], "requires_aesthetics_score": True}
    if not small.kind.size_figures:
        text |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    return {
        "_class_name": small.kind.pipeline,
        "_diffusers_version": "0.42.1",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        **text,
    }
