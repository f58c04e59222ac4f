"""Number formats of stored weights: which are read, and what is said of the others."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.confined import child
from shared.errors import ModelFileError
from tests.support import full_size, original_layout
from tools.demo_checkpoint import layout
from worker.engine.devices import Device
from worker.engine.files import folders, number_formats, tensors
from worker.engine.loading import load
from worker.engine.loading.inspect import Inspection, inspect
from worker.render.inspector import LIMITS

Small = Callable[[str], Path]
OUT = "model.diffusion_model.out.2"
OPEN_CLIP = "conditioner.embedders.1.model."
ATTENTION = f"{OPEN_CLIP}transformer.resblocks.0.attn."
NIGHTLY = pytest.mark.nightly
READ = "float32, float16, bfloat16 and float8 (e4m3fn, e5m2) are read"


def by_night(*cases: object) -> list[ParameterSet]:
    """Return cases of which those by day are representatives."""
    return [pytest.param(one, marks=NIGHTLY) for one in cases]


def write(path: Path, header: object, weights: bytes = b"") -> Path:
    """Write a safetensors file."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights)
    return path


@pytest.mark.parametrize("ending", ["scale_weight", *by_night("weight_scale")])
@pytest.mark.parametrize("form", [torch.float8_e4m3fn, *by_night(torch.float8_e5m2)])
def test_a_weight_with_a_scale_is_multiplied_by_it(
    ending: str, form: torch.dtype, small_file: Small, tmp_path: Path, cpu: Device
) -> None:
    weights = load_file(small_file("sdxl"))
    scale = torch.tensor(0.0123)
    weights[f"{OUT}.weight"] = weights[f"{OUT}.weight"].to(form)
    expected = weights[f"{OUT}.weight"].float() * scale
    more = {f"{OUT}.{ending}": scale.reshape(1), f"{OUT}.scale_input": torch.ones(1)}
    marks = {"model.diffusion_model.scaled_fp8": torch.zeros(2).to(form), f"{OUT}.comfy_quant": torch.zeros(9).byte()}
    save_file(weights | more | marks, tmp_path / "scaled.safetensors")
    assert inspect(tmp_path / "scaled.safetensors").reason is None
    loaded = load.load(tmp_path / "scaled.safetensors", cpu, torch.float32).unet.conv_out.weight
    assert torch.allclose(loaded, expected, rtol=2**-10, atol=2**-24)


def test_a_scaled_weight_too_large_for_half_precision_stays_whole(tmp_path: Path) -> None:
    weight = torch.full((2, 2), 448.0).to(torch.float8_e4m3fn)
    save_file({"a.weight": weight, "a.scale_weight": torch.tensor(1e3)}, tmp_path / "a.safetensors")
    assert tensors.read(tmp_path / "a.safetensors")["a.weight"].tolist() == [[448e3] * 2] * 2


@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (f"{ATTENTION}in_proj_weight", f"{ATTENTION}in_proj"),
        (f"{ATTENTION}in_proj_weight", f"{ATTENTION}in_proj_weight"),
        (f"{ATTENTION}in_proj_bias", f"{ATTENTION}in_proj_bias"),
        (f"{OPEN_CLIP}text_projection", f"{OPEN_CLIP}text_projection"),
        (f"{OPEN_CLIP}positional_embedding", f"{OPEN_CLIP}positional_embedding"),
        (f"{OPEN_CLIP}token_embedding.weight", f"{OPEN_CLIP}token_embedding"),
    ],
)
def test_a_scale_finds_the_weight_whose_name_is_formed_otherwise(name: str, stem: str, ending: str) -> None:
    weight, scale = torch.linspace(-400, 400, 101).to(torch.float8_e4m3fn), torch.tensor(0.0123)
    read = number_formats.plain({name: weight, f"{stem}.{ending}": scale})
    assert read.keys() == {name}
    assert torch.allclose(read[name].float(), weight.float() * scale, rtol=2**-10)


def test_a_scale_is_of_the_weight_with_the_usual_name_first() -> None:
    one = torch.ones(2).to(torch.float8_e4m3fn)
    stored = {"a": one, "a_weight": one, "a.weight": one, "a.weight_scale": torch.tensor(3.0)}
    assert {name: float(weight[0]) for name, weight in number_formats.plain(stored).items()} == {
        "a": 1, "a_weight": 1, "a.weight": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tensors_beside", "words"),
    [
        (
            {"b.weight_scale": torch.tensor(2.0)},
            "its b.weight_scale is the scale of a weight that is missing: b.weight",
        ),
        ({"b.scale_weight": torch.ones(3)}, "its b.scale_weight is the scale of a weight that is missing"),
        ({"a.bias.scale_weight": torch.ones(1)}, "its a.bias.scale_weight is the scale of a weight that is missing"),
        ({"a.weight_scale": torch.ones(1), "a.scale_weight": torch.ones(1)}, "its a.weight has two scales"),
        ({"a.weight_scale": torch.ones(0)}, r"its a.weight is stored in blocks with \(0,\) scales"),
    ],
)
def test_a_scale_that_cannot_be_applied_is_refused(tensors_beside: dict[str, Tensor], words: str) -> None:
    weights = {"a.weight": torch.ones(2).to(torch.float8_e4m3fn)} | tensors_beside
    for device in ("cpu", "meta"):
        with pytest.raises(ModelFileError, match=words):
            number_formats.plain({name: one.to(device) for name, one in weights.items()})


def test_a_scale_may_be_in_another_file_of_the_network(tmp_path: Path) -> None:
    files = {"a.weight": "one", "a.weight_scale": "two"}
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {name: f"{file}.safetensors" for name, file in files.items()}})
    )
    save_file({"a.weight": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "one.safetensors")
    save_file({"a.weight_scale": torch.tensor(0.5)}, tmp_path / "two.safetensors")
    read = folders.weights(tmp_path, "cpu")
    assert {name: one.tolist() for name, one in read.items()} == {"a.weight": [0.5, 0.5]}


@pytest.mark.parametrize("form", [torch.int8, *by_night(torch.uint8, torch.float8_e4m3fnuz)])
@pytest.mark.parametrize("kind", ["sd1", "sdxl", *by_night("sd2", "sdxl-refiner")])
def test_no_weight_of_a_network_escapes_the_check_of_its_format(
    kind: str, form: torch.dtype, small_file: Small
) -> None:
    weights = {name: one.to("meta") for name, one in load_file(small_file(kind)).items()}
    left = {name for name in weights if name.endswith(("position_ids", "logit_scale", "alphas_cumprod"))}
    for name in weights.keys() - left:
        with pytest.raises(ModelFileError, match=f"its {re.escape(name)} is stored as "):
            number_formats.plain(weights | {name: weights[name].to(form)})
    assert number_formats.plain(weights | {name: weights[name].to(form) for name in left}).keys() == weights.keys()


@pytest.mark.parametrize(
    ("weight", "scale", "words"),
    [
        (torch.zeros(4, 4).byte(), None, f"its {OUT}.weight is stored as uint8: {READ}"),
        pytest.param(torch.zeros(4, 4, dtype=torch.int8), None, "is stored as int8", marks=NIGHTLY),
        pytest.param(torch.zeros(4, 4).to(torch.float8_e4m3fnuz), None, "is stored as float8_e4m3fnuz", marks=NIGHTLY),
        pytest.param(torch.zeros(4, 4).to(torch.float8_e5m2fnuz), None, "is stored as float8_e5m2fnuz", marks=NIGHTLY),
        pytest.param(torch.zeros(4, 4).to(torch.float8_e8m0fnu), None, "is stored as float8_e8m0fnu", marks=NIGHTLY),
        (torch.zeros(4, 4).to(torch.float8_e4m3fn), torch.ones(4), "is stored in blocks with (4,) scales"),
    ],
)
def test_another_format_is_refused_by_name(
    weight: Tensor, scale: Tensor | None, words: str, small_file: Small, tmp_path: Path
) -> None:
    weights = load_file(small_file("sd2-inpainting")) | {f"{OUT}.weight": weight}
    weights |= {} if scale is None else {f"{OUT}.weight_scale": scale}
    save_file(weights, tmp_path / "odd.safetensors")
    torch.save(weights, tmp_path / "odd.ckpt")
    for path in (tmp_path / "odd.safetensors", tmp_path / "odd.ckpt"):
        assert words in (inspect(path).reason or "")
        with pytest.raises(ModelFileError):
            tensors.read(path)


@pytest.mark.parametrize(
    ("form", "bits", "words"),
    [
        ("F4", 4, "is stored as float4_e2m1fn_x2"),
        ("F6_E2M3", 6, "is stored as F6_E2M3"),
        ("F8_E3M4", 8, "is stored in an unknown number format, F8_E3M4"),
    ],
)
def test_a_format_that_no_library_knows_is_refused_by_name(form: str, bits: int, words: str, tmp_path: Path) -> None:
    header = {f"{OUT}.weight": {"dtype": form, "shape": [8], "data_offsets": [0, bits]}}
    path = write(tmp_path / "odd.safetensors", header, bytes(bits))
    assert (inspect(path).reason or "").endswith(READ)
    assert words in (inspect(path).reason or "")


def test_a_file_that_is_cut_off_says_what_is_missing(small_file: Small, tmp_path: Path) -> None:
    content, path = small_file("sdxl").read_bytes(), tmp_path / "half.safetensors"
    path.write_bytes(content[: len(content) * 2 // 3])
    found = inspect(path)
    assert found.reason
    assert found.reason.startswith("is damaged, as after a download that broke off: ")
    assert f"{len(content) * 2 // 3:,} of {len(content):,} bytes are there" in found.reason
    present, listed = re.search(r"and (\d+) of its (\d+) weights are missing", found.reason).groups()
    assert 0 < int(present) < int(listed) == len(load_file(small_file("sdxl")))
    path.write_bytes(content[:999])
    assert "only 999 bytes are there" in (inspect(path).reason or "")
    torch.save(load_file(small_file("sdxl")), tmp_path / "half.ckpt")
    os.truncate(tmp_path / "half.ckpt", 100_000)
    assert "after a download that broke off" in (inspect(tmp_path / "half.ckpt").reason or "")


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, "many"]}}, {"x": 1}, [], {"x": {"data_offsets": []}},
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, -(2**70)]}}, {"x": {"data_offsets": [0, 2**70]}},
        {"x" * 5000: {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
    ],
)  # fmt: skip
def test_a_header_without_sense_is_damage_too(header: object, tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "odd.safetensors", header))
    assert "damaged" in (found.reason or "")
    assert len(found.reason or "") <= 500


def test_one_part_of_several_is_named(small_file: Small, tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00003.safetensors"
    path.symlink_to(small_file("sdxl"))
    found = inspect(path)
    assert (found.kind, found.reason) == (
        "other",
        "is part 1 of 3 of a model, which are read only in diffusers' folders: the farm cannot use these yet",
    )


def test_stable_diffusion_xl_in_full_size_is_recognised_within_the_readers_memory(tmp_path: Path) -> None:
    """All 2,515 weights of the original file: their names, and 6.9 GB of zeros that take no room on the disk."""
    networks = full_size.networks("sdxl")
    named = layout.unet_tensors(networks["unet"]) | layout.vae_tensors(networks["vae"])
    named |= original_layout.clip("conditioner.embedders.0.transformer.", networks["text_encoder"].state_dict())
    named |= original_layout.open_clip("conditioner.embedders.1.model.", networks["text_encoder_2"].state_dict())
    header, end = {}, 0
    for name, weight in named.items():
        begin, end = end, end + 2 * weight.numel()
        header[name] = {"dtype": "F16", "shape": list(weight.shape), "data_offsets": [begin, end]}
    path = write(tmp_path / "full.safetensors", header)
    whole = path.stat().st_size + end
    os.truncate(path, whole)
    assert len(header) == 2515
    with child._memory(LIMITS.memory_bytes):
        assert inspect(path) == Inspection("checkpoint", "sdxl", 1024, None, prediction="noise")
        os.truncate(path, whole // 2)
        assert "of its 2,515 weights are missing" in (inspect(path).reason or "")
