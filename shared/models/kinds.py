"""The kinds of model files: what people call them, and where and under which names they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from shared.models.architectures import ARCHITECTURES
from shared.params.codecs import BUILT_IN_VAE
from shared.params.fields import AUTOMATIC_VAE
from shared.wording import choices

Kind = Literal[
    "checkpoint", "vae", "decoder", "lora", "embedding", "hypernetwork", "controlnet", "ip-adapter", "image-encoder",
    "upscaler", "face-restorer", "other",
]  # fmt: skip
"""What a model file is. lora: LoRA and all its relatives; other: a file of a kind that the farm cannot use."""


KIND_OF_TAG: Final[dict[str, Kind]] = {"lora": "lora", "hypernet": "hypernetwork"}
"""The kind of files that a tag of a prompt names, by the kind of the tag (`shared.prompts.adapters.Kind`)."""


@dataclass(frozen=True)
class ModelKind:
    """One kind of model files."""

    label: str  # for people, in sentences
    plural: str  # the same, for headings
    description: str  # the same with its article, for what was found where another kind should lie
    suffixes: tuple[str, ...]  # of the file's name, in any case; several beside one checkpoint count in this order
    accepted: str  # what a refusal offers if the farm has no such file
    folder: str = ""  # of the models folder, that people are told to put its files into; empty: the models folder
    folders: frozenset[str] = (
        frozenset()
    )  # of A1111's and ComfyUI's trees, in any case; its files may lie elsewhere too
    owns_folders: bool = False  # anything else that lies there cannot be used
    words: tuple[str, ...] = ()  # that mean a file of this kind without naming one


_IN_THE_FOLDER: Final = "in the models folder (FARM_MODELS)"
_ARCHITECTURES: Final = choices([facts.label for facts in ARCHITECTURES.values() if facts.starts_from_noise])


def _kind(label: str, article: str, plural: str, suffixes: str, folder: str, *others: str) -> ModelKind:
    """Return a kind whose files people put into `folder`; they are recognised by their content elsewhere too."""
    return ModelKind(
        label=label,
        plural=plural,
        description=f"{article} {label}",
        suffixes=tuple(suffixes.split()),
        accepted=f"the file of {article} {label} in the folder {folder} of the models folder (FARM_MODELS)",
        folder=folder,
        folders=frozenset({folder.casefold(), *others}),
    )


KINDS: Final[dict[Kind, ModelKind]] = {
    "checkpoint": ModelKind(
        label="checkpoint",
        plural="Checkpoints",
        description="a whole checkpoint",
        suffixes=(".safetensors", ".ckpt"),
        accepted=f"a checkpoint of {_ARCHITECTURES} {_IN_THE_FOLDER}, where workers look every few seconds",
    ),
    "vae": ModelKind(
        label="VAE",
        plural="VAEs",
        description="a VAE",
        suffixes=(".safetensors", ".ckpt", ".pt"),
        accepted=f"a VAE's file {_IN_THE_FOLDER}",
        words=(AUTOMATIC_VAE, BUILT_IN_VAE),
        folder="VAE",
        folders=frozenset({"vae"}),
        owns_folders=True,
    ),
    "decoder": ModelKind(
        label="tiny decoder",
        plural="Tiny decoders for previews",
        description="a tiny decoder",
        suffixes=(".safetensors", ".pth", ".pt"),
        accepted=f"a tiny decoder {_IN_THE_FOLDER}",
        folder="vae-approx",
        folders=frozenset({"vae-approx", "vae_approx", "vae-taesd"}),
        owns_folders=True,
    ),
    "lora": _kind("LoRA", "a", "LoRAs", ".safetensors .ckpt .pt .bin", "Lora", "loras", "lycoris"),
    "embedding": _kind("embedding", "an", "Embeddings", ".safetensors .pt .bin", "embeddings"),
    "hypernetwork": _kind("hypernetwork", "a", "Hypernetworks", ".pt .ckpt .safetensors", "hypernetworks"),
    "controlnet": _kind("ControlNet", "a", "ControlNets", ".safetensors .pth .pt .ckpt .bin", "ControlNet"),
    "ip-adapter": _kind(
        "IP-Adapter", "an", "IP-Adapters", ".safetensors .bin .pth .pt", "ipadapter", "ip-adapter"
    ),
    "image-encoder": _kind(
        "image encoder", "an", "Image encoders", ".safetensors .bin .pt .pth", "clip_vision", "image_encoder"
    ),
    "upscaler": _kind(
        "upscaler", "an", "Upscalers", ".safetensors .pth .pt .ckpt .bin",
        "ESRGAN", "realesrgan", "swinir", "dat", "hat", "upscale_models", "upscalers",
    ),
    "face-restorer": ModelKind(
        label="face restorer",
        plural="Face restorers",
        description="a face restorer",
        suffixes=(".safetensors", ".pth", ".pt", ".ckpt"),
        accepted="the file of a face restorer, such as GFPGANv1.4.pth, in the folder GFPGAN of the models folder "
        "(FARM_MODELS)",
        folder="GFPGAN",
        folders=frozenset({"gfpgan", "codeformer", "facerestore_models"}),
    ),
    "other": ModelKind(
        label="file",
        plural="Files of kinds that the farm cannot use yet",
        description="something else",
        suffixes=(".pt", ".pth", ".gguf"),
        accepted=f"a file {_IN_THE_FOLDER}",
        folders=frozenset(
            {"animatediff_models", "clip", "diffusion_models", "t2i-adapter", "text_encoder", "text_encoders", "unet"}
        ),
    ),
}  # fmt: skip
