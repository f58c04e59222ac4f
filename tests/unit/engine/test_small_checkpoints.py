"""The small checkpoints of the tests: diffusers reads both forms of each, as the same networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils as original
from safetensors.torch import load_file
from torch import Tensor

from tests.support import small_checkpoints
from tests.support.small_checkpoints import KINDS, Small

REPRESENTATIVES = ["sdxl"]
EVERY_KIND = [kind if kind in REPRESENTATIVES else pytest.param(kind, marks=pytest.mark.nightly) for kind in KINDS]


def assert_same_weights(found: dict[str, Tensor], network: torch.nn.Module) -> None:
    expected = network.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name, weight in expected.items() if not torch.equal(found[name].float(), weight)] == []


def text_weights(weights: dict[str, Tensor], prefix: str, encoder: torch.nn.Module) -> dict[str, Tensor]:
    """The weights of one text encoder, by diffusers' converters."""
    own = {name: weight for name, weight in weights.items() if name.startswith(prefix)}
    if prefix.endswith("transformer."):
        found = original.convert_ldm_clip_checkpoint(own)
        del found["text_model.embeddings.position_ids"]
    else:
        found = original.convert_open_clip_checkpoint(encoder, own, prefix)
    if not hasattr(encoder, "text_model"):
        found = {name.removeprefix("text_model."): weight for name, weight in found.items()}
    return {name: found[name] for name in encoder.state_dict()}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_single_file_converts_back_to_the_same_networks(kind: str, tmp_path: Path) -> None:
    small = small_checkpoints.build(kind)
    weights = load_file(small_checkpoints.write_file(small, tmp_path / "one.safetensors"))
    assert_same_weights(original.convert_ldm_unet_checkpoint(weights, small.unet.config), small.unet)
    assert_same_weights(original.convert_ldm_vae_checkpoint(weights, small.vae.config), small.vae)
    for name, prefix in small.kind.text_encoders.items():
        encoder = small.text_encoders[name]
        assert_same_weights(text_weights(weights, prefix, encoder), encoder)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_folder_is_read_by_its_pipeline(kind: str, small_folder: Callable[[str], Path]) -> None:
    small = small_checkpoints.build(kind)
    folder = small_folder(kind)
    pipeline = getattr(diffusers, KINDS[kind].pipeline).from_pretrained(folder)
    assert_same_weights(pipeline.unet.state_dict(), small.unet)
    assert_same_weights(pipeline.vae.state_dict(), small.vae)
    for name, encoder in small.text_encoders.items():
        assert_same_weights(getattr(pipeline, name).state_dict(), encoder)


@pytest.mark.parametrize("kind", EVERY_KIND)
@torch.inference_mode()
def test_the_prediction_is_neither_flat_nor_loud_and_differs_by_all_that_the_network_sees(kind: str) -> None:
    small = small_checkpoints.build(kind)
    generator = torch.Generator().manual_seed(5)
    shapes = {"x": (2, small.kind.channels, 8, 8), "context": (2, 77, small.kind.context_width), "pooled": (2, 128)}
    seen = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    seen |= {"timestep": torch.tensor(500.0), "sizes": torch.full((2, small.kind.size_figures), 1024.0)}
    usual = predicted(small, seen)
    assert 0.5 < float(usual.std()) < 2
    for name in seen if small.kind.size_figures else ("x", "context", "timestep"):
        other = predicted(small, seen | {name: seen[name] * 0.7})
        assert float((other - usual).std()) > 0.002, name


def predicted(small: Small, seen: dict[str, Tensor]) -> Tensor:
    added = {"text_embeds": seen["pooled"], "time_ids": seen["sizes"]} if small.kind.size_figures else None
    result: Tensor = small.unet(seen["x"], seen["timestep"], seen["context"], added_cond_kwargs=added).sample
    return result


def test_all_formats_and_forms_hold_the_weights(tmp_path: Path) -> None:
    small = small_checkpoints.build("sd1", dtype=torch.float8_e4m3fn)
    for dtype in (torch.float8_e4m3fn, torch.bfloat16, torch.float16, torch.float32):
        path = small_checkpoints.write_file(small, tmp_path / "one.safetensors", dtype, with_vae=False)
        weights = load_file(path)
        assert weights["model.diffusion_model.out.2.weight"].dtype == dtype
        assert not any(name.startswith("first_stage_model.") for name in weights)
        assert_same_weights(original.convert_ldm_unet_checkpoint(weights, small.unet.config), small.unet)
    folder = small_checkpoints.write_folder(small, tmp_path / "folder", variant="fp16", shard_bytes=2**20)
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").exists()
    assert len(list((folder / "text_encoder").glob("*.safetensors"))) > 1
