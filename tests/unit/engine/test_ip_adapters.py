"""IP-Adapters from every form of file; what is no such file, or does not suit the checkpoint, is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.errors import ModelFileError, RenderError
from shared.models.details import Details
from tests.support import ip_adapters, small_checkpoints
from tests.unit.engine.conftest import Small
from worker.engine.adapters.ip_adapters import load
from worker.engine.architectures.reading.ip_adapters import Form
from worker.engine.devices import Device
from worker.engine.loading import image_encoders
from worker.engine.loading.inspect import inspect

CPU = torch.float32
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def drawn() -> Callable[..., Weights]:
    bases = {kind: small_checkpoints.build(kind) for kind in ("sd1", "sdxl")}
    return lambda form="plain", kind="sd1": ip_adapters.build(bases[kind], form)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("form", ["plain", "plus", "full"])
def test_every_form_is_read_from_both_kinds_of_files(
    form: Form, ending: str, drawn: Callable[..., Weights], cpu: Device, tmp_path: Path
) -> None:
    weights = drawn(form)
    path = ip_adapters.write(weights, tmp_path / "pictures", is_pickle=ending == ".bin")
    found = load(path, cpu, CPU)
    assert (found.name, found.sizes.form) == ("pictures", form)
    assert found.bytes == sum(one.numel() * 4 for one in weights.values())
    keys = found.network.get_submodule("ip_adapter.3.to_k_ip").get_parameter("weight")
    assert torch.equal(keys, weights["ip_adapter.3.to_k_ip.weight"].float())
    assert {one.dtype for one in found.network.parameters()} == {CPU}
    inspected = inspect(path)
    assert (inspected.kind, inspected.architecture, inspected.reason, inspected.note) == (
        "ip-adapter",
        None,
        None,
        None,
    )
    assert inspected.networks == {"ip-adapter": {"float16": sum(one.numel() for one in weights.values())}}
    details = Details.read(inspected.details)
    expected = {"plain": ("projected", 48, 4), "plus": ("hidden", 128, 6), "full": ("hidden", 128, None)}[form]
    assert (details.image_features, details.image_width, details.tokens) == expected
    assert (details.form, details.context) == (form, 64)


@pytest.mark.parametrize(
    ("context", "first", "architecture", "width"),
    [(768, 320, "sd1", 320), (1024, 320, "sd2", 320), (2048, 640, "sdxl", 320)],
)
def test_the_architecture_follows_from_the_width_of_the_text(
    context: int, first: int, architecture: str, width: int, tmp_path: Path
) -> None:
    weights = {
        "image_proj.proj.weight": torch.zeros(4 * context, 8),
        "image_proj.proj.bias": torch.zeros(4 * context),
        "image_proj.norm.weight": torch.zeros(context),
        "image_proj.norm.bias": torch.zeros(context),
        **{f"ip_adapter.1.to_{part}_ip.weight": torch.zeros(first, context) for part in "kv"},
    }
    found = inspect(ip_adapters.write(weights, tmp_path / "one"))
    assert (found.kind, found.architecture, found.reason) == ("ip-adapter", architecture, None)
    assert (found.details["width"], found.details["context"]) == (width, context)


# What does not fit.


def test_an_adapter_of_another_u_net_is_refused_with_both_forms(
    drawn: Callable[..., Weights], small: Small, cpu: Device, tmp_path: Path
) -> None:
    adapter = load(ip_adapters.write(drawn(), tmp_path / "sea"), cpu, CPU)
    adapter.require_fit(small("sd1"))
    with pytest.raises(
        RenderError, match=r"IP-Adapter sea was made for .* texts of 64; this .* of 192: choose .* SDXL|XL"
    ):
        adapter.require_fit(small("sdxl"))
    adapter = load(ip_adapters.write(drawn("plus", "sdxl"), tmp_path / "land"), cpu, CPU)
    adapter.require_fit(small("sdxl"))
    with pytest.raises(RenderError, match="IP-Adapter land was made for"):
        adapter.require_fit(small("sd1"))


@pytest.mark.parametrize(("form", "width"), [("plain", 48), ("plus", 128)])
def test_an_adapter_reads_only_the_encoder_that_it_was_made_for(
    form: Form, width: int, drawn: Callable[..., Weights], cpu: Device, tmp_path: Path
) -> None:
    adapter = load(ip_adapters.write(drawn(form), tmp_path / "sea"), cpu, CPU)
    for how in ({}, {"projection_dim": 32, "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 64}):
        path = ip_adapters.write_encoder(ip_adapters.encoder(**how), tmp_path / f"eyes{len(how)}", "folder")
        encoder = image_encoders.load(path, cpu, CPU)
        if not how:
            adapter.require_reads(encoder)
            continue
        with pytest.raises(RenderError, match=rf"sea reads {width} numbers .* encoder eyes4 makes (32|192)"):
            adapter.require_reads(encoder)


# Files of strangers.

Change = Callable[[Weights], Mapping[str, Tensor]]


def without(*parts: str) -> Change:
    return lambda weights: {name: one for name, one in weights.items() if not any(part in name for part in parts)}


def shaped(name: str, *shape: int) -> Change:
    return lambda weights: weights | {name: torch.zeros(shape)}


def named(old: str, new: str) -> Change:
    return lambda weights: {name.replace(old, new): one for name, one in weights.items()}


FIRST = "ip_adapter.1.to_k_ip.weight"
CHANGES: dict[str, tuple[Form, Change, str]] = {
    "a missing weight": ("plain", without("7.to_v_ip"), "ip_adapter.7.to_v_ip.weight is missing"),
    "a missing norm": ("plain", without("norm.bias"), "1 of the IP-Adapter's .* missing, first image_proj.norm.bias"),
    "a weight too many": ("plain", shaped("ip_adapter.1.x", 1), "has 1 weights too many, first ip_adapter.1"),
    "a stray weight": ("plain", shaped("other.weight", 1), "has 1 weights too many, first other.weight"),
    "a wrong shape": ("plain", shaped("ip_adapter.3.to_v_ip.weight", 64, 32), r"shape \(64, 32\), not \(64, 64\)"),
    "other keys": ("plain", shaped(FIRST, 64, 32), r"to_k_ip.weight has the shape \(64, 32\)"),
    "flat keys": ("plain", shaped(FIRST, 64), "to_k_ip.weight is missing or misshapen"),
    "no keys": ("plain", without("ip_adapter."), "without keys and values"),
    "no pictures": ("plain", without("image_proj."), "without the part that reads pictures"),
    "no whole tokens": ("plain", shaped("image_proj.proj.weight", 250, 48), "250 numbers of a picture"),
    "absurdly many tokens": ("plain", shaped("image_proj.proj.weight", 64 * 300, 1), "19,200 numbers of a picture"),
    "an absurd width": ("plus", shaped("image_proj.proj_in.weight", 2**21, 1), "layers.0 is not one of a resampler"),
    "an empty matrix": ("plus", shaped("image_proj.proj_in.weight", 2**21, 0), "proj_in.weight is missing"),
    "flat latents": ("plus", shaped("image_proj.latents", 6, 96), "not tokens of a picture"),
    "absurdly many latents": ("plus", shaped("image_proj.latents", 1, 999, 1), "not tokens of a picture"),
    "odd heads": ("plus", shaped("image_proj.layers.0.0.to_q.weight", 100, 96), "heads are 64 wide"),
    "a short resampler": ("plus", without("layers.1.1"), "missing, first image_proj.layers.1"),
    "odd keys and values": ("plus", shaped("image_proj.layers.1.0.to_kv.weight", 1, 96), "has the shape"),
    "no numbers of keys and values": ("plus", shaped("image_proj.layers.1.0.to_kv.weight"), "has the shape"),
    "no layers": ("plus", without("image_proj.layers"), "to_q.weight is missing"),
    "other numbers": ("plain", named("ip_adapter.13.", "ip_adapter.14."), "an IP-Adapter of another architecture"),
    "FaceID": ("plain", shaped("ip_adapter.0.to_q_lora.down.weight", 8, 8), "IP-Adapter FaceID, which reads"),
    "FaceID without its LoRA": ("plain", named("proj.proj.", "proj.proj.0."), "IP-Adapter FaceID, which reads"),
    "FaceID Plus": ("plus", named("image_proj.", "image_proj.perceiver_resampler."), "IP-Adapter FaceID Plus"),
    "InstantID": (
        "plus",
        lambda weights: {
            **weights,
            "image_proj.proj_in.weight": torch.zeros(96, 512),
            "image_proj.proj_out.weight": torch.zeros(2048, 96),
        },
        "an InstantID adapter, which reads",
    ),
    "an unknown form": ("plus", without("latents"), "an IP-Adapter of an unknown form"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_is_no_whole_adapter_is_refused(
    name: str, drawn: Callable[..., Weights], cpu: Device, tmp_path: Path
) -> None:
    form, change, reason = CHANGES[name]
    changed = {key: one.contiguous() for key, one in change(drawn(form)).items()}
    save_file(changed, path := tmp_path / "one.safetensors")
    with pytest.raises(ModelFileError, match=reason):
        load(path, cpu, CPU)
    assert inspect(path).reason


def test_an_adapter_for_thousands_of_layers_is_refused_at_once(drawn: Callable[..., Weights], tmp_path: Path) -> None:
    pair = torch.zeros(64, 64)
    more = {f"ip_adapter.{2 * at + 1}.to_{part}_ip.weight": pair.clone() for at in range(300) for part in "kv"}
    save_file({**drawn(), **more}, path := tmp_path / "one.safetensors")
    assert "keys and values for 300 layers; at most 256" in (inspect(path).reason or "")


def test_a_million_weights_are_not_read(tmp_path: Path) -> None:
    one = torch.zeros(1)
    torch.save(
        {"image_proj": {}, "ip_adapter": dict.fromkeys(map(str, range(70_000)), one)}, path := tmp_path / "one.bin"
    )
    assert "weights; at most" in (inspect(path).reason or "")


def test_a_pickle_that_would_execute_is_refused_unread(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"image_proj": {"proj.weight": Evil()}, "ip_adapter": {}}, path := tmp_path / "one.bin")
    assert "code or objects" in (inspect(path).reason or "")
    assert not (tmp_path / "made").exists()


def test_a_cut_off_adapter_is_refused_with_what_is_missing(drawn: Callable[..., Weights], tmp_path: Path) -> None:
    path = ip_adapters.write(drawn(), tmp_path / "one")
    path.write_bytes(path.read_bytes()[:40_000])
    assert "weights are missing" in (inspect(path).reason or "")
    path = ip_adapters.write(drawn(), tmp_path / "one", is_pickle=True)
    path.write_bytes(path.read_bytes()[:40_000])
    assert "broke off" in (inspect(path).reason or "")
