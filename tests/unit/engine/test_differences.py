"""Forms of the LoRA family that LyCORIS does not write today: of its older versions, of kohya and of peft."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from lycoris.modules import ButterflyOFTModule
from torch import Tensor, nn

from worker.engine.adapters.differences import differences
from worker.engine.files.lora.reading import LoraFile, of_weights

OUTPUTS, INPUTS, RANK = 12, 8, 3
LAYER = "lora_unet_mid_block_attentions_0_proj_in"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


WEIGHT = drawn(OUTPUTS, INPUTS, seed=1)
UP, DOWN = drawn(OUTPUTS, RANK), drawn(RANK, INPUTS)
SKEW = drawn(3, 4, 4)


def read(parameters: Mapping[str, Tensor], layer: str = LAYER) -> LoraFile:
    return of_weights({f"{layer}.{name}": one for name, one in parameters.items()}, {})


def changed(parameters: Mapping[str, Tensor], strength: float = 1.0, weight: Tensor = WEIGHT, **more: Tensor) -> Tensor:
    (layer,) = read(parameters).every
    return weight + differences(layer, {"weight": weight, **more}, strength)["weight"]


def rotation(skew: Tensor) -> Tensor:
    unit = torch.eye(skew.shape[-1])
    return (unit + skew) @ torch.linalg.inv(unit - skew)


@pytest.mark.parametrize("outputs", [OUTPUTS, INPUTS])
def test_glora_is_read_in_both_orders_of_its_factors(outputs: int) -> None:
    weight = drawn(outputs, INPUTS, seed=2)
    narrow, wide, after, before = drawn(RANK, INPUTS, seed=3), drawn(INPUTS, RANK, seed=4), drawn(outputs, RANK), DOWN
    expected = weight + weight @ wide @ narrow + after @ before
    old = {"a1.weight": narrow, "a2.weight": wide, "b1.weight": before, "b2.weight": after}
    new = {"a1.weight": wide, "a2.weight": narrow, "b1.weight": after, "b2.weight": before}
    for parameters in (old, new):
        torch.testing.assert_close(changed(parameters, weight=weight), expected)


def test_rotations_that_are_stored_as_such_are_those_of_the_first_oft() -> None:
    blocks = SKEW - SKEW.mT
    expected = torch.cat([rotation(one).T @ rows for one, rows in zip(blocks, WEIGHT.split(4), strict=True)])
    torch.testing.assert_close(changed({"oft_diag": rotation(blocks)}), expected)
    torch.testing.assert_close(changed({"oft_blocks": SKEW}), expected)
    (kohya,) = read({"oft_blocks": SKEW}, LAYER.replace("lora_unet", "oft_unet")).layers["unet"].values()
    torch.testing.assert_close(WEIGHT + differences(kohya, {"weight": WEIGHT}, 1.0)["weight"], expected)


def test_the_bound_of_oft_is_alpha_for_each_output() -> None:
    skew = SKEW - SKEW.mT
    held = skew * (0.01 * OUTPUTS / skew.norm())
    expected = torch.cat([rotation(one).T @ rows for one, rows in zip(held, WEIGHT.split(4), strict=True)])
    torch.testing.assert_close(changed({"oft_blocks": SKEW, "alpha": torch.tensor(0.01)}), expected)


def test_peft_gives_rows_a_length() -> None:
    lengths = drawn(OUTPUTS).abs()
    after = WEIGHT + UP @ DOWN
    expected = after / after.norm(dim=1, keepdim=True) * lengths[:, None]
    stored = {"unet.conv_out.lora_A.weight": DOWN, "unet.conv_out.lora_B.weight": UP}
    for ending in ("lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight"):
        (layer,) = of_weights(stored | {f"unet.conv_out.{ending}": lengths}, {}).every
        torch.testing.assert_close(WEIGHT + differences(layer, {"weight": WEIGHT}, 1.0)["weight"], expected)
        half = differences(layer, {"weight": WEIGHT}, 0.5)["weight"]
        torch.testing.assert_close(half, (expected - WEIGHT) / 2)


def test_a_row_of_zeros_keeps_no_length() -> None:
    parameters = {
        "lora_up.weight": UP,
        "lora_down.weight": torch.zeros_like(DOWN),
        "dora_scale": torch.ones(OUTPUTS, 1),
    }
    assert torch.equal(changed(parameters, weight=torch.zeros_like(WEIGHT)), torch.zeros_like(WEIGHT))


def test_a_bias_may_change_beside_factors() -> None:
    parameters = {"lora_up.weight": UP, "lora_down.weight": DOWN, "diff_b": drawn(OUTPUTS)}
    (layer,) = read(parameters).every
    found = differences(layer, {"weight": WEIGHT, "bias": torch.zeros(OUTPUTS)}, 0.5)
    torch.testing.assert_close(found["weight"], 0.5 * UP @ DOWN)
    torch.testing.assert_close(found["bias"], 0.5 * drawn(OUTPUTS))


def test_a_matrix_is_read_for_a_convolution_of_single_points_and_the_other_way() -> None:
    wide = {"lora_up.weight": UP[..., None, None], "lora_down.weight": DOWN[..., None, None]}
    flat = {"lora_up.weight": UP, "lora_down.weight": DOWN}
    convolution = WEIGHT[..., None, None]
    torch.testing.assert_close(changed(wide), changed(flat))
    torch.testing.assert_close(changed(flat, weight=convolution), changed(wide, weight=convolution))


@torch.no_grad()
@pytest.mark.parametrize("strength", [0.5, -1.0, 2.0])
def test_the_strength_of_boft_holds_for_each_stage_as_in_lycoris(strength: float) -> None:
    layer = nn.Linear(INPUTS, 16, bias=False)
    module = ButterflyOFTModule(LAYER, layer, strength, lora_dim=4)
    module.oft_blocks.copy_(drawn(*module.oft_blocks.shape) * 0.3)
    expected, _ = module.get_merged_weight(strength)
    torch.testing.assert_close(changed({"oft_blocks": module.oft_blocks}, strength, layer.weight), expected)


@pytest.mark.parametrize(("alpha", "scale"), [(1.5, 0.5), (0.0, 1.0), (None, 1.0), (-3.0, -1.0)])
def test_alpha_is_divided_by_the_rank_and_none_or_0_scales_nothing(alpha: float | None, scale: float) -> None:
    stated = {} if alpha is None else {"alpha": torch.tensor(alpha)}
    parameters = {"lora_up.weight": UP, "lora_down.weight": DOWN, **stated}
    torch.testing.assert_close(changed(parameters), WEIGHT + scale * UP @ DOWN)
