"""What the catalogue learns about files of the LoRA family, and which of them are refused, with the reason."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.errors import ModelFileError
from tests.support import lora_files, lycoris_files
from tests.unit.engine.conftest import Small
from worker.engine.adapters.low_rank import LADDER
from worker.engine.adapters.merging import merged
from worker.engine.adapters.reading.fitting import fitted, networks_of, require_fit
from worker.engine.adapters.reading.load import load, load_deltas
from worker.engine.files.lora.algorithms import MOST_RANK, RANK_BY_ROWS
from worker.engine.files.lora.reading import of_weights
from worker.engine.loading.inspect import Inspection, inspect

Tensors = Mapping[str, Tensor]
Write = Callable[..., Path]
LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
SHA256 = "ab" * 32


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: Tensors, name: str = "one.safetensors", entries: dict[str, str] | None = None) -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file({key: one.contiguous() for key, one in content.items()}, path, entries)
        else:
            torch.save(dict(content), path)
        return path

    return write


def pair(outputs: int = 64, inputs: int = 64, rank: int = 4, layer: str = LAYER, **more: Tensor) -> dict[str, Tensor]:
    factors = {"lora_down.weight": torch.ones(rank, inputs), "lora_up.weight": torch.ones(outputs, rank)}
    return {f"{layer}.{name}": one for name, one in (factors | more).items()}


# The facts that the list shows.


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("form", ["kohya", "peft"])
def test_a_usable_file_says_for_what_it_is(small: Small, write: Write, kind: str, form: str) -> None:
    weights = small(kind)
    adapter = lora_files.drawn(weights)
    found = inspect(write(lora_files.kohya(adapter) if form == "kohya" else lora_files.peft(adapter)))
    assert (found.kind, found.architecture, found.reason, found.note) == ("lora", kind, None, None)
    rank = max(len(one.down) for layers in adapter.values() for one in layers.values())
    sizes = {"width": 64, "context": weights.unet.config["cross_attention_dim"]}
    expected = {"form": "rows", "algorithm": "LoCon", "rank": rank, **sizes}
    assert {name: found.details.get(name) for name in expected} == expected
    assert found.networks.keys() == adapter.keys()


def test_a_file_in_the_original_layouts_names_is_of_the_same_width(small: Small, write: Write) -> None:
    for kind in ("sd1", "sdxl"):
        adapter = lora_files.drawn(small(kind), layers=lora_files.ATTENTION)
        found = inspect(write(lora_files.kohya_original(adapter, small(kind))))
        assert (found.details["width"], found.details["algorithm"]) == (64, "LoRA")


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("LoHa", "LoHa"), ("LoKr, DoRA", "LoKr"), ("DoRA", "DoRA"), ("BOFT", "BOFT"), ("OFT", "OFT"), ("IA3", "IA3"),
     ("GLoRA", "GLoRA"), ("norms", "norms"), ("full differences", "full difference"), ("LoCon, Tucker", "LoCon")],
)  # fmt: skip
def test_other_algorithms_are_named_and_merged(small: Small, write: Write, name: str, algorithm: str) -> None:
    found = inspect(write(lycoris_files.made(small("sd1"), name).tensors))
    assert (found.kind, found.reason, found.details["form"]) == ("lora", None, "merged")
    assert found.details["algorithm"] == algorithm
    assert found.details.get("width", 64) == 64


@pytest.mark.parametrize(
    ("stored", "architecture", "context"),
    [
        (pair(320, 768, layer="lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"), "sd1", 768),
        (pair(320, 1024, layer="lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"), "sd2", 1024),
        (pair(640, 2048, layer="lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"), "sdxl", 2048),
        (pair(768, 768, layer="lora_te_text_model_encoder_layers_0_self_attn_q_proj"), "sd1", 768),
        (pair(768, 768, layer="lora_te1_text_model_encoder_layers_0_self_attn_q_proj"), "sdxl", None),
        (pair(1280, 1280, layer="lora_te2_text_model_encoder_layers_0_self_attn_q_proj"), "sdxl", None),
        (pair(640, 640, layer="lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q"), "sdxl", None),
        (pair(320, 320), None, None),
    ],
)
def test_real_sizes_say_the_architecture(
    write: Write, stored: Tensors, architecture: str | None, context: int | None
) -> None:
    found = inspect(write(stored))
    assert (found.architecture, found.details.get("context"), found.reason) == (architecture, context, None)


@pytest.mark.parametrize(
    ("entries", "architecture"),
    [
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd2"),
        ({"ss_base_model_version": "other"}, None),
    ],
)
def test_the_header_says_the_architecture_where_sizes_do_not(
    write: Write, entries: dict[str, str], architecture: str | None
) -> None:
    assert inspect(write(pair(), entries=entries)).architecture == architecture


def test_the_header_gives_words_name_and_hash(write: Write) -> None:
    tags = {
        "10_cats": {"cat": 10, "sea at night": 3, "a\nb": 2, "x" * 99: 50},
        "2_more": {"sea at night": 9, "bad": "x"},
    }
    entries = {
        "ss_tag_frequency": json.dumps(tags), "modelspec.trigger_phrase": "wtrclr", "ss_output_name": "Water",
        "sshs_model_hash": "ABCDEF0123456789" * 4,
    }  # fmt: skip
    details = inspect(write(pair(), entries=entries)).details
    assert details["trigger_words"] == ["wtrclr", "sea at night", "cat", "a b"]
    assert (details["alias"], details["short_hash"]) == ("Water", "abcdef012345")


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": [1]}', '{"a": {"b": 1e999}}', "[" * 100_000, '{"a":{"":1}}'])
def test_a_header_of_nonsense_gives_no_words(write: Write, text: str) -> None:
    found = inspect(write(pair(), entries={"ss_tag_frequency": text, "lora_adapter_metadata": text}))
    assert found.reason is None
    assert "trigger_words" not in found.details


def test_without_a_stated_hash_it_is_that_of_the_bytes_behind_the_header(write: Write) -> None:
    path = write(pair(), entries={"sshs_model_hash": "none"})
    content = path.read_bytes()
    behind = content[8 + struct.unpack("<Q", content[:8])[0] :]
    assert inspect(path).details["short_hash"] == hashlib.sha256(behind).hexdigest()[:12]
    assert "short_hash" not in inspect(write(pair(), "one.pt")).details


def test_embeddings_that_came_with_it_are_told(write: Write) -> None:
    bundled = {f"bundle_emb.{name}.string_to_param.*": torch.zeros(2, 768) for name in ("cat", "dog")}
    found = inspect(write(pair() | bundled))
    assert found.reason is None
    assert found.note == "brings 2 embeddings of its own (cat, dog), which are used only from files of their own"


def test_a_rank_beyond_the_ladder_is_merged(write: Write) -> None:
    assert LADDER[-1] == RANK_BY_ROWS
    assert inspect(write(pair(rank=128))).details["form"] == "rows"
    assert inspect(write(pair(rank=129))).details == {
        "form": "merged", "algorithm": "LoRA", "rank": 129, "width": 64,
        "short_hash": inspect(write(pair(rank=129))).details["short_hash"],
    }  # fmt: skip


# Other architectures.


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux"),
        ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", "Flux"),
        ("lora_unet_joint_blocks_0_context_block_attn_qkv.lora_up.weight", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight", "Stable Diffusion 3"),
        ("diffusion_model.layers.0.attention.to_q.lora_A.weight", "Z-Image or Lumina 2"),
        ("transformer.noise_refiner.0.attention.to_q.lora_A.weight", "Z-Image or Lumina 2"),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight", "Stable Diffusion 3 or Flux"),
        ("transformer_blocks.0.img_mlp.net.2.lora_A.weight", "Qwen-Image"),
        ("diffusion_model.blocks.0.cross_attn.q.lora_down.weight", "Wan"),
        ("transformer.new_blocks.0.to_q.lora_A.weight", "a transformer"),
        ("unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_A.weight", "the motion of"),
    ],
)
def test_one_for_another_architecture_is_named(write: Write, name: str, family: str) -> None:
    found = inspect(write({name: torch.zeros(4, 4)}))
    assert found.kind == "lora"
    assert (found.reason or "").startswith(f"is a LoRA for {family}")
    assert (found.reason or "").endswith("those for Stable Diffusion 1, 2 and XL are used")


# Files that cannot be used.

UP, DOWN = f"{LAYER}.lora_up.weight", f"{LAYER}.lora_down.weight"
HADA = {
    f"{LAYER}.hada_w{n}_{side}": torch.ones(64, 4) if side == "a" else torch.ones(4, 64) for n in "12" for side in "ab"
}
REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "unknown weight": (
        pair() | {"lora_unet_conv_in.who": torch.ones(1)},
        "has 1 of 3 weights (first lora_unet_conv_in.who) that belong to no layer",
    ),
    "no network": (
        pair() | {"who.lora_up.weight": torch.ones(1)},
        "(first who.lora_up.weight) that belong to no layer",
    ),
    "no layer": (
        pair() | pair(layer="lora_unet_stages_0_attn1_to_q"),
        "has 2 of 4 weights (first lora_unet_stages_0_attn1_to_q.lora_down.weight, lora_unet_stages_0",
    ),
    "without up": ({DOWN: torch.ones(4, 64)}, f"its layer {LAYER} has no up"),
    "alpha alone": ({f"{LAYER}.alpha": torch.ones(())}, "has alpha alone, which changes nothing"),
    "unlike ranks": (
        {DOWN: torch.ones(4, 64), UP: torch.ones(64, 5)},
        "has factors that do not multiply: up (64, 5), down (4, 64)",
    ),
    "flat": ({DOWN: torch.ones(4), UP: torch.ones(64, 4)}, "has factors that are not matrices: up (64, 4), down (4,)"),
    "flat around a core": (
        HADA | {f"{LAYER}.hada_w1_a": torch.ones(4), f"{LAYER}.hada_t1": torch.ones(4, 4, 3, 3)},
        "are not matrices",
    ),
    "empty": ({DOWN: torch.ones(0, 64), UP: torch.ones(64, 0)}, "of the shape"),
    "absurd rank": (pair(rank=MOST_RANK + 1), f"is of rank {MOST_RANK + 1}: at most {MOST_RANK} is read"),
    "no number": (pair(alpha=torch.tensor(float("nan"))), "has an alpha of nan, not a finite number"),
    "endless": (
        pair(alpha=torch.tensor(float("inf"), dtype=torch.bfloat16)),
        "has an alpha of inf, not a finite number",
    ),
    "several alphas": (pair(alpha=torch.ones(2)), "has a alpha of 2 numbers; 1 is right"),
    "two algorithms": (pair() | HADA, "is LoRA, and has hada_w1_a and hada_w1_b and hada_w2_a and hada_w2_b too"),
    "half a LoHa": ({name: one for name, one in HADA.items() if "w2_b" not in name}, "has no hada_w2_b"),
    "unlike products": (HADA | {f"{LAYER}.hada_w2_b": torch.ones(4, 32)}, "has two products of unequal sizes"),
    "core": (
        pair(**{"lora_mid.weight": torch.ones(3, 4, 3, 3)}),
        "has a mid of the shape (3, 4, 3, 3); [4, 4, height, width] is right",
    ),
    "lengths": (pair(dora_scale=torch.ones(5, 7)), "has a dora_scale of 35 numbers for 64 outputs"),
    "blocks": ({f"{LAYER}.oft_blocks": torch.ones(4, 16, 15)}, "[blocks, size, size] is right"),
    "twice": (
        pair() | {"lora_te_final_layer_norm.diff": torch.ones(1), "lora_te1_final_layer_norm.diff": torch.ones(1)},
        "has diff of one layer twice",
    ),
    "long name": (pair() | {"lora_unet_" + "x" * 600 + ".alpha": torch.ones(1)}, "that belong to no layer"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["one.safetensors", "one.pt"])
def test_what_cannot_be_right_is_refused_with_the_reason(write: Write, case: str, name: str) -> None:
    content, reason = REFUSED[case]
    path = write(content, name)
    found = inspect(path)
    assert found.kind == "lora"
    assert reason in (found.reason or "")
    assert len(found.reason or "") <= 500
    with pytest.raises(ModelFileError) as error:
        load_deltas(path, SHA256)
    assert reason in str(error.value)


def test_weights_stored_as_whole_numbers_are_refused(write: Write) -> None:
    for name, reason in {
        "lora_up.weight": "is stored as int8",
        "hada_w1_a": "has a hada_w1_a of int8, not of floats",
    }.items():
        stored = HADA if "hada" in name else pair()
        path = write(stored | {f"{LAYER}.{name}": torch.ones(64, 4, dtype=torch.int8)})
        assert reason in (inspect(path).reason or "")


@pytest.mark.parametrize("name", ["one.safetensors", "one.pt"])
def test_one_that_was_cut_off_says_so(write: Write, name: str) -> None:
    path = write(pair(), name)
    os.truncate(path, path.stat().st_size - 100)
    assert "damaged" in (inspect(path).reason or "")
    with pytest.raises(ModelFileError, match="damaged"):
        load_deltas(path, SHA256)


def test_it_runs_nothing_that_a_pickle_holds(tmp_path: Path, write: Write) -> None:
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    path = tmp_path / "one.pt"
    torch.save({**pair(), "more": Hostile()}, path)
    assert "holds code or objects" in (inspect(path).reason or "")
    with pytest.raises(ModelFileError, match="holds code or objects"):
        load_deltas(path, SHA256)
    assert not (tmp_path / "ran").exists()


def test_a_million_weights_are_refused_before_they_are_read(tmp_path: Path) -> None:
    entry = b'"lora_unet_x.alpha":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
    path = tmp_path / "million.safetensors"
    path.write_bytes(struct.pack("<Q", 10**6 * len(entry)) + b"{" + 10**6 * entry)
    tracemalloc.start()
    assert "header would be" in (inspect(path).reason or "")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.nightly
def test_as_many_layers_as_are_read_take_seconds(write: Write) -> None:
    content = {f"lora_unet_down_blocks_{n}.alpha": torch.zeros(()) for n in range(2**16 - 2)} | pair()
    path = write(content)
    began = time.process_time()
    assert "has alpha alone, which changes nothing" in (inspect(path).reason or "")
    assert time.process_time() - began < 30


# Checkpoints that they do not fit.


def test_a_layer_that_is_not_there_is_named(small: Small) -> None:
    file = of_weights(pair(layer="lora_unet_down_blocks_7_attentions_0_proj_in"), {})
    with pytest.raises(ModelFileError) as error:
        fitted(file, networks_of(small("sd1")))
    missing = "1 of 1 layers (first lora_unet_down_blocks_7_attentions_0_proj_in)"
    assert str(error.value) == f"does not fit this checkpoint, which lacks {missing}"


def test_a_layer_of_another_size_is_named_with_both_sizes(small: Small, write: Write) -> None:
    weights = small("sd1")
    path = write(pair(320, 320))
    with pytest.raises(ModelFileError) as error:
        load(path, SHA256, weights)
    sizes = "has down (4, 320), up (320, 4); the checkpoint's has weight (64, 64)"
    assert str(error.value) == f"does not fit this checkpoint: its layer {LAYER} {sizes}"
    with pytest.raises(ModelFileError, match="does not fit this checkpoint"):
        merged(weights, [(load_deltas(path, SHA256), 1.0, 1.0)])


def test_a_turned_matrix_does_not_fit_though_its_numbers_are_as_many(small: Small) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj"
    with pytest.raises(ModelFileError, match="does not fit this checkpoint"):
        fitted(of_weights(pair(64, 512, layer=layer), {}), networks_of(small("sd1")))


def test_two_names_of_one_layer_are_refused(small: Small) -> None:
    other = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    with pytest.raises(ModelFileError, match=f"has two layers for one of the checkpoint, {LAYER} and {other}"):
        fitted(of_weights(pair() | pair(layer=other), {}), networks_of(small("sd1")))


def test_one_that_was_loaded_for_another_checkpoint_is_held_to_the_next(small: Small, write: Write) -> None:
    adapter = load(write(lora_files.kohya(lora_files.drawn(small("sd1")))), SHA256, small("sd1"))
    require_fit(adapter, networks_of(small("sd1", 1)))
    with pytest.raises(ModelFileError, match=r"does not fit this checkpoint: its .* layer"):
        require_fit(adapter, networks_of(small("sd2")))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_when_it_is_loaded(small: Small, write: Write, value: float) -> None:
    stored = pair()
    stored[UP][3, 2] = value
    path = write(stored)
    for read in (lambda: load(path, SHA256, small("sd1")), lambda: load_deltas(path, SHA256)):
        with pytest.raises(ModelFileError, match=f"its layer {LAYER} has a up with numbers that are not finite"):
            read()


def test_numbers_that_only_overflow_are_refused_too(small: Small, write: Write) -> None:
    path = write({name: one * 9 for name, one in pair(alpha=torch.tensor(3e37)).items()})
    with pytest.raises(ModelFileError, match=r"has numbers for unet's down_blocks.0.* that are too large for float32"):
        load(path, SHA256, small("sd1"))
    with pytest.raises(
        ModelFileError, match=r"changes down_blocks.0.* to numbers that float32 does not hold: lower its"
    ):
        merged(small("sd1"), [(load_deltas(path, SHA256), 0.0, 10.0)])


def test_one_that_has_to_be_merged_is_no_rows_affair(small: Small, write: Write) -> None:
    with pytest.raises(ModelFileError, match="has to be merged \\(LoHa\\)"):
        load(write(HADA), SHA256, small("sd1"))


def test_a_folder_and_an_empty_file_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").touch()
    assert inspect(tmp_path / "empty.safetensors") == Inspection("checkpoint", None, None, "the file is empty")
