"""Files that are not checkpoints are recognised by the names of weights that each kind's files have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from shared.errors import ModelFileError
from worker.engine.files.kinds import OtherKind, require_known
from worker.engine.files.lora import reading as lora
from worker.engine.loading.inspect import inspect

JUDGE = Path(__file__).parents[3] / "tools" / "demo_checkpoint" / "judge.safetensors"


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ("lllite_unet_input_blocks_4_1.conditioning1.0.weight", "a ControlNet-LLLite"),
        ("lora_controlnet input_blocks.0.0.up", "a Control-LoRA"),
        ("controlnet_blocks.0.weight pos_embed.proj.weight", "a ControlNet of another architecture"),
        ("adapter.body.0.resnets.0.block1.weight adapter.conv_in.weight", "a T2I adapter"),
        ("body.0.block1.weight body.0.block2.weight conv_in.weight", "a T2I adapter"),
        ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", "a motion module"),
        ("conv_first.weight body.0.rdb1.conv1.weight", "an upscaler of an unknown architecture"),
        ("model.0.weight model.1.sub.0.RDB1.conv1.0.weight", "an upscaler of an unknown architecture"),
        ("body.0.weight body.1.weight body.2.weight", "an upscaler of an unknown architecture"),
        ("conv_first.weight layers.0.residual_group.blocks.0.norm1.weight", "an upscaler of an unknown architecture"),
        ("stylegan_decoder.style_mlp.1.weight", "a face restorer"),
        ("text_model.encoder.layers.0.mlp.fc1.weight text_projection.weight", "a text encoder alone"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight shared.weight", "a text encoder alone"),
        ("visual.transformer.resblocks.0.attn.in_proj_weight", "an image encoder under OpenCLIP's names"),
        ("down_blocks.0.resnets.0.conv1.weight time_embedding.linear_1.weight conv_in.weight", "a U-Net alone"),
        ("input_blocks.0.0.weight time_embed.0.weight middle_block.0.in_layers.0.weight out.2.weight", "a U-Net alone"),
        ("model.diffusion_model.joint_blocks.0.x", "a Stable Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "a Flux model"),
        ("model.diffusion_model.double_blocks.0.x first_stage_model.x", "a Flux model"),
        ("single_transformer_blocks.0.attn.to_q.weight", "a Flux model"),
        ("layers.0.attention.qkv.weight cap_embedder.0.weight noise_refiner.0.x x_pad_token", "a Z-Image model"),
        (
            "layers.0.attention.qkv.weight cap_embedder.0.weight noise_refiner.0.x context_refiner.0.x",
            "a Z-Image or Lumina 2 model",
        ),
        ("model.diffusion_model.cap_embedder.0.weight model.diffusion_model.x_pad_token vae.x", "a Z-Image model"),
        ("cap_embedder.0.weight layers.0.adaLN_modulation.1.weight", "a Lumina 2 model"),
        ("pos_embed.proj.weight context_embedder.weight transformer_blocks.0.attn.add_k_proj.weight", "a Stable Diff"),
        ("joint_transformer_blocks.0.attn.to_q.weight context_embedder.weight", "an AuraFlow model"),
        ("model.diffusion_model.distilled_guidance_layer.in_proj.bias double_blocks.0.x", "a Chroma model"),
        ("single_stream_modulation.lin.weight double_blocks.0.x", "a Flux 2 model"),
        ("transformer_blocks.0.img_mod.1.weight img_in.weight", "a Qwen-Image model"),
        ("head.modulation blocks.0.self_attn.q.weight", "a Wan model"),
        ("patchify_proj.weight scale_shift_table", "an LTX video model"),
        ("double_stream_blocks.0.block.x", "a HiDream model"),
        ("net.x_embedder.proj.1.weight", "an Anima or Cosmos model"),
        ("model.diffusion_model.out.2.weight model.diffusion_model.x.SCB", "a checkpoint quantised by bitsandbytes"),
        ("features.0.weight choices.weight", "the judge of the demo checkpoints"),
        ("who.knows", "not a model of a known kind"),
    ],
)
def test_every_kind_is_told_by_its_names(names: str, what: str) -> None:
    with pytest.raises(OtherKind, match=f"^is {what}"):
        require_known(dict.fromkeys(names.split(), torch.zeros(1)))


@pytest.mark.parametrize(
    "names",
    [
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
        "unet.down_blocks.0.attentions.0.attn1.to_q.lora_A.weight",
        "unet.down_blocks.0.attn1.processor.to_q_lora.up.weight",
        "base_model.model.down_blocks.0.attn1.to_q.lora_A.weight",
        "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",
        "transformer.single_blocks.0.lora.down.weight",
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight",
        *(f"lora_unet_x.{ending}" for ending in ("hada_w1_a", "lokr_w1", "oft_blocks", "on_input", "diff", "w_norm")),
        "oft_unet_x.oft_blocks",
        "unet.conv_in.oft_R.weight",
        "unet.conv_in.diff_b",
    ],
)
def test_adapters_of_the_lora_family_are_told_by_their_names(names: str) -> None:
    assert lora.holds_one(names.split())


@pytest.mark.parametrize(
    "names",
    [
        "model.diffusion_model.out.2.weight lora_te_x.lora_up.weight",
        "ip_adapter.0.to_k_lora.down.weight image_proj.proj.weight",
        "lora_controlnet input_blocks.0.0.up",
        "down_blocks.0.resnets.0.conv1.weight unet.conv_in.weight",
        "params.diff who.knows",
    ],
)
def test_what_only_resembles_them_is_none(names: str) -> None:
    assert not lora.holds_one(names.split())


def test_a_lora_is_no_checkpoint() -> None:
    with pytest.raises(ModelFileError, match="is a LoRA, not a checkpoint: prompts name it"):
        require_known({"lora_unet_x.lora_up.weight": torch.zeros(1)})


def test_a_checkpoint_with_more_in_it_is_one_still() -> None:
    require_known(
        dict.fromkeys(["model.diffusion_model.x", "cond_stage_model.transformer.x", "lora_te_x", "emb_params"])
    )


def test_the_judge_that_comes_with_the_farm_is_told_for_what_it_is() -> None:
    found = inspect(JUDGE)
    assert (found.kind, found.reason) == (
        "other",
        "is the judge of the demo checkpoints: the farm cannot use these yet",
    )


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("x.gguf", b"GGUF\x03\0\0\0", "other", "is a GGUF file"),
        ("x.safetensors", b"GGUF\x03\0\0\0", "other", "is a GGUF file"),
        ("x.safetensors", b"PK\x03\x04rest", "checkpoint", "a pickle) with the wrong ending: call it x.ckpt"),
        ("x.ckpt", b"version https://git-lfs.github.com/spec/v1\n", "checkpoint", "is a Git LFS pointer"),
        ("x.safetensors", b"<!DOCTYPE html><html>", "checkpoint", "is a web page: its download failed"),
        ("x.ckpt", b'\n{"error": "not found"}', "checkpoint", "is a text (JSON)"),
    ],
)
def test_what_is_no_model_file_at_all_is_told_by_its_beginning(
    tmp_path: Path, name: str, content: bytes, kind: str, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found = inspect(tmp_path / name)
    assert found.kind == kind
    assert words in (found.reason or "")


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin"])
def test_a_safetensors_file_with_another_ending_is_read_and_told(tiny_path: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"tiny{ending}"
    path.write_bytes(tiny_path.read_bytes())
    path.with_suffix(".yaml").write_bytes(tiny_path.with_suffix(".yaml").read_bytes())
    found = inspect(path)
    assert found.reason is None
    assert found.note == "is a safetensors file with the wrong ending: call it tiny.safetensors"


def test_a_header_too_long_for_any_model_is_not_read(tmp_path: Path) -> None:
    count = 2**16 + 1
    places = {f"{n}": {"dtype": "U8", "shape": [], "data_offsets": [n, n + 1]} for n in range(count)}
    header = json.dumps(places).encode()
    (tmp_path / "many.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(count))
    assert "65,537 weights; at most 65,536 are read" in (inspect(tmp_path / "many.safetensors").reason or "")
    (tmp_path / "long.safetensors").write_bytes((2**25 + 1).to_bytes(8, "little") + b"{" + bytes(100))
    assert "header would be 33,554,433 bytes long" in (inspect(tmp_path / "long.safetensors").reason or "")
