"""Control nets from every form of file; what is no such file, or does not suit the checkpoint, is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.errors import ModelFileError, RenderError
from tests.support import control_nets, small_checkpoints
from tests.support.control_nets import FORMS, Form
from tests.unit.engine.conftest import Small
from worker.engine.adapters.control_nets import load
from worker.engine.architectures.reading import control_nets as reading
from worker.engine.devices import Device
from worker.engine.files.kinds import OtherKind
from worker.engine.loading.inspect import inspect

CPU = torch.float32


def weights_of(net: Any) -> dict[str, Tensor]:
    of_hints = {f"controlnet_cond_embedding.{name}": one for name, one in net.embedding.state_dict().items()}
    return dict(net.network.state_dict()) | of_hints


IN_EVERY_RUN = {("sd1", "original"), ("sd1", "folder"), ("sdxl", "pickle")}


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        pytest.param(kind, form, marks=() if (kind, form) in IN_EVERY_RUN else pytest.mark.nightly)
        for kind in ("sd1", "sd2", "sdxl")
        for form in FORMS
    ],
)
def test_every_form_of_a_net_holds_the_same_weights(
    kind: str, form: Form, small: Small, cpu: Device, tmp_path: Path
) -> None:
    drawn = control_nets.build(small_checkpoints.build(kind))
    found = load(control_nets.write(drawn, tmp_path / "net", form), cpu, CPU)
    expected = drawn.state_dict()
    assert weights_of(found).keys() == expected.keys()
    assert all(torch.equal(one, expected[name]) for name, one in weights_of(found).items())
    config = dict(found.network.config)  # type: ignore[arg-type]  # diffusers' own
    for name in ("attention_head_dim", "transformer_layers_per_block", "cross_attention_dim", "addition_embed_type"):
        assert config[name] == drawn.config[name] or form != "folder"
    assert (found.name, found.types, found.is_pooled) == ("net", 0, False)
    assert found.bytes == sum(one.numel() * 4 for one in expected.values())
    found.require_fit(small(kind))


def test_a_union_is_read_from_a_file_and_from_a_folder(small: Small, cpu: Device, tmp_path: Path) -> None:
    drawn = control_nets.build_union(small_checkpoints.build("sdxl"))
    for form in ("diffusers", "folder"):
        found = load(control_nets.write(drawn, tmp_path / form, form), cpu, CPU)  # type: ignore[arg-type]  # both are forms
        assert found.types == control_nets.TYPES
        found.require_fit(small("sdxl"))


def test_a_net_beside_a_whole_checkpoint_in_one_file_is_read_alone(cpu: Device, tmp_path: Path) -> None:
    drawn = small_checkpoints.build("sd1")
    path = control_nets.write(control_nets.build(drawn), tmp_path / "net", "original")
    whole = load_file(path) | {
        name: one.contiguous() for name, one in small_checkpoints.original_tensors(drawn).items()
    }
    save_file(whole, path)
    assert (
        load(path, cpu, CPU).bytes
        == load(control_nets.write(control_nets.build(drawn), tmp_path / "one"), cpu, CPU).bytes
    )


def test_a_folder_says_that_a_net_is_pooled_and_sees_blue_first(cpu: Device, tmp_path: Path) -> None:
    drawn = control_nets.build(small_checkpoints.build("sd1"))
    drawn.register_to_config(global_pool_conditions=True, controlnet_conditioning_channel_order="bgr")
    found = load(control_nets.write(drawn, tmp_path / "net", "folder"), cpu, CPU)
    assert found.is_pooled
    pixels = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(found.embedding(pixels), drawn.controlnet_cond_embedding(pixels.flip(1)))


def test_a_yaml_beside_a_file_says_how_many_heads_it_has_and_that_it_is_pooled(cpu: Device, tmp_path: Path) -> None:
    path = control_nets.write(control_nets.build(small_checkpoints.build("sd1")), tmp_path / "net", "original")
    path.with_suffix(".yaml").unlink()
    assert reading.description(path) is None
    assert reading.read(path).config["attention_head_dim"] == 4  # as the demo checkpoint, which is as wide
    params = {"num_heads": 2, "global_average_pooling": True}
    stated = {"model": {"params": {"control_stage_config": {"params": params}}}}
    path.with_suffix(".yaml").write_text(json.dumps(stated), encoding="utf-8")
    assert len(reading.description(path) or "") == 64
    assert reading.read(path).config["attention_head_dim"] == 2
    assert load(path, cpu, CPU).is_pooled


@pytest.mark.parametrize("text", ["model: {params: {control_stage_config: {params: {num_heads: 1.5}}}}", "a: b", "- 1"])
def test_a_yaml_that_describes_no_net_is_refused(text: str, tmp_path: Path) -> None:
    path = control_nets.write(control_nets.build(small_checkpoints.build("sd1")), tmp_path / "net", "bare")
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"heads|describes no control net"):
        reading.read(path)


# Nets for other checkpoints.


def test_a_net_of_another_architecture_is_refused_with_both_sizes(small: Small, cpu: Device, tmp_path: Path) -> None:
    net = load(control_nets.write(control_nets.build(small_checkpoints.build("sd2")), tmp_path / "edges"), cpu, CPU)
    for kind in ("sd1", "sdxl"):
        with pytest.raises(
            RenderError, match=r"control net edges was made for .* texts of 128.*this checkpoint's has .* of"
        ):
            net.require_fit(small(kind))
    net.require_fit(small("sd2-velocity"))


# Files of strangers.

Change = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def without(name: str) -> Change:
    return lambda weights: {key: one for key, one in weights.items() if key != name}


def shaped(name: str, *shape: int) -> Change:
    return lambda weights: weights | {name: torch.zeros(shape)}


CHANGES: dict[str, tuple[Change, str]] = {
    "a missing weight": (without("controlnet_down_blocks.2.weight"), "weights are missing, first controlnet_down"),
    "a weight too many": (shaped("other.weight", 1), "has 1 weights too many, first other.weight"),
    "a wrong shape": (shaped("controlnet_mid_block.weight", 3, 3, 1, 1), r"shape \(3, 3, 1, 1\), not"),
    "no first layer": (without("conv_in.weight"), "conv_in.weight is missing or misshapen"),
    "no way down": (
        lambda weights: {k: v for k, v in weights.items() if "down_blocks.0.res" not in k},
        "is a control net without its way down",
    ),
    "other inputs": (shaped("conv_in.weight", 64, 9, 3, 3), "in_channels is 9; 4 is supported"),
    "other hints": (shaped("controlnet_cond_embedding.conv_in.weight", 8, 1, 3, 3), "conditioning_channels is 1; 3"),
    "an absurd width": (shaped("down_blocks.0.resnets.0.conv1.weight", 2**21, 0, 3, 3), "missing or misshapen"),
    "flat hints": (shaped("controlnet_cond_embedding.conv_in.weight", 8), "missing or misshapen"),
    "no text": (shaped("mid_block.attentions.0.proj_in.weight", 8), "missing or misshapen"),
    "an empty union": (shaped("task_embedding", 6, 64), "missing or misshapen"),
    "a difference": (shaped("difference", 1), "is a difference of control nets"),
    "a Control-LoRA": (shaped("lora_controlnet", 1), "is a Control-LoRA"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return load_file(
        control_nets.write(control_nets.build(small_checkpoints.build("sd1")), tmp_path_factory.mktemp("n") / "n")
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = control_nets.build(small_checkpoints.build("sd1"))
    return control_nets.write(drawn, tmp_path_factory.mktemp("folder") / "net", "folder")


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_is_no_whole_net_is_refused(
    name: str, plain: dict[str, Tensor], cpu: Device, tmp_path: Path
) -> None:
    change, reason = CHANGES[name]
    save_file(dict(change(dict(plain))), path := tmp_path / "net.safetensors")
    with pytest.raises((ModelFileError, OtherKind), match=reason):
        load(path, cpu, CPU)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_class_embeds": 3}, "num_class_embeds is 3"),
        ({"class_embed_type": "timestep"}, "class_embed_type is timestep"),
        ({"conditioning_channels": 4}, "conditioning_channels is 4; 3 is supported"),
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000"),
        ({"down_block_types": ["SkipDownBlock2D"] * 3}, "down_block_types"),
        ({"down_block_types": "DownBlock2D"}, "down_block_types"),
        ({"down_block_types": [{"a": 1}]}, "down_block_types"),
        ({"block_out_channels": [64, 64]}, "describes no network"),
        ({"attention_head_dim": "x"}, "attention_head_dim|describes no network"),
        ({"controlnet_conditioning_channel_order": "grb"}, "channel_order is grb"),
        ({"mid_block_type": "Other"}, "describes no network"),
    ],
    ids=str,
)
def test_a_folder_of_another_form_is_refused(
    changes: dict[str, Any], reason: str, folder: Path, cpu: Device, tmp_path: Path
) -> None:
    path = shutil.copytree(folder, tmp_path / "net", copy_function=os.link)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").unlink()
    (path / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(ModelFileError, match=reason):
        load(path, cpu, CPU)


# The scan.


def test_a_scan_says_of_a_net_what_it_steers_and_what_it_fits(tmp_path: Path) -> None:
    for kind, context in (("sd1", 64), ("sdxl", 192)):
        drawn = control_nets.build(small_checkpoints.build(kind))
        for form in ("original", "folder"):
            found = inspect(control_nets.write(drawn, tmp_path / f"{kind}-{form}", form))  # type: ignore[arg-type]
            assert (found.kind, found.architecture, found.reason) == ("controlnet", kind, None)
            assert found.details == {"width": 64, "context": context}
            assert found.networks == {"controlnet": {"float16": sum(one.numel() for one in drawn.parameters())}}
            assert (found.description is not None) == (form == "original" and kind == "sd1")
    union = control_nets.build_union(small_checkpoints.build("sdxl"))
    assert inspect(control_nets.write(union, tmp_path / "union")).details["types"] == control_nets.TYPES


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04", b"\x10" + bytes(7) + b'{"a": 1}      '])
def test_a_damaged_file_is_refused_with_the_reason(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(content)
    assert inspect(tmp_path / "net.safetensors").reason


def test_a_cut_off_net_is_refused_with_what_is_missing(plain: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(plain, path := tmp_path / "net.safetensors")
    path.write_bytes(path.read_bytes()[:200_000])
    assert "weights are missing" in (inspect(path).reason or "")


def test_a_pickle_that_would_execute_is_refused_unread(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"control_model.input_hint_block.0.weight": Evil()}, path := tmp_path / "net.pth")
    assert inspect(path).reason
    assert not (tmp_path / "made").exists()
