"""Rows with several IP-Adapters, one, or none share a call of the U-Net, and each is bit for bit what it is alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import conditioned, control_nets, hypernetwork_files, ip_adapters, low_rank, small_checkpoints
from tests.support.image_prompted import read
from tests.unit.engine.conftest import Small
from worker.engine.adapters import control_nets as nets
from worker.engine.adapters import hypernetworks
from worker.engine.adapters import ip_adapters as loading
from worker.engine.adapters.hypernetworks import Hypernetwork
from worker.engine.adapters.ip_adapters import prompted
from worker.engine.answers.denoising import denoise
from worker.engine.answers.pixels import apply
from worker.engine.architectures.conditioning import Applied, Conditioning, Control, ImagePrompt
from worker.engine.architectures.reading.ip_adapters import Form
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import image_encoders
from worker.engine.loop.grouping import plan
from worker.engine.loop.runs import Ask, Run
from worker.engine.requests import Apply, Denoise

Prompts = Callable[..., ImagePrompt]


@pytest.fixture(scope="module")
def prompts(cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Prompts:
    """Reads a picture of noise by an adapter of a form, for a kind of small checkpoint."""
    folder = tmp_path_factory.mktemp("prompts")
    path = ip_adapters.write_encoder(ip_adapters.encoder(), folder / "encoder")
    encoder = image_encoders.load(path, cpu, torch.float32)

    @cache
    def adapter(kind: str, form: Form, seed: int) -> loading.IPAdapter:
        drawn = ip_adapters.build(small_checkpoints.build(kind), form, seed)
        return loading.load(ip_adapters.write(drawn, folder / f"{kind}-{form}-{seed}"), cpu, torch.float32)

    def prompt(kind: str, form: Form = "plain", seed: int = 0, **how: object) -> ImagePrompt:
        pixels = torch.randn(3, ip_adapters.SIDE, ip_adapters.SIDE, generator=torch.Generator().manual_seed(seed))
        one = adapter(kind, form, seed % 2)
        shown, nothing = (read(one, encoder, given) for given in (pixels, torch.zeros_like(pixels)))
        return ImagePrompt(shown, nothing, **how)  # type: ignore[arg-type]  # its options

    return prompt


def denoising(
    weights: Weights, rows: Sequence[Sequence[ImagePrompt]], seed: int = 0, chunks: int = 1, **beside: object
) -> Denoise:
    """Return a request for a row with each of these sets of image prompts; the last one has the longest text."""
    given = [{"image_prompts": tuple(shown), **beside} for shown in rows]
    return conditioned.denoising(weights, given, seed, chunks)


def answers(requests: Sequence[Denoise]) -> list[Tensor]:
    return [answer for answer in denoise(requests, is_exact=False) if isinstance(answer, Tensor)]


def rows_of(weights: Weights) -> tuple[list[int], Callable[[], None]]:
    """Return a list of the rows of each call of a U-Net from now on, and what ends that."""
    rows: list[int] = []
    hook = weights.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    return rows, hook.remove


def crowd(weights: Weights, prompts: Prompts, count: int) -> list[Denoise]:
    """Return requests of every kind: two adapters, one, one twice, another form, none; texts of two lengths."""
    kind = weights.architecture.name
    plain, other = prompts(kind), prompts(kind, seed=1, weight=0.4)
    plus, full = prompts(kind, "plus", 2, weight=1.5), prompts(kind, "full", 3, weight=0.6)
    pair = replace(plain, read=torch.cat([plain.read, other.read]))  # two pictures of one adapter
    sets: list[list[list[ImagePrompt]]] = [
        [[plain], [plain.negative()]],
        [[other, plus], [other.negative(), plus.negative()]],
        [[], []],
        [[full]],
        [[plus, plain, plus], []],
        [[pair], [pair.negative()]],
        [[], [plus]],
        [[other], [other.negative()]],
    ]
    return [denoising(weights, sets[at % len(sets)], at, chunks=2) for at in range(count)]


@pytest.mark.parametrize(
    ("kind", "count"),
    [("sd1", 8), *(pytest.param(kind, 24, marks=pytest.mark.nightly) for kind in ("sd1", "sd2", "sdxl"))],
)
def test_rows_with_any_adapters_share_a_call_and_are_what_they_are_alone(
    kind: str, count: int, small: Small, prompts: Prompts
) -> None:
    weights = small(kind)
    requests = crowd(weights, prompts, count)
    alone = [answers([request])[0] for request in requests]
    waiting = [Ask(Run(iter(()), is_exact=False, is_urgent=False, on_cancel=print), 0, one) for one in requests]
    assert plan(waiting, 64) == ([waiting], [])
    rows, end = rows_of(weights)
    together = answers(requests)
    end()
    assert rows == [sum(len(request.terms) for request in requests)]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(answers(requests[::-1]), alone[::-1], strict=True):
        assert torch.equal(one, other)


def test_a_row_without_a_picture_keeps_its_bits_beside_others(small: Small, prompts: Prompts) -> None:
    weights = small("sd1")
    bare = denoising(weights, [[], []], 5)
    expected = answers([bare])[0]
    for count in (1, 4):
        others = [denoising(weights, [[prompts("sd1", "plus", seed)]] * 2, seed) for seed in range(count)]
        assert torch.equal(answers([*others, bare])[-1], expected)
        assert torch.equal(answers([bare, *others])[0], expected)


@pytest.mark.parametrize("kind", ["sd1", pytest.param("sdxl", marks=pytest.mark.nightly)])
def test_a_lora_a_hypernetwork_a_control_net_and_a_picture_act_together(
    kind: str, small: Small, prompts: Prompts, cpu: Device, tmp_path: Path
) -> None:
    weights = small(kind)
    net = nets.load(
        control_nets.write(control_nets.build(small_checkpoints.build(kind)), tmp_path / "net"), cpu, torch.float32
    )
    [hint] = apply([Apply(net.embedding, torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)))])
    assert isinstance(hint, Tensor)
    lora, haze = low_rank.drawn(weights, 1, texts=False), hazy(weights, cpu, tmp_path)
    beside = {"adapters": (Applied(lora, 0.8), Applied(haze, 0.5)), "controls": (Control(net.network, hint),)}
    shown = prompts(kind, "plus", 2)
    rows = [[shown], [shown.negative()]]
    every = denoising(weights, rows, 3, chunks=2, **beside)
    less = [
        denoising(weights, [[], []], 3, chunks=2, **beside),
        denoising(weights, rows, 3, chunks=2, **beside | {"controls": ()}),
        *(denoising(weights, rows, 3, chunks=2, **beside | {"adapters": (one,)}) for one in beside["adapters"]),
    ]
    alone = [answers([one])[0] for one in (every, *less)]
    called, end = rows_of(weights)
    together = answers([every, *less])
    end()
    assert called == [2 * len(together)]
    assert all(map(torch.equal, together, alone))
    assert all(float((one - alone[0]).abs().max()) > 1e-3 for one in alone[1:])
    merged = low_rank.merged(weights, [(lora, 0.0, 0.8)])
    [same] = answers([denoising(merged, rows, 3, chunks=2, **beside | {"adapters": beside["adapters"][1:]})])
    torch.testing.assert_close(same, alone[0], atol=1e-4, rtol=1e-4)


def hazy(weights: Weights, cpu: Device, folder: Path) -> Hypernetwork:
    """Return a hypernetwork that changes how a checkpoint reads its texts."""
    widths = [weights.unet.config["cross_attention_dim"]]
    drawn = hypernetwork_files.drawn(1, widths, activation="relu")
    torch.save(hypernetwork_files.content(drawn, activation="relu"), folder / "haze.pt")
    return hypernetworks.load(folder / "haze.pt", "b" * 64, "haze", cpu, torch.float32)


def test_a_weight_of_zero_and_a_call_outside_of_its_share_change_nothing(small: Small, prompts: Prompts) -> None:
    weights = small("sd1")
    [plain] = answers([denoising(weights, [[]])])
    [silent] = answers([denoising(weights, [[prompts("sd1", weight=0.0)]])])
    torch.testing.assert_close(silent, plain)
    early, late = prompts("sd1", start=0, end=3), prompts("sd1", start=2)
    conditioning = Conditioning(torch.zeros(77, 8), 77, image_prompts=(early, late))
    acting = [conditioning.at(call).image_prompts for call in (0, 2, 3)]
    assert acting == [(early,), (early, late), (late,)]
    assert conditioning.at(2) is conditioning


def test_a_u_net_is_as_before_after_a_call_and_after_a_failure(small: Small, prompts: Prompts, cpu: Device) -> None:
    weights = small("sd1")
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in weights.unet.modules()]
    answers([denoising(weights, [[prompts("sd1")]])])
    with pytest.raises(ZeroDivisionError), prompted(weights.unet, [[prompts("sd1")]], cpu):
        raise ZeroDivisionError
    assert [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in weights.unet.modules()] == hooks


def test_a_broken_row_harms_no_other_row(small: Small, prompts: Prompts) -> None:
    weights = small("sd1")
    broken = replace(prompts("sd1"), read=torch.zeros(4, 6))
    requests = [denoising(weights, [[broken]]), denoising(weights, [[prompts("sd1")]], 1)]
    found = denoise(requests, is_exact=False)
    assert isinstance(found[0], Exception)
    assert isinstance(found[1], Tensor)
    assert torch.equal(found[1], *answers(requests[1:]))


@pytest.mark.parametrize("tiling", ["both", "x"])
def test_a_tiled_picture_goes_on_at_its_other_side(tiling: str, small: Small, prompts: Prompts) -> None:
    weights = small("sd1").tiled(tiling)  # type: ignore[arg-type]
    request = denoising(weights, [[prompts("sd1", "plus", 2)]])
    moves = (4, 8) if tiling == "both" else (0, 8)
    x = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(3))
    still, moved = (answers([replace(request, x=one)])[0] for one in (x, x.roll(moves, dims=(1, 2))))
    torch.testing.assert_close(moved, still.roll(moves, dims=(1, 2)), atol=1e-3, rtol=1e-3)
