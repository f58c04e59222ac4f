"""The kinds of model files: what people call them, and where and under which names they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from shared.models.architectures import ARCHITECTURES
from shared.params.codecs import BUILT_IN_VAE
from shared.params.fields import AUTOMATIC_VAE
from shared.wording import choices

Kind = Literal["checkpoint", "vae", "decoder", "other"]
"""What a model file is; other: a file of a kind that the farm cannot use, which its reason names."""


@dataclass(frozen=True)
class ModelKind:
    """One kind of model files."""

    label: str  # for people, in sentences
    description: str  # the same with its article, for what was found where another kind should lie
    suffixes: tuple[str, ...]  # of the file's name, in any case; several beside one checkpoint count in this order
    accepted: str  # what a refusal offers if the farm has no such file
    folders: frozenset[str] = frozenset()  # in any case: what lies there is taken for this kind
    words: tuple[str, ...] = ()  # that mean a file of this kind without naming one


_IN_THE_FOLDER: Final = "in the models folder (FARM_MODELS)"
_ARCHITECTURES: Final = choices([facts.label for facts in ARCHITECTURES.values() if facts.starts_from_noise])

KINDS: Final[dict[Kind, ModelKind]] = {
    "checkpoint": ModelKind(
        label="checkpoint",
        description="a whole checkpoint",
        suffixes=(".safetensors", ".ckpt"),
        accepted=f"a checkpoint of {_ARCHITECTURES} {_IN_THE_FOLDER}, where workers look every few seconds",
    ),
    "vae": ModelKind(
        label="VAE",
        description="a VAE",
        suffixes=(".safetensors", ".ckpt", ".pt"),
        accepted=f"a VAE's file {_IN_THE_FOLDER}",
        words=(AUTOMATIC_VAE, BUILT_IN_VAE),
        folders=frozenset({"vae"}),
    ),
    "decoder": ModelKind(
        label="tiny decoder",
        description="a tiny decoder",
        suffixes=(".safetensors", ".pth", ".pt"),
        accepted=f"a tiny decoder {_IN_THE_FOLDER}",
        folders=frozenset({"vae-approx", "vae_approx", "vae-taesd"}),
    ),
    "other": ModelKind(
        label="file",
        description="something else",
        suffixes=(".pt", ".pth", ".gguf"),
        accepted=f"a file {_IN_THE_FOLDER}",
        folders=frozenset(
            {
                "animatediff_models", "clip", "clip_vision", "codeformer", "controlnet", "diffusion_models",
                "embeddings", "esrgan", "gfpgan", "hypernetworks", "ipadapter", "ip-adapter", "lora", "loras",
                "lycoris", "realesrgan", "swinir", "t2i-adapter", "text_encoder", "text_encoders", "unet",
                "upscale_models", "upscalers",
            }
        ),
    ),
}  # fmt: skip
