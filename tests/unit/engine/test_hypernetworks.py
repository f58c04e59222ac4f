"""Hypernetworks: their files, and renders with them, beside the plain modules that they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.errors import ModelFileError
from shared.params.render import RenderParams
from tests.support import low_rank, parity
from tests.support.conditioned import with_empty_caches
from tests.support.hypernetwork_files import Module, Pairs, content, drawn
from tests.unit.engine.conftest import Small
from worker.engine.adapters import hypernetworks
from worker.engine.adapters.hypernetworks import Hypernetwork, fed
from worker.engine.answers.denoising import denoise
from worker.engine.architectures.conditioning import Applied, Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.files import tensors
from worker.engine.loading import hypernetworks as files
from worker.engine.loading.inspect import inspect
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Denoise, Term

SHA256 = "b" * 64
DEEP = [1, 2, 2, 1]


def saved(path: Path, held: object) -> Path:
    torch.save(held, path)
    return path


def loaded(path: Path, held: object, cpu: Device) -> Hypernetwork:
    return hypernetworks.load(saved(path, held), SHA256, "haze", cpu, torch.float32)


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "three layers": ({"structure": DEEP}, {}),
    "one layer": ({"structure": [1, 1]}, {}),
    "parts": ({"structure": [1, 1.5, 0.5, 1]}, {}),
    **{
        name: ({"activation": name}, {})
        for name in ("relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "softsign", "mish", "gelu", "rrelu")
    },
    "linear": ({"activation": "linear"}, {}),
    "output not activated": (
        {"structure": DEEP, "activation": "relu", "activates_output": False},
        {"activate_output": False},
    ),
    "normed": ({"structure": DEEP, "activation": "elu", "is_normed": True}, {"is_layer_norm": True}),
    "normed, not activated": ({"is_normed": True}, {"is_layer_norm": True}),
    "dropout": (
        {"structure": DEEP, "activation": "relu", "dropout": [0, 0.3, 0, 0]},
        {"use_dropout": True, "last_layer_dropout": False},
    ),
    "dropout at the end": (
        {"structure": DEEP, "activation": "relu", "is_normed": True, "dropout": [0, 0.3, 0.3, 0.3]},
        {"use_dropout": True, "is_layer_norm": True, "dropout_structure": [0, 0.3, 0.3, 0.3]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_a_file_is_the_module_that_it_was_trained_as(tmp_path: Path, cpu: Device, form: str) -> None:
    how, stated = FORMS[form]
    pairs = drawn(1, [64, 96], **how)
    facts = {name: how[name] for name in ("structure", "activation") if name in how}
    found = loaded(tmp_path / "haze.pt", content(pairs, **facts, **stated), cpu)
    assert found.nets.keys() == {64, 96}
    for width, pair in pairs.items():
        x = torch.randn(2, 77, width, generator=torch.Generator().manual_seed(width))
        for place, module in enumerate(pair):
            change = found.changed(place, x)
            torch.testing.assert_close(x + 0.7 * change, module(x, 0.7), rtol=0, atol=1e-5)
            assert change.std() > 0.01
    assert found.bytes == sum(one.nbytes for pair in pairs.values() for module in pair for one in module.parameters())


def test_old_names_and_files_without_a_header_are_read(tmp_path: Path, cpu: Device) -> None:
    pairs = drawn(2, [64])
    old = {"linear.0": "linear1", "linear.1": "linear2"}
    nets = [{old[name[:8]] + name[8:]: weight for name, weight in one.state_dict().items()} for one in pairs[64]]
    expected = loaded(tmp_path / "haze.pt", content(pairs), cpu).nets[64]
    for held in ({64: nets}, {64: nets, "step": 3, "name": "x"}):
        found = loaded(tmp_path / "old.pt", held, cpu).nets[64]
        assert [weight.tolist() for weight in tensors_of(found)] == [weight.tolist() for weight in tensors_of(expected)]
    flat = {
        f"64.{place}.{name}": weight for place, one in enumerate(pairs[64]) for name, weight in one.state_dict().items()
    }
    save_file(flat, tmp_path / "haze.safetensors")
    assert files.read(tmp_path / "haze.safetensors").nets.keys() == {64}


def tensors_of(pair: Sequence[files.Net]) -> list[Tensor]:
    return [weight for net in pair for layer in net for weight in layer.tensors]


GOOD = content(drawn(3, [64]))
NET = dict(GOOD[64][0])


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("exit 3",)


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ({**GOOD, "layer_structure": [1, 4, 1]}, r"weight of layer 0 .* has the shape \(128, 64\), not \(256, 64\)"),
        (
            {**GOOD, "layer_structure": [1, 2, 2, 1]},
            r"weight of layer 1 .* has the shape \(64, 128\), not \(128, 128\)",
        ),
        ({**GOOD, "layer_structure": [1, 1]}, r"has the shape \(128, 64\), not \(64, 64\)"),
        ({**GOOD, "layer_structure": [2, 1]}, "does not begin and end with 1"),
        ({**GOOD, "layer_structure": [1] * 18}, "not a list of 2 to 17 multiples"),
        ({**GOOD, "layer_structure": [1, 1e300, 1]}, "makes no layers of 1 to 32,768 values"),
        ({**GOOD, "layer_structure": [1, 0.001, 1]}, "makes no layers of 1 to 32,768 values"),
        ({**GOOD, "layer_structure": [1, "2", 1]}, "not a finite number above 0"),
        ({**GOOD, "layer_structure": "121"}, "layer_structure is not a list"),
        ({**GOOD, "activation_func": "prelu"}, "activation_func is prelu; these are known: linear, relu"),
        ({**GOOD, "activation_func": [1]}, "activation_func is a list"),
        ({**GOOD, "activation_func": "relu"}, "lacks the weight of layer 2"),
        ({**GOOD, "is_layer_norm": True}, r"weight of layer 1 .* has the shape|lacks the"),
        ({**GOOD, "is_layer_norm": 1}, "its is_layer_norm is 1, not true or false"),
        ({**GOOD, 64: [NET]}, "has 1 nets for width 64; one for keys and one for values"),
        ({**GOOD, 64: [NET, NET, NET]}, "has 3 nets for width 64"),
        ({**GOOD, 64: [NET, {**NET, "linear.5.weight": torch.ones(2)}]}, "has 3 layers with weights .*, and states 2"),
        (
            {**GOOD, 64: [NET, {name: one for name, one in NET.items() if "1.bias" not in name}]},
            "lacks the bias of layer 1",
        ),
        ({**GOOD, 64: [NET, {**NET, "other.weight": torch.ones(2)}]}, "a weight beside its nets"),
        ({**GOOD, 64: [NET, {**NET, "linear.0.weight": torch.ones(128, 64, dtype=torch.int32)}]}, "stored as int32"),
        ({**GOOD, **dict.fromkeys(range(1, 40), GOOD[64])}, "nets for 40 widths; at most 32"),
        ({**GOOD, **{str(place): place for place in range(2**16)}}, "at most 65,536 are read"),
        ({**GOOD, "name": Bomb()}, r"holds code or objects, which are not loaded \(posix.system\)"),
        ({64: [{}, {}], "layer_structure": [1, 2, 1]}, "is not a hypernetwork"),
    ],
    ids=range(24),
)
def test_what_is_no_hypernetwork_is_refused_with_the_reason(tmp_path: Path, held: object, why: str) -> None:
    path = saved(tmp_path / "haze.pt", held)
    with pytest.raises(ModelFileError, match=why):
        files.read(path, "meta")


def test_values_that_are_not_numbers_and_truncated_files_are_refused(tmp_path: Path, cpu: Device) -> None:
    broken = {**GOOD, 64: [NET, {**NET, "linear.0.weight": torch.full((128, 64), torch.nan)}]}
    with pytest.raises(ModelFileError, match="values that are not numbers"):
        loaded(tmp_path / "haze.pt", broken, cpu)
    path = saved(tmp_path / "haze.pt", GOOD)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="is damaged"):
        files.read(path)


@pytest.mark.parametrize(
    ("widths", "architecture", "details"),
    [
        ([320, 640, 768, 1280], "sd1", {"context": 768}),
        ([320, 640, 1024, 1280], "sd2", {"context": 1024}),
        ([640, 1280, 2048], "sdxl", {"context": 2048}),
        ([64, 128], "sd1", {"width": 64}),
    ],
)
def test_a_scan_tells_what_it_fits(
    tmp_path: Path, widths: list[int], architecture: str, details: dict[str, int]
) -> None:
    assert files.architecture(widths) == architecture
    assert files.details(widths) == details


def test_a_scan_reads_what_a_file_is(tmp_path: Path) -> None:
    found = inspect(saved(tmp_path / "haze.pt", content(drawn(0, [64, 128], DEEP, "relu"), DEEP, "relu")))
    assert (found.kind, found.reason, found.architecture, found.details) == ("hypernetwork", None, "sd1", {"width": 64})
    assert found.networks == {"hypernetwork": {"float32": sum(one.numel() for one in parameters(DEEP, 64, 128))}}
    broken = inspect(saved(tmp_path / "haze.pt", {**GOOD, "layer_structure": [1, 4, 1]}))
    assert broken.kind == "hypernetwork"
    assert "has the shape (128, 64), not (256, 64)" in (broken.reason or "")


def parameters(structure: Sequence[float], *widths: int) -> list[Tensor]:
    pairs = drawn(0, widths, structure)
    return [weight for pair in pairs.values() for module in pair for weight in module.parameters()]


def hypernetwork(pairs: Pairs, tmp_path: Path, cpu: Device, number: int = 0, **stated: Any) -> Hypernetwork:
    found = loaded(tmp_path / f"{number}.pt", content(pairs, **stated), cpu)
    return Hypernetwork(f"{number:064x}", "haze", "sd1", found.nets, found.activation)


@contextmanager
def by_modules(unet: nn.Module, uses: list[tuple[Pairs, float]]) -> Iterator[None]:
    """Within the block, every attention of `unet` reads its context as plain modules change it."""

    def changed(place: int, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        (x,) = arguments
        for pairs, weight in uses:
            if x.shape[-1] in pairs:
                x = pairs[x.shape[-1]][place](x, weight)
        return (x,)

    hooks = [
        layer.register_forward_pre_hook(partial(changed, place))
        for path, layer in unet.named_modules()
        for place, end in enumerate((".to_k", ".to_v"))
        if path.endswith(end)
    ]
    yield
    for hook in hooks:
        hook.remove()


def params(prompt: str, seed: int = 5, **how: Any) -> RenderParams:
    usual = {"checkpoint": "x", "width": 64, "height": 64, "steps": 4, "sampler": "Euler", "schedule": "simple"}
    return RenderParams(**usual | {"prompt": prompt, "seed": seed, "cfg_scale": 5.0} | how)


def latent(engine: Engine, weights: Weights, asked: RenderParams, **adapters: Hypernetwork) -> Tensor:
    named = {f"hypernet:{name}": one for name, one in adapters.items()}
    found: Tensor = engine.render(parity.undecoded(render(asked, Kit(weights, adapters=named)))).result(parity.SECONDS)
    return found


def test_a_render_is_that_of_plain_modules_in_every_attention(
    small: Small, engine: Engine, tmp_path: Path, cpu: Device
) -> None:
    one, two = drawn(1, [64], DEEP, "relu", is_normed=True), drawn(2, [64])
    weights = with_empty_caches(small("sd1"))
    haze = hypernetwork(one, tmp_path, cpu, 1, structure=DEEP, activation="relu", is_layer_norm=True)
    mist = hypernetwork(two, tmp_path, cpu, 2)
    asked = params("a boat <hypernet:haze:-0.8> at sea <hypernet:mist:0.4>", negative_prompt="snow")
    found = latent(engine, weights, asked, haze=haze, mist=mist)
    plain = latent(engine, weights, params("a boat  at sea ", negative_prompt="snow"))
    with by_modules(weights.unet, [(one, -0.8), (two, 0.4)]):
        expected = latent(engine, weights, params("a boat  at sea ", negative_prompt="snow"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 0.01
    none = params("a boat <hypernet:haze:0> at sea ", negative_prompt="snow")
    assert torch.equal(latent(engine, weights, none, haze=haze), plain)


def test_a_lora_reads_what_a_hypernetwork_has_changed(
    small: Small, engine: Engine, tmp_path: Path, cpu: Device
) -> None:
    weights, pairs = with_empty_caches(small("sd1")), drawn(4, [64])
    lora, haze = low_rank.drawn(weights, 1), hypernetwork(pairs, tmp_path, cpu)
    asked = params("sea <lora:ink:0.8> <hypernet:haze:0.6>", steps=2)
    kit = Kit(weights, adapters={"lora:ink": lora, "hypernet:haze": haze})
    found = engine.render(parity.undecoded(render(asked, kit))).result(parity.SECONDS)
    merged = low_rank.merged(weights, [(lora, 0.8, 0.8)])
    with by_modules(merged.unet, [(pairs, 0.6)]):
        expected = latent(engine, merged, params("sea  ", steps=2))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [2, 5])
def test_a_row_gets_the_same_bits_in_every_company(small: Small, tmp_path: Path, cpu: Device, rows: int) -> None:
    weights = small("sd1")
    nets = [
        hypernetwork(drawn(n, [64], DEEP, "tanh"), tmp_path, cpu, n, structure=DEEP, activation="tanh") for n in (1, 2)
    ]
    sets = [(), (Applied(nets[0], 0.8),), (Applied(nets[1], -0.5),), (Applied(nets[1], 0.3), Applied(nets[0], 1.5)), ()]
    draw = torch.Generator().manual_seed(3)

    def row(adapters: tuple[Applied, ...]) -> Denoise:
        context = torch.randn(77, 64, generator=draw)
        x = torch.randn(4, 8, 8, generator=draw)
        return Denoise(weights, x, 3.0, (Term(1.0, Conditioning(context, 77, adapters=adapters)),), 1, 1)

    requests = [row(sets[place]) for place in range(rows)]
    alone = [denoise([request], is_exact=False)[0] for request in requests]
    together = denoise(requests, is_exact=False)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert not any(layer._forward_pre_hooks for layer in weights.unet.modules())


def test_other_widths_are_left_alone(small: Small, tmp_path: Path, cpu: Device) -> None:
    unet = small("sd1").unet
    other = hypernetwork(drawn(1, [96]), tmp_path, cpu)
    with fed(unet, [(Applied(other, 1.0),)], cpu):
        assert not any(layer._forward_pre_hooks for layer in unet.modules())


def test_a_module_is_the_published_formula() -> None:
    x, module = torch.ones(1, 2, 4), Module(4)
    first, second = (layer for layer in module.linear)
    expected = x + 0.5 * (second.weight @ (first.weight @ x[0, 0] + first.bias) + second.bias)
    torch.testing.assert_close(module(x, 0.5), expected.expand(1, 2, 4))


def test_the_step_of_training_is_not_a_weight(tmp_path: Path) -> None:
    assert tensors.TRAINING_STEP == "global_step"
    assert files.read(saved(tmp_path / "haze.pt", {**GOOD, "global_step": 5})).nets.keys() == {64}
