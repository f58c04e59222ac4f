"""Image encoders from every form of file, beside transformers; what is no such file is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.errors import ModelFileError
from shared.models.details import Details
from tests.support import ip_adapters
from tests.support.ip_adapters import EncoderForm
from worker.engine.answers.pixels import apply
from worker.engine.devices import Device
from worker.engine.loading.image_encoders import load
from worker.engine.loading.inspect import inspect
from worker.engine.requests import Apply

CPU = torch.float32


@pytest.mark.parametrize("form", ["file", "pickle", "whole CLIP", "folder"])
def test_every_form_of_an_encoder_reads_a_picture_as_transformers_does(
    form: EncoderForm, cpu: Device, tmp_path: Path
) -> None:
    drawn = ip_adapters.encoder()
    path = ip_adapters.write_encoder(drawn, tmp_path / "eyes", form)
    found = load(path, cpu, CPU)
    assert (found.name, found.side, found.places) == ("eyes", 56, 17)
    assert (found.width("projected"), found.width("hidden")) == (48, 128)
    assert found.bytes == sum(one.numel() * 4 for one in drawn.parameters())
    pixels = torch.randn(3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = drawn(pixel_values=pixels[None], output_hidden_states=True)
    projected, hidden = (apply([Apply(found.readers[one], pixels)])[0] for one in ("projected", "hidden"))
    torch.testing.assert_close(projected, expected.image_embeds)
    torch.testing.assert_close(hidden, expected.hidden_states[-2][0])
    inspected = inspect(path)
    assert (inspected.kind, inspected.architecture, inspected.reason) == ("image-encoder", None, None)
    details = Details.read(inspected.details)
    assert (details.projected, details.hidden) == (48, 128)
    assert bool(inspected.note) == (form in {"file", "pickle"})  # whose heads no shape shows
    assert inspected.networks["image-encoder"] == {"float16": sum(one.numel() for one in drawn.parameters())}


PUBLISHED = {  # width: heads, activation, layers, width of the result
    "ViT-L": (1024, 16, "quick_gelu", 24, 768),
    "ViT-H": (1280, 16, "gelu", 32, 1024),
    "ViT-bigG": (1664, 16, "gelu", 48, 1280),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_heads_and_activation_of_published_encoders_are_known(name: str) -> None:
    from transformers.models.clip.configuration_clip import CLIPVisionConfig  # noqa: PLC0415 - takes seconds
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection  # noqa: PLC0415 - as above

    from worker.engine.architectures.reading import image_encoders  # noqa: PLC0415 - as above
    from worker.engine.loading import networks  # noqa: PLC0415 - as above

    width, heads, activation, layers, projected = PUBLISHED[name]
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "patch_size": 14}
    with torch.device("meta"):
        whole = CLIPVisionModelWithProjection(
            CLIPVisionConfig(**sizes, num_attention_heads=heads, projection_dim=projected)
        )
    part = image_encoders.of_weights(whole.state_dict())
    built = networks.build_image_encoder(part)
    found = built.config
    assert (found.num_attention_heads, found.hidden_act, found.image_size) == (heads, activation, 224)
    assert image_encoders.details(part) == {"projected": projected, "hidden": width}
    assert image_encoders.note(part) is None


# Files of strangers.

Weights = dict[str, Tensor]
Change = Callable[[Weights], Mapping[str, Tensor]]
EMBEDDINGS = "vision_model.embeddings."


def without(part: str) -> Change:
    return lambda weights: {name: one for name, one in weights.items() if part not in name}


def shaped(name: str, *shape: int) -> Change:
    return lambda weights: weights | {name: torch.zeros(shape)}


CHANGES: dict[str, tuple[Change, str]] = {
    "a missing weight": (without("layers.1.mlp.fc2.bias"), "weights are missing, first vision_model.encoder.layers.1"),
    "no projection": (without("visual_projection"), "visual_projection.weight is missing"),
    "a weight too many": (shaped("other.weight", 1), "has 1 weights too many, first other.weight"),
    "a wrong shape": (shaped("vision_model.post_layernorm.bias", 3), r"post_layernorm.bias has the shape \(3,\)"),
    "odd places": (shaped(f"{EMBEDDINGS}position_embedding.weight", 16, 128), "position_embedding.weight has the"),
    "no places": (shaped(f"{EMBEDDINGS}position_embedding.weight", 1, 128), "image_size is 0"),
    "absurdly many places": (shaped(f"{EMBEDDINGS}position_embedding.weight", 10**6 + 1, 1), "image_size is 14000"),
    "many small places": (
        lambda weights: {
            **weights,
            f"{EMBEDDINGS}position_embedding.weight": torch.zeros(10_001, 128),
            f"{EMBEDDINGS}patch_embedding.weight": torch.zeros(128, 3, 1, 1),
        },
        "10,000 patches; at most 1,024",
    ),
    "an absurd width": (shaped(f"{EMBEDDINGS}patch_embedding.weight", 2**21, 3, 1, 1), "hidden_size is 2097152"),
    "an empty width": (shaped(f"{EMBEDDINGS}patch_embedding.weight", 2**21, 3, 0, 0), "missing or misshapen"),
    "other channels": (shaped(f"{EMBEDDINGS}patch_embedding.weight", 128, 4, 14, 14), "num_channels is 4; 3"),
    "a single layer": (
        lambda weights: {k: v for k, v in weights.items() if "layers.1." not in k and "layers.2." not in k},
        "num_hidden_layers is 1",
    ),
    "SigLIP": (without("class_embedding"), "an image encoder of another form than CLIP's"),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return load_file(ip_adapters.write_encoder(ip_adapters.encoder(), tmp_path_factory.mktemp("eyes") / "eyes"))


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_is_no_whole_encoder_is_refused(name: str, plain: Weights, cpu: Device, tmp_path: Path) -> None:
    change, reason = CHANGES[name]
    save_file(dict(change(dict(plain))), path := tmp_path / "eyes.safetensors")
    with pytest.raises(ModelFileError, match=reason):
        load(path, cpu, CPU)
    assert inspect(path).reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "siglip_vision_model"}, r"another network than CLIP's image encoder \(siglip_vision_model\)"),
        ({"model_type": [1]}, r"another network than CLIP's image encoder \(a list\)"),
        ({"image_size": 10**6}, "image_size is 1000000"),
        ({"image_size": [224, 224]}, "image_size is a list"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_attention_heads": 3}, "describes no network"),
        ({"num_attention_heads": "x"}, "describes no network"),
        ({"hidden_act": "relu"}, "hidden_act is relu; quick_gelu and gelu"),
        ({"hidden_size": 64}, "has the shape|describes no network"),
        ({"num_channels": 1}, "num_channels is 1; 3"),
        ({"layer_norm_eps": "x"}, "describes no network"),
        ({"intermediate_size": {"a": 1}}, "intermediate_size"),
    ],
    ids=str,
)
def test_a_folder_of_another_form_is_refused(
    changes: dict[str, Any], reason: str, plain: Weights, cpu: Device, tmp_path: Path
) -> None:
    path = ip_adapters.write_encoder(ip_adapters.encoder(), tmp_path / "eyes", "folder")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(ModelFileError, match=reason):
        load(path, cpu, CPU)
    found = inspect(path)
    assert (found.kind, bool(found.reason)) == ("image-encoder", True)


def test_a_cut_off_encoder_is_refused_with_what_is_missing(plain: Weights, tmp_path: Path) -> None:
    save_file(plain, path := tmp_path / "eyes.safetensors")
    path.write_bytes(path.read_bytes()[:100_000])
    assert "weights are missing" in (inspect(path).reason or "")
