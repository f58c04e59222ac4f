"""Demo checkpoints on disk: the original layout, as diffusers' own converters read it, strictly and bit for bit."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from diffusers.loaders import single_file_utils
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open

from tools.demo_checkpoint import layout
from tools.demo_checkpoint.layout import Checkpoint, Shape

SMALL = Shape(
    unet_width=32,
    unet_multiples=(1, 2, 3, 3),
    unet_heads=2,
    vae_multiples=(1, 1, 2, 2),
    text_width=64,
    text_layers=1,
)
NETWORKS = ("unet", "vae", "text")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    path = tmp_path_factory.mktemp("demo") / "small.safetensors"
    checkpoint = layout.build(SMALL, seed=5, scale_factor=0.25)
    layout.save(checkpoint, SMALL, path)
    return checkpoint, path


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether `second` holds the half-precision weights of `first`, all and only those."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key].half().float(), theirs[key]) for key in ours)


def test_diffusers_reads_the_file_strictly_and_bit_equal(written: tuple[Checkpoint, Path]) -> None:
    checkpoint, path = written
    tensors = {key: value.float() for key, value in safetensors.torch.load_file(path).items()}
    config = yaml.safe_load(path.with_suffix(".yaml").read_text())
    unet = UNet2DConditionModel.from_config(single_file_utils.create_unet_diffusers_config_from_ldm(config, tensors))
    vae = AutoencoderKL.from_config(single_file_utils.create_vae_diffusers_config_from_ldm(config, tensors))
    unet.load_state_dict(single_file_utils.convert_ldm_unet_checkpoint(tensors, unet.config), strict=True)
    vae.load_state_dict(single_file_utils.convert_ldm_vae_checkpoint(tensors, vae.config), strict=True)
    assert same(checkpoint.unet, unet)
    assert same(checkpoint.vae, vae)
    assert vae.config.scaling_factor == 0.25


def test_load_gives_back_what_save_wrote(written: tuple[Checkpoint, Path]) -> None:
    checkpoint, path = written
    again, shape = layout.load(path)
    assert shape == SMALL
    assert again.scale_factor == 0.25
    assert all(same(getattr(checkpoint, name), getattr(again, name)) for name in NETWORKS)


def test_two_layers_a_level_are_named_right(tmp_path: Path) -> None:
    shape = Shape(unet_width=32, unet_layers=2, unet_heads=2, vae_multiples=(1, 1, 1, 1), vae_layers=2, text_width=64)
    checkpoint = layout.build(shape)
    layout.save(checkpoint, shape, tmp_path / "deep.safetensors")
    again, _ = layout.load(tmp_path / "deep.safetensors")
    assert all(same(getattr(checkpoint, name), getattr(again, name)) for name in NETWORKS)


def test_names_are_those_of_the_original(written: tuple[Checkpoint, Path]) -> None:
    _, path = written
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        assert file.metadata()["license"] == "Apache-2.0"
    assert {
        "model.diffusion_model.time_embed.0.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.input_blocks.2.0.op.weight",
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.output_blocks.1.1.conv.weight",
        "model.diffusion_model.output_blocks.3.2.conv.weight",
        "first_stage_model.encoder.down.0.downsample.conv.weight",
        "first_stage_model.decoder.up.3.upsample.conv.weight",
        "first_stage_model.encoder.mid.attn_1.q.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    } <= names


def test_build_of_the_same_seed_is_the_same() -> None:
    first, again, other = (layout.build(SMALL, seed).unet.conv_in.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_unseen_tokens_start_near_zero() -> None:
    assert layout.build(SMALL).text.get_input_embeddings().weight.abs().max() < 0.01


def test_load_refuses_a_file_with_a_missing_weight(written: tuple[Checkpoint, Path], tmp_path: Path) -> None:
    _, path = written
    tensors = safetensors.torch.load_file(path)
    del tensors["model.diffusion_model.out.2.bias"]
    safetensors.torch.save_file(tensors, tmp_path / "holed.safetensors")
    (tmp_path / "holed.yaml").write_bytes(path.with_suffix(".yaml").read_bytes())
    with pytest.raises(RuntimeError, match=r"conv_out\.bias"):
        layout.load(tmp_path / "holed.safetensors")
