"""Networks from parts: built without weights, filled strictly. A missing weight is an error, never a random number.

Imports diffusers and transformers, which takes seconds: imported when a checkpoint is read, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from types import UnionType
from typing import Final

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderTiny
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)

from shared.errors import ModelFileError
from shared.prompts.tokenizer import BOS, EOS, TOKENS
from worker.engine.architectures.base import Architecture
from worker.engine.architectures.parts import Part, Parts
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.files.config_bounds import LARGEST, Config, shown, whole
from worker.engine.loading.image_prompts import ImagePrompter

_LATENT: Final = Architecture.latent
_TEXTS: Final[dict[str, type[CLIPTextModel | CLIPTextModelWithProjection]]] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
_TYPES: Final[dict[type, type | UnionType]] = {float: int | float, int: int | None, str: str | None, bool: bool | None}
"""What a network takes in the place of a usual value of each type; null stands for the usual one, or for none."""
_LABELS: Final = {"unet": "U-Net", "text_encoder": "text encoder", "text_encoder_2": "text encoder 2"}
VAE_LEVELS: Final = 4  # each but the first halves a side


def build(parts: Parts) -> dict[str, nn.Module]:
    """Return the networks that `parts` describe by their names, on the meta device until they are filled.

    Raises ModelFileError if no network fits the description, or if a weight is missing, left over or misshapen.
    """
    unet = _unet(parts.networks["unet"])
    texts = {name: _text(name, part) for name, part in parts.networks.items() if name in _TEXTS}
    _require_fit(unet, [network.config for network in texts.values()], ARCHITECTURES[parts.architecture])
    built = {"unet": unet, **texts}
    for name, network in built.items():
        _require(_LABELS[name], network, parts.networks[name])
    return built | ({"vae": build_vae(parts.networks["vae"])} if "vae" in parts.networks else {})


def _unet(part: Part) -> UNet2DConditionModel:
    with _describing("U-Net"), _without_values():
        unet: UNet2DConditionModel = UNet2DConditionModel.from_config(_arguments(UNet2DConditionModel, part))
    return unet


def _text(name: str, part: Part) -> CLIPTextModel | CLIPTextModelWithProjection:
    words = {**part.config, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}
    with _describing(_LABELS[name]), _without_values():
        return _TEXTS[name](CLIPTextConfig.from_dict(words))


def build_vae(part: Part) -> AutoencoderKL:
    """Return the VAE that `part` describes, on the meta device until it is filled. Raises ModelFileError."""
    with _describing("VAE"), _without_values():
        vae: AutoencoderKL = AutoencoderKL.from_config(_arguments(AutoencoderKL, part))
    sizes = vae.config["latent_channels"], len(vae.config["block_out_channels"]), vae.config["out_channels"]
    if sizes != (_LATENT.channels, VAE_LEVELS, 3):
        raise ModelFileError("its VAE does not make pictures of the U-Net's latents: 4 channels, 8 pixels a cell")
    _require("VAE", vae, part)
    return vae


def build_decoder(part: Part) -> DecoderTiny:
    """Return the tiny decoder that `part` describes, on the meta device until it is filled. Raises ModelFileError."""
    with _without_values():
        decoder = DecoderTiny(**part.config)
    _require("decoder", decoder, part)
    return decoder


def build_control_net(part: Part) -> ControlNetModel | ControlNetUnionModel:
    """Return the control net that `part` describes, on the meta device until it is filled. Raises ModelFileError."""
    kind = ControlNetUnionModel if "task_embedding" in part.weights else ControlNetModel
    with _describing("control net"), _without_values():
        net: ControlNetModel | ControlNetUnionModel = kind.from_config(_arguments(kind, part))
    _require("control net", net, part)
    return net


def build_ip_adapter(part: Part) -> ImagePrompter:
    """Return the IP-Adapter that `part` describes, on the meta device until it is filled. Raises ModelFileError."""
    with _describing("IP-Adapter"), _without_values():
        adapter = ImagePrompter.of(part.config, part.weights)
    _require("IP-Adapter", adapter, part)
    return adapter


def build_image_encoder(part: Part) -> CLIPVisionModelWithProjection:
    """Return the image encoder that `part` describes, on the meta device until it is filled. Raises ModelFileError."""
    with _describing("image encoder"), _without_values():
        encoder = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(part.config))
    _require("image encoder", encoder, part)
    return encoder


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Assign `weights` to `network` as they are; it is then ready to be called, not to be trained."""
    network.load_state_dict(dict(weights), strict=True, assign=True)
    network.eval().requires_grad_(requires_grad=False)


@contextmanager
def _without_values() -> Iterator[None]:
    """Within the block, networks are made of shapes alone."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Draws no first weights: nothing would hold them, and they take a third of the time that a network takes."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


@contextmanager
def _describing(what: str) -> Iterator[None]:
    """Within the block, an error of a library says that a configuration describes no network.

    The libraries have errors of many classes, whose messages repeat the configuration: a stranger wrote it.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        why = f"the configuration of its {what} describes no network ({type(error).__name__})"
        raise ModelFileError(f"{why}: use the one that it was published with") from error


def _arguments(network: type[nn.Module], part: Part) -> Config:
    """Return what a network takes of its configuration: by other keys diffusers would import any of its classes.

    Raises ModelFileError for a value of another type than the usual one, which may fail only at the first call.
    """
    taken = signature(network).parameters
    config = {name: value for name, value in part.config.items() if name in taken}
    for name, value in config.items():
        types = _TYPES.get(type(taken[name].default), object)
        if not isinstance(value, types) and not (isinstance(value, list) and "tuple" in str(taken[name].annotation)):
            usual = f"usual is {shown(taken[name].default)}"
            raise ModelFileError(f"its configuration's {name} is {shown(value)}: no such network ({usual})")
    return config


def _require_fit(unet: UNet2DConditionModel, texts: Sequence[CLIPTextConfig], architecture: Architecture) -> None:
    """Raise ModelFileError unless U-Net and text encoders fit together, and are those of the architecture."""
    for words in texts:
        if words.vocab_size <= EOS or words.max_position_embeddings < TOKENS:
            size = f"{words.vocab_size} words and {words.max_position_embeddings} positions"
            raise ModelFileError(f"its text encoder has {size}; CLIP's {EOS + 1} and {TOKENS} are needed")
    width, read = sum(words.hidden_size for words in texts), unet.config["cross_attention_dim"]
    if read != width:
        these = "its text encoder is" if len(texts) == 1 else "its text encoders are together"
        raise ModelFileError(f"{these} {width} wide, and its U-Net reads {shown(read)}")
    if unet.config["out_channels"] != architecture.latent.channels:
        made, right = unet.config["out_channels"], architecture.latent.channels
        raise ModelFileError(f"its U-Net makes latents of {made} channels; {right} are right")
    vector, figures = unet.config["projection_class_embeddings_input_dim"], architecture.size_figures
    if figures:
        each = whole("U-Net's addition_time_embed_dim", unet.config["addition_time_embed_dim"], 1, LARGEST)
        right = (texts[-1].projection_dim or 0) + figures * each
        if unet.config["addition_embed_type"] != "text_time" or vector != right:
            what = f"a vector of {right} for the text and {figures} figures about the picture's size"
            raise ModelFileError(f"its U-Net reads {shown(vector)}, not {what}, as {architecture.label} does")


def _require(what: str, network: nn.Module, part: Part) -> None:
    expected, weights = network.state_dict(), part.weights
    if missing := sorted(expected.keys() - weights.keys()):
        raise ModelFileError(f"{len(missing)} of the {what}'s {len(expected)} weights are missing, first {missing[0]}")
    if surplus := sorted(weights.keys() - expected.keys()):
        raise ModelFileError(f"the {what} has {len(surplus)} weights too many, first {surplus[0]}")
    for name, weight in expected.items():
        if weights[name].shape != weight.shape:
            shapes = f"{tuple(weights[name].shape)}, not {tuple(weight.shape)}"
            raise ModelFileError(f"the {what}'s {name} has the shape {shapes}: its .yaml is missing or another's")
