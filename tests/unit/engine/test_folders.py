"""Folders of diffusers: what is missing from them, and values that no network has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.refused_files import reason
from worker.engine.devices import Device
from worker.engine.loading import load
from worker.engine.loading.inspect import inspect

Small = Callable[[str], Path]


def configure(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2", "unet", "scheduler"])
def test_a_missing_folder_is_named(name: str, small_folder: Small, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder("sdxl"), tmp_path / "folder"))
    shutil.rmtree(folder / name)
    assert reason(folder) == f"its folder {name}/ is missing: complete the download"
    if name != "text_encoder_2":
        other = Path(shutil.copytree(small_folder("sd2-inpainting"), tmp_path / "other"))
        shutil.rmtree(other / name)
        assert reason(other) == f"its folder {name}/ is missing: complete the download"


@pytest.mark.parametrize("listed", [[None, None], None, "absent"])
def test_the_index_decides_whether_a_folder_is_the_refiner(listed: object, small_folder: Small, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder("sdxl-refiner"), tmp_path / "folder"))
    shutil.copytree(small_folder("sdxl") / "text_encoder", folder / "text_encoder")
    index = json.loads((folder / "model_index.json").read_text()) | {"text_encoder": listed}
    if listed == "absent":
        del index["text_encoder"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert (inspect(folder).architecture, inspect(folder).reason) == ("sdxl-refiner", None)


def test_a_missing_vae_that_the_index_lists_is_noted(small_folder: Small, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder("sdxl"), tmp_path / "folder"))
    shutil.rmtree(folder / "vae")
    found = inspect(folder)
    assert (found.reason, found.has_vae) == (None, False)
    assert found.note == "its folder vae/ is missing, which its model_index.json lists"
    configure(folder / "model_index.json", vae=[None, None])
    assert inspect(folder).note is None


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("sdxl", 1024),
        ("sdxl-refiner", 1024),
        ("sd1", 512),
        pytest.param("sd2", 512, marks=pytest.mark.nightly),
        pytest.param("sd2-velocity", 768, marks=pytest.mark.nightly),
        ("sd2-inpainting", 512),
    ],
)
def test_a_folder_may_leave_out_its_native_size(kind: str, size: int, small_folder: Small, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder(kind), tmp_path / kind))
    configure(folder / "unet" / "config.json", sample_size=None)
    assert (inspect(folder).reason, inspect(folder).native_size) == (None, size)
    config = json.loads((folder / "unet" / "config.json").read_text())
    del config["sample_size"]
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    assert inspect(folder).native_size == size


SECRET = "tell-nobody"
HOSTILE = {
    "text_encoder": [
        "text_config", "hidden_act", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "max_position_embeddings", "projection_dim", "layer_norm_eps",
    ],
    "unet": [
        "act_fn", "down_block_types", "up_block_types", "mid_block_type", "block_out_channels", "layers_per_block",
        "norm_eps", "norm_num_groups", "attention_head_dim", "transformer_layers_per_block", "cross_attention_dim",
        "class_embed_type", "encoder_hid_dim_type", "num_class_embeds", "in_channels", "out_channels", "sample_size",
        "addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim", "conv_in_kernel",
        "time_embedding_type", "time_embedding_act_fn", "dropout", "num_attention_heads",
    ],
    "vae": [
        "act_fn", "down_block_types", "block_out_channels", "layers_per_block", "norm_num_groups", "latent_channels",
        "in_channels", "scaling_factor",
    ],
    "scheduler": ["beta_schedule", "beta_start", "num_train_timesteps", "prediction_type", "trained_betas"],
}  # fmt: skip


UNREAD = {("sd1", "addition_time_embed_dim"), ("sd1", "projection_class_embeddings_input_dim")}


VALUES: list[object] = [[SECRET], {SECRET: 1}, float("nan"), []]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("sdxl", 1),
        pytest.param("sdxl", len(VALUES), marks=pytest.mark.nightly),
        pytest.param("sd1", len(VALUES), marks=pytest.mark.nightly),
    ],
)
def test_a_hostile_value_of_a_configuration_is_refused_in_plain_words(
    kind: str, name: str, count: int, small_folder: Small, tmp_path: Path
) -> None:
    """By day each key has one of the values in turn, by night all of them."""
    folder = Path(shutil.copytree(small_folder(kind), tmp_path / kind))
    file = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
    config = file.read_text()
    for place, key in enumerate(HOSTILE[name]):
        for value in (VALUES[place % 3 :] + VALUES[: place % 3])[:count]:
            configure(file, **{key: value})
            found = inspect(folder).reason
            assert found or value == [] or (kind, key) in UNREAD, f"{key} is not checked"
            assert SECRET not in (found or ""), key
            assert not (found or "").startswith("cannot be read"), (key, found)
            file.write_text(config)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("text_encoder", {"text_config": [1]}, "its text encoder's text_config is a list, not an object"),
        ("text_encoder", {"hidden_act": ["gelu"]}, "its text encoder's hidden_act is a list; gelu and quick_gelu"),
        ("text_encoder_2", {"text_config": "x"}, "its text encoder's text_config is x, not an object"),
        ("text_encoder", {"hidden_size": 0}, "hidden_size is 0, not a whole number from 1"),
        ("unet", {"act_fn": "evil"}, "the configuration of its U-Net describes no network (ValueError)"),
        ("unet", {"class_embed_type": "identity"}, "its U-Net's class_embed_type is identity: only U-Nets without it"),
        ("unet", {"norm_eps": float("nan")}, "its configuration's norm_eps is nan: no such network"),
    ],
)
def test_a_value_that_no_network_has_is_named(
    file: str, changes: dict[str, object], words: str, small_folder: Small, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_folder("sdxl"), tmp_path / "folder"))
    configure(folder / file / "config.json", **changes)
    assert words in reason(folder)


def test_a_configuration_imports_no_other_class_of_the_library(
    small_folder: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers  # noqa: PLC0415 - only here

    folder = Path(shutil.copytree(small_folder("sdxl"), tmp_path / "folder"))
    for name in ("unet", "vae"):
        configure(folder / name / "config.json", _class_name="FluxPipeline", _use_default_values=["act_fn"])
    looked_up = []
    monkeypatch.setattr(type(diffusers), "__getattr__", lambda _, name: looked_up.append(name))
    assert inspect(folder).reason is None
    assert "FluxPipeline" not in looked_up


@pytest.mark.parametrize("name", ["../secret", "a" * 5000, "x\x00y", "\ud800"])
def test_a_file_that_an_index_must_not_list_is_refused(name: str, small_folder: Small, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder("sdxl"), tmp_path / "folder"))
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.unlink()
    index = folder / "unet" / f"{weights.name}.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": name}}))
    assert reason(folder) == f"unet/{index.name} lists no files of that folder"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{{{SECRET}", "unet/config.json is not JSON: an error in line 1, column 2"),
        ("[" * 30_000, "unet/config.json is not JSON (RecursionError)"),
        (f'{{"x": {"9" * 5000}}}', "unet/config.json is not JSON (ValueError)"),
    ],
)
def test_a_configuration_that_is_no_json_is_named(
    content: str, words: str, small_folder: Small, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_folder("sdxl"), tmp_path / "folder"))
    (folder / "unet" / "config.json").write_text(content)
    assert reason(folder) == words


def test_a_guidance_embedding_of_a_folder_is_left_out_and_noted(
    small_folder: Small, tmp_path: Path, cpu: Device
) -> None:
    folder = Path(shutil.copytree(small_folder("sdxl"), tmp_path / "folder"))
    configure(folder / "unet" / "config.json", time_cond_proj_dim=256)
    (file,) = (folder / "unet").glob("*.safetensors")
    save_file(load_file(file) | {"time_embedding.cond_proj.weight": torch.ones(64, 256)}, file)
    found = inspect(folder)
    assert (found.reason, found.note) == (None, "its guidance embedding is not used")
    assert load.load(folder, cpu, torch.float32).unet.time_embedding.cond_proj is None
