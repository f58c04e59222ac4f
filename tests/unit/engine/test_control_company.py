"""Rows with two control nets, one, or none share a call of the U-Net, and each is bit for bit what it is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.support import conditioned, control_nets, small_checkpoints
from tests.unit.engine.conftest import Small
from worker.engine.adapters import control_nets as loading
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.answers.calls import Calls
from worker.engine.answers.controlling import Inputs, residuals
from worker.engine.answers.denoising import denoise
from worker.engine.answers.pixels import apply
from worker.engine.architectures.conditioning import Conditioning, Control, ControlMode
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loop.grouping import plan
from worker.engine.loop.runs import Ask, Run
from worker.engine.requests import Apply, Denoise

Nets = Callable[..., ControlNet]


@pytest.fixture(scope="module")
def nets(cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Nets:
    folder = tmp_path_factory.mktemp("nets")
    loaded: dict[tuple[str, int, bool], ControlNet] = {}

    def net(kind: str, seed: int = 0, *, is_union: bool = False) -> ControlNet:
        if (key := (kind, seed, is_union)) not in loaded:
            build = control_nets.build_union if is_union else control_nets.build
            path = folder / f"{kind}-{seed}-{is_union}"
            written = control_nets.write(build(small_checkpoints.build(kind), seed), path)
            loaded[key] = loading.load(written, cpu, torch.float32)
        return loaded[key]

    return net


def control(net: ControlNet, seed: int = 0, side: int = 64, **how: object) -> Control:
    pixels = torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))
    [hint] = apply([Apply(net.embedding, pixels)])
    assert isinstance(hint, Tensor)
    return Control(net.network, hint, is_pooled=net.is_pooled, **how)  # type: ignore[arg-type]


def denoising(weights: Weights, rows: Sequence[Sequence[Control]], seed: int = 0, chunks: int = 1) -> Denoise:
    """Return a request for a row with each of these sets of controls."""
    return conditioned.denoising(weights, [{"controls": tuple(controls)} for controls in rows], seed, chunks)


def answers(requests: Sequence[Denoise]) -> list[Tensor]:
    return [answer for answer in denoise(requests, is_exact=False) if isinstance(answer, Tensor)]


@pytest.fixture
def calls() -> Iterator[Callable[[nn.Module], list[int]]]:
    """Counts the rows of each call of a network from now on."""
    hooks = []

    def counted(network: nn.Module) -> list[int]:
        rows: list[int] = []
        hooks.append(network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0]))))
        return rows

    yield counted
    for hook in hooks:
        hook.remove()


def crowd(weights: Weights, nets: Nets) -> list[Denoise]:
    """Return requests of every kind: two nets, one, one twice, another, none; all modes; texts of two lengths."""
    kind = weights.architecture.name
    one, other = nets(kind), nets(kind, 1)
    soft, strong = control(one, 1, weight=0.4, mode="prompt"), control(other, 2, weight=1.5)
    alone = control(one, 3, mode="control")
    sets = [
        [[soft, strong], [soft, strong]],
        [[alone], []],
        [[strong, soft, control(one, 4)], [strong, soft]],
        [[], []],
        [[control(other, 5)]],
    ]
    if kind == "sdxl":
        union = nets(kind, is_union=True)
        lines, depth = control(union, 6, types=(3,)), control(union, 7, types=(1,), weight=0.7)
        sets += [[[lines], [lines]], [[depth, lines], [depth, lines]], [[control(union, 8, types=(1, 3)), soft]] * 2]
    return [denoising(weights, rows, seed, chunks=2) for seed, rows in enumerate(sets)]


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("sd1", "sd2")), "sdxl"])
def test_rows_with_any_nets_share_a_call_and_are_what_they_are_alone(
    kind: str, small: Small, nets: Nets, calls: Callable[[nn.Module], list[int]]
) -> None:
    weights = small(kind)
    requests = crowd(weights, nets)
    alone = [answers([request])[0] for request in requests]
    waiting = [Ask(Run(iter(()), is_exact=False, is_urgent=False, on_cancel=print), 0, one) for one in requests]
    assert plan(waiting, 64) == ([waiting], [])
    unet, first = calls(weights.unet), calls(nets(kind).network)
    together = answers(requests)
    assert unet == [sum(len(request.terms) for request in requests)]
    assert len(first) == 1
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("is_union", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_a_row_is_the_same_beside_any_number_of_others(is_union: bool, small: Small, nets: Nets) -> None:  # noqa: FBT001
    weights, net = small("sdxl"), nets("sdxl", is_union=is_union)
    types = (3,) if is_union else ()
    requests = [denoising(weights, [[control(net, seed, types=types)]] * 2, seed) for seed in range(5)]
    plain = denoising(weights, [[]], 9)
    alone, plain_alone = answers(requests[:1])[0], answers([plain])[0]
    for count in (1, 2, 5):
        found = answers([*requests[:count], plain])
        assert torch.equal(found[0], alone)
        assert torch.equal(found[-1], plain_alone)
        assert torch.equal(answers([plain, *reversed(requests[:count])])[-1], alone)


def test_a_net_that_acts_alike_at_each_place_is_the_same_in_company(small: Small, nets: Nets) -> None:
    weights, net = small("sd1"), replace(nets("sd1"), is_pooled=True)
    requests = [denoising(weights, [[control(net, seed)]], seed) for seed in range(4)]
    for one, request in zip(answers(requests), requests, strict=True):
        assert torch.equal(one, *answers([request]))
    assert not torch.equal(answers(requests[:1])[0], answers([denoising(weights, [[control(nets("sd1"))]])])[0])


@pytest.mark.parametrize("mode", ["balanced", "prompt", "control"])
def test_residuals_weigh_as_the_mode_says(mode: ControlMode, small: Small, nets: Nets) -> None:
    weights, net = small("sd1"), nets("sd1")
    [term] = denoising(weights, [[]]).terms
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
    at = torch.full((2,), 500.0)
    stacked = term.conditioning.stack([term.conditioning], weights.device, weights.masks)
    inputs = Inputs(latents, at, stacked, "none", weights.device)
    with torch.inference_mode():
        full = residuals([[control(net)], []], inputs)
        found = residuals([[], [control(net, weight=0.7, mode=mode)]], inputs)
    assert full is not None and found is not None  # noqa: PT018 - for mypy
    assert len(full.down) == 6
    for place, (one, other) in enumerate(zip([*full.down, full.middle], [*found.down, found.middle], strict=True)):
        scale = 0.7 if mode == "balanced" else 0.7 * 0.825 ** (6 - place)
        torch.testing.assert_close(other[1], one[0] * scale)
        assert bool(one[0].any())
        assert not other[0].any()
        assert bool(torch.signbit(other[0]).all())  # -0, which changes not even the sign of a zero


def test_a_control_acts_on_the_negative_prompt_unless_it_matters_more() -> None:
    hint = torch.zeros(1, 1, 1)
    acting = [Control(nn.Identity(), hint, mode=mode).acts_on_negative for mode in ("balanced", "prompt", "control")]
    assert acting == [True, True, False]
    assert not Control(nn.Identity(), hint, is_pooled=True).acts_on_negative


def test_a_control_acts_in_its_calls_alone() -> None:
    early, late = (
        Control(nn.Identity(), torch.zeros(1, 1, 1), start=start, end=end) for start, end in ((0, 3), (2, 9))
    )
    conditioning = Conditioning(torch.zeros(77, 8), 77, controls=(early, late))
    acting = [conditioning.at(call).controls for call in (0, 2, 3, 9)]
    assert acting == [(early,), (early, late), (late,), ()]
    assert conditioning.at(2) is conditioning


@pytest.mark.parametrize("tiling", ["both", "x"])
def test_a_tiled_picture_goes_on_at_its_other_side(tiling: str, small: Small, nets: Nets) -> None:
    weights, net = small("sd1").tiled(tiling), nets("sd1")  # type: ignore[arg-type]
    pixels = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(3))
    moves = (4, 8) if tiling == "both" else (0, 8)

    def step(pixels: Tensor, moved: tuple[int, int]) -> Tensor:
        [hint] = apply([Apply(net.embedding, pixels, weights.tiling)])
        request = denoising(weights, [[Control(net.network, hint)]])  # type: ignore[arg-type]  # no error
        x = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(3))
        return answers([replace(request, x=x.roll(moved, dims=(1, 2)))])[0]

    moved = step(pixels.roll(tuple(8 * move for move in moves), dims=(1, 2)), moves)
    torch.testing.assert_close(moved, step(pixels, (0, 0)).roll(moves, dims=(1, 2)), atol=1e-3, rtol=1e-3)


def test_a_failing_row_of_a_net_harms_no_other_row(small: Small, nets: Nets) -> None:
    weights, net = small("sd1"), nets("sd1")
    broken = replace(control(net), hint=torch.zeros(3, 8, 8))
    requests = [denoising(weights, [[broken]]), denoising(weights, [[control(net)]], 1), denoising(weights, [[]], 2)]
    found = denoise(requests, is_exact=False, calls=Calls())
    assert isinstance(found[0], Exception)
    for one, request in zip(found[1:], requests[1:], strict=True):
        assert isinstance(one, Tensor)
        assert torch.equal(one, *answers([request]))
