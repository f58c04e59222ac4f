"""Where the networks of model files lie: equal networks have equal digests, whatever file holds them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.models.hashing import hashed
from tests.support import checkpoints, small_checkpoints
from tests.support.checkpoints import located, write_tiny, write_twin

BY_DAY = ("sd1", "sd2", "sdxl")  # the others hold their networks in the same layouts
EVERY_KIND = [
    kind if kind in BY_DAY else pytest.param(kind, marks=pytest.mark.nightly) for kind in small_checkpoints.KINDS
]


def digests(path: Path) -> dict[str, str | None]:
    """Return the digest of each network of a model file."""
    return {name: one.digest for name, one in hashed(path, located(path))[1].items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "base.safetensors")


def test_networks_that_are_equal_in_two_files_have_the_same_digest_and_others_do_not(base: Path, tmp_path: Path):
    first, second = digests(base), digests(write_twin(tmp_path / "twin.safetensors", base))
    assert None not in first.values()
    assert [name for name in first if first[name] == second[name]] == ["text_encoder", "vae"]


def test_a_vae_alone_equals_the_one_in_its_checkpoint(base: Path, tmp_path: Path):
    prefix = "first_stage_model."
    alone = {name.removeprefix(prefix): one for name, one in load_file(base).items() if name.startswith(prefix)}
    save_file(alone, tmp_path / "a.vae.safetensors")
    assert digests(tmp_path / "a.vae.safetensors") == {"vae": digests(base)["vae"]}


def test_a_table_of_positions_makes_no_difference(base: Path, tmp_path: Path):
    name = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    save_file(load_file(base) | {name: torch.arange(77)[None]}, tmp_path / "base.safetensors")
    (tmp_path / "base.yaml").write_bytes(base.with_suffix(".yaml").read_bytes())
    assert digests(tmp_path / "base.safetensors") == digests(base)


def test_other_numbers_another_format_or_one_other_bit_is_another_network(base: Path, tmp_path: Path):
    whole, path, own = load_file(base), tmp_path / "base.safetensors", digests(base)
    (tmp_path / "base.yaml").write_bytes(base.with_suffix(".yaml").read_bytes())
    text = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
    for name in ("first_stage_model.decoder.conv_in.bias", text):
        changed = whole[name].clone()
        changed.view(torch.int16)[0] ^= 1
        save_file(whole | {name: changed}, path)
        differ = [part for part, digest in digests(path).items() if digest != own[part]]
        assert differ == ["vae" if name.startswith("first") else "text_encoder"]
    save_file({name: one.to(torch.bfloat16) for name, one in whole.items()}, path)
    assert set(digests(path).values()).isdisjoint(own.values())
    assert {format_name for place in located(path).values() for format_name in place.stored} == {"bfloat16"}


def test_a_pickle_has_sizes_and_no_digests(base: Path, tmp_path: Path):
    path = tmp_path / "base.ckpt"
    torch.save({"state_dict": load_file(base)}, path)
    (tmp_path / "base.yaml").write_bytes(base.with_suffix(".yaml").read_bytes())
    assert set(digests(path).values()) == {None}
    found, same = hashed(path, located(path))[1], hashed(base, located(base))[1]
    assert {name: one.numbers for name, one in found.items()} == {name: one.numbers for name, one in same.items()}


def test_what_is_no_checkpoint_and_no_vae_has_none(tmp_path: Path):
    save_file({"a.lora_up.weight": torch.zeros(4, 4)}, tmp_path / "lora.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\0" * 40)
    save_file(checkpoints.tiny_decoder(), tmp_path / "taesd.safetensors")
    assert [located(tmp_path / f"{name}.safetensors") for name in ("lora", "torn", "taesd")] == [{}, {}, {}]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_single_file_and_a_folder_hold_the_same_encoders_and_vae(kind: str, small_file, built_small, tmp_path: Path):
    folder = small_checkpoints.write_folder(built_small(kind), tmp_path / "folder", shard_bytes=2**20)
    of_file, of_folder = digests(small_file(kind)), digests(folder)
    shared = [name for name in of_file if name != "unet"]  # whose configuration is written in several ways
    assert [of_file[name] for name in shared] == [of_folder[name] for name in shared]
    assert None not in of_file.values()
