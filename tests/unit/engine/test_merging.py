"""Adapters that are merged: each algorithm as LyCORIS computes it, and a pristine checkpoint that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.params.render import RenderParams
from tests.support import lycoris_files
from tests.support.conditioned import with_empty_caches
from tests.support.lycoris_files import plain
from tests.unit.engine.conftest import Small
from worker.engine.adapters.low_rank import LowRank
from worker.engine.adapters.merging import merged
from worker.engine.adapters.reading.fitting import networks_of
from worker.engine.adapters.reading.load import Deltas, load, load_deltas
from worker.engine.architectures.weights import Weights, network_bytes
from worker.engine.files.lora.reading import of_weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render

BY_DAY = {("sd1", "LoKr, Tucker"), ("sdxl", "LoHa, DoRA"), ("sd1", "BOFT")}
KINDS = [
    pytest.param(kind, name, marks=() if (kind, name) in BY_DAY else pytest.mark.nightly)
    for kind in ("sd1", "sd2", "sdxl")
    for name in lycoris_files.KINDS
]
BOUND = 1e-4


def deltas(tensors: Mapping[str, Tensor]) -> Deltas:
    return Deltas("ab" * 32, "one", of_weights(tensors, {}))


def inputs(module: nn.Module) -> Tensor:
    weight = module.get_parameter("weight")
    channels = weight.shape[1] if weight.dim() > 1 else len(weight)
    draw = torch.Generator().manual_seed(5)
    is_flat = isinstance(module, nn.Linear | nn.LayerNorm)
    return torch.randn(2, *((3, channels) if is_flat else (channels, 6, 5)), generator=draw)


@pytest.mark.parametrize(("kind", "name"), KINDS)
@torch.no_grad()
def test_each_algorithm_changes_layers_as_lycoris_does(small: Small, kind: str, name: str) -> None:
    weights = small(kind)
    made = lycoris_files.made(weights, name)
    after = networks_of(merged(weights, [(deltas(made.tensors), 1.0, 1.0)]))
    for (network, path), module in made.modules.items():
        pristine = plain(networks_of(weights)[network].get_submodule(path))
        x = inputs(pristine)
        expected, answer = module(x), plain(after[network].get_submodule(path))(x)
        torch.testing.assert_close(answer, expected, rtol=BOUND, atol=BOUND, msg=path)
        assert (expected - pristine(x)).abs().max() > 100 * BOUND, path


def parameters(weights: Weights) -> dict[tuple[str, str], Tensor]:
    return {
        (name, path): one for name, network in networks_of(weights).items() for path, one in network.named_parameters()
    }


def test_the_pristine_checkpoint_stays_as_it_is_and_shares_what_nothing_changes(small: Small) -> None:
    weights = small("sd1")
    before = {place: one.clone() for place, one in parameters(weights).items()}
    made, room = lycoris_files.made(weights, "LoHa"), list[int]()
    after = merged(weights, [(deltas(made.tensors), 0.5, 1.5)], room.append)
    changed = parameters(after)
    for place, one in parameters(weights).items():
        assert torch.equal(one, before[place])
        owner = place[0], place[1].rpartition(".")[0]
        assert (changed[place] is one) == (owner not in made.modules)
        assert changed[place].stride() == one.stride()
        assert not changed[place].requires_grad
    assert room == [sum(network_bytes(network) for network in networks_of(weights).values())]
    assert after.vae is weights.vae
    assert after.masks is not weights.masks
    assert [type(one) for one in after.unet.modules()] == [type(one) for one in weights.unet.modules()]
    for encoder, pristine in zip(after.text_encoders, weights.text_encoders, strict=True):
        assert encoder.cache is not pristine.cache


def test_an_encoder_that_nothing_changes_is_shared_with_what_it_has_read(small: Small) -> None:
    weights = small("sdxl")
    file = deltas(lycoris_files.made(weights, "LoHa").tensors)
    assert merged(weights, [(file, 0.0, 1.0)]).text_encoders == weights.text_encoders
    assert merged(weights, [(file, 1.0, 0.0)]).unet is weights.unet


NIGHTLY = [pytest.param(name, marks=pytest.mark.nightly) for name in ("LoKr", "DoRA", "GLoRA", "IA3", "norms")]


@pytest.mark.parametrize("name", ["OFT, rescaled", *NIGHTLY])
def test_a_strength_goes_that_part_of_the_way_and_several_adapters_add_up(small: Small, name: str) -> None:
    weights = small("sd1")
    one, other = (deltas(lycoris_files.made(weights, kind, seed).tensors) for kind, seed in ((name, 1), ("LoHa", 2)))
    whole, half, both, turned, second = (
        parameters(merged(weights, parts))
        for parts in (
            [(one, 1.0, 1.0)],
            [(one, -0.5, 0.5)],
            [(one, 1.0, 1.0), (other, 0.5, -0.5)],
            [(other, 0.5, -0.5), (one, 1.0, 1.0)],
            [(other, 0.5, -0.5)],
        )
    )
    for place, pristine in parameters(weights).items():
        part = 0.5 if place[0] == "unet" else -0.5
        torch.testing.assert_close(half[place], pristine + part * (whole[place] - pristine), rtol=1e-4, atol=1e-5)
        expected = whole[place] + second[place] - pristine
        torch.testing.assert_close(both[place], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both[place], turned[place], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["sd1", *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("sd2", "sdxl"))])
def test_a_file_by_rows_makes_the_picture_that_it_makes_merged(
    small: Small, engine: Engine, params: RenderParams, tmp_path: Path, kind: str
) -> None:
    weights, path = small(kind), tmp_path / "one.safetensors"
    save_file(lycoris_files.made(weights, "LoCon").tensors, path)
    asked = params.model_copy(
        update={"width": 64, "height": 64, "steps": 3, "prompt": "sea at night <lora:one:0.4:0.7>"}
    )

    def picture(weights: Weights, adapters: Mapping[str, LowRank] = MappingProxyType({})) -> Tensor:
        kit = Kit(with_empty_caches(weights), adapters=adapters)
        shown = asked if adapters else asked.model_copy(update={"prompt": "sea at night"})
        return torch.from_numpy(engine.render(render(shown, kit)).result()).int()

    by_rows = picture(weights, {"lora:one": load(path, "ab" * 32, weights)})
    together = picture(merged(weights, [(load_deltas(path, "ab" * 32), 0.4, 0.7)]))
    assert (by_rows - together).abs().max() <= 1
    assert (by_rows - picture(weights)).abs().max() > 10
