"""Files of plain LoRA and LoCon: every form of names gives the same matrices, and none of a file is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support import full_size, lora_files
from tests.support.lora_files import FORMS, Adapter, Tensors
from tests.unit.engine.conftest import Small
from worker.engine.adapters.reading import modules
from worker.engine.adapters.reading.fitting import Product, fitted, networks_of, products, require_fit
from worker.engine.adapters.reading.load import load
from worker.engine.architectures.weights import Weights
from worker.engine.files.lora import names
from worker.engine.files.lora.reading import LoraFile, holds_one, of_weights, read

KINDS = ("sd1", "sdxl", pytest.param("sd2", marks=pytest.mark.nightly))


def matrices(file: LoraFile, weights: Weights) -> dict[tuple[str, str], Product]:
    networks = networks_of(weights)
    found = products(fitted(file, networks), networks)
    return {
        (name, path.removeprefix("text_model.")): one for name, layers in found.items() for path, one in layers.items()
    }


def assert_reads_as(stored: Tensors, adapter: Adapter, weights: Weights, *, with_alpha: bool = True) -> None:
    assert holds_one(stored)
    found = matrices(of_weights(stored, {}), weights)
    expected = {(name, path): one for name, layers in adapter.items() for path, one in layers.items()}
    assert found.keys() == expected.keys()
    for place, (down, up, alpha) in expected.items():
        assert torch.equal(found[place].down, down), place
        assert torch.equal(found[place].up, up.flatten(1)), place
        assert found[place].scale == (alpha / len(down) if with_alpha and alpha else 1), place


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_names_gives_the_same_matrices(small: Small, kind: str, form: str) -> None:
    weights = small(kind)
    adapter = lora_files.drawn(weights)
    assert_reads_as(FORMS[form](adapter, weights), adapter, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_read_from_the_oldest_files_of_diffusers(small: Small, kind: str) -> None:
    weights = small(kind)
    adapter = lora_files.drawn(weights, layers=lora_files.ATTENTION)
    stored = lora_files.diffusers_oldest(adapter)
    assert_reads_as(stored, adapter, weights, with_alpha=False)
    alone = {name.removeprefix("unet."): one for name, one in stored.items() if name.startswith("unet.")}
    assert_reads_as(alone, {"unet": adapter["unet"]}, weights, with_alpha=False)


def test_without_alpha_nothing_is_scaled(small: Small) -> None:
    adapter = lora_files.drawn(small("sd1"), with_alpha=False)
    assert_reads_as(lora_files.kohya(adapter), adapter, small("sd1"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_layers_of_a_network_have_one_name(small: Small, kind: str) -> None:
    for name, network in networks_of(small(kind)).items():
        paths = {path for path, one in network.named_modules() if list(one.parameters(recurse=False))}
        named = modules.by_name(network, name)
        assert set(named.values()) == paths
        assert len(named) >= len(paths)
        for path in paths:
            assert named[path.removeprefix("text_model.").replace(".", "_")] == path


# Whole files.


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Tensors, name: str = "one.safetensors", entries: dict[str, str] | None = None) -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file({key: one.contiguous() for key, one in content.items()}, path, entries)
        else:
            torch.save(content, path)
        return path

    return write


@pytest.mark.parametrize("name", ["one.safetensors", "one.pt", "one.ckpt"])
def test_a_file_becomes_factors_for_rows(small: Small, write: Callable[..., Path], name: str) -> None:
    weights, room = small("sd1"), list[int]()
    adapter = lora_files.drawn(weights)
    half = {key: one.half() for key, one in lora_files.kohya(adapter).items()}
    found = load(write(half, name), "ab" * 32, weights, room.append)
    assert (found.sha256, found.name, found.architecture) == ("ab" * 32, "one", "sd1")
    for network, layers in adapter.items():
        for path, (down, up, alpha) in layers.items():
            factors = found.networks[network][path]
            assert factors.rank in {4, 8}
            scaled = up.flatten(1).half().float() * (alpha or 0) / len(down)
            torch.testing.assert_close(factors.up @ factors.down.flatten(1), scaled @ down.half().float().flatten(1))
    assert found.bytes <= room[0] <= 2 * found.bytes
    require_fit(found, networks_of(weights))


@pytest.mark.parametrize("stabilised", [False, True])
def test_the_alphas_that_diffusers_states_for_the_whole_file_count(
    small: Small, write: Callable[..., Path], *, stabilised: bool
) -> None:
    weights = small("sd1")
    adapter = lora_files.drawn(weights, with_alpha=False)
    pattern = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": 3}
    stated = {"unet.lora_alpha": 8, "unet.alpha_pattern": pattern, "unet.use_rslora": stabilised}
    path = write(lora_files.peft(adapter), entries={"lora_adapter_metadata": json.dumps(stated)})
    for (network, layer), one in matrices(read(path), weights).items():
        alpha = 3 if layer in pattern else 8
        rank = len(one.down)
        divisor = rank**0.5 if stabilised else rank
        assert one.scale == (alpha / divisor if network == "unet" else 1), layer


PUBLISHED = {
    "sd1": {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
        ),
        "lora_unet_up_blocks_3_attentions_2_proj_out": "up_blocks.3.attentions.2.proj_out",
        "lora_unet_mid_block_resnets_1_time_emb_proj": "mid_block.resnets.1.time_emb_proj",
        "lora_unet_down_blocks_1_downsamplers_0_conv": "down_blocks.1.downsamplers.0.conv",
        "lora_unet_input_blocks_1_1_proj_in": "down_blocks.0.attentions.0.proj_in",
        "lora_unet_output_blocks_11_1_transformer_blocks_0_ff_net_2": (
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2"
        ),
        "lora_te_text_model_encoder_layers_11_mlp_fc2": "encoder.layers.11.mlp.fc2",
    },
    "sdxl": {
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k": (
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"
        ),
        "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_0_proj": (
            "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"
        ),
        "lora_unet_input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "lora_unet_input_blocks_7_0_skip_connection": "down_blocks.2.resnets.0.conv_shortcut",
        "lora_unet_middle_block_1_transformer_blocks_9_attn1_to_out_0": (
            "mid_block.attentions.0.transformer_blocks.9.attn1.to_out.0"
        ),
        "lora_unet_output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "lora_unet_output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
        "lora_unet_output_blocks_3_1_proj_in": "up_blocks.1.attentions.0.proj_in",
        "lora_unet_output_blocks_8_0_in_layers_2": "up_blocks.2.resnets.2.conv1",
        "lora_unet_label_emb_0_2": "add_embedding.linear_2",
        "lora_unet_time_embed_0": "time_embedding.linear_1",
        "lora_unet_out_2": "conv_out",
        "lora_te1_text_model_encoder_layers_11_self_attn_out_proj": "encoder.layers.11.self_attn.out_proj",
        "lora_te2_text_model_encoder_layers_31_self_attn_q_proj": "text_model.encoder.layers.31.self_attn.q_proj",
        "lora_te2_text_projection": "text_projection",
    },
}


@pytest.mark.parametrize("kind", ["sdxl", pytest.param("sd1", marks=pytest.mark.nightly)])
def test_names_as_they_are_published_lead_to_the_layers_of_full_sized_networks(kind: str) -> None:
    networks = full_size.networks(kind)
    for name, path in PUBLISHED[kind].items():
        parsed = names.parsed(f"{name}.lora_down.weight")
        assert parsed is not None
        assert modules.by_name(networks[parsed.network], parsed.network)[parsed.layer] == path
