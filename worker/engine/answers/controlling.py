"""Control nets within the answer to `Denoise`: each is called once, for the rows that it steers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared.params.fields import Tiling
from worker.engine.answers.tiling import seamless
from worker.engine.architectures.conditioning import Control, Residuals, Stacked
from worker.engine.devices import Device
from worker.engine.transfers import to_device


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of a call of the U-Net, which its control nets see too."""

    latents: Tensor  # [rows, channels, h/cell, w/cell], at unit variance, channels last
    timesteps: Tensor  # [rows]
    stacked: Stacked
    tiling: Tiling
    device: Device


class _Steered(NamedTuple):
    """A row of a call of a control net: its place in the call of the U-Net, and the control's place in that row."""

    row: int
    turn: int
    control: Control


def residuals(rows: Sequence[Sequence[Control]], inputs: Inputs) -> Residuals | None:
    """Return what the controls of each row add to the U-Net's residuals; None if no row has a control.

    The net of a union is called once for each set of types. The sum of a row is taken in the order of its controls, so
    it does not depend on the other rows; a row without a control adds -0, which changes no bit.
    """
    nets: dict[tuple[nn.Module, tuple[int, ...]], list[_Steered]] = defaultdict(list)
    for row, controls in enumerate(rows):
        for turn, control in enumerate(controls):
            nets[control.net, control.types].append(_Steered(row, turn, control))
    answers = [(steered, _weighed(steered, inputs)) for steered in nets.values()]
    if not answers:
        return None
    totals = [one.new_full((len(rows), *one.shape[1:]), -0.0) for one in answers[0][1]]
    totals = [total.contiguous(memory_format=torch.channels_last) for total in totals]
    for turn in range(max(map(len, rows))):
        for steered, parts in answers:
            _add(totals, parts, steered, turn, inputs.device)
    *down, middle = totals
    return Residuals(tuple(down), middle)


def _add(totals: Sequence[Tensor], parts: Sequence[Tensor], steered: Sequence[_Steered], turn: int, on: Device) -> None:
    """Add to the total of each row the part of its control number `turn`, if this net answers that."""
    found = [(place, one.row) for place, one in enumerate(steered) if one.turn == turn]
    if not found:
        return
    places, rows = (to_device(torch.tensor(numbers), on) for numbers in zip(*found, strict=True))
    for total, part in zip(totals, parts, strict=True):
        total.index_add_(0, rows, part.index_select(0, places))


def _weighed(steered: Sequence[_Steered], inputs: Inputs) -> list[Tensor]:
    """Return the residuals of one call of a net, the middle's last, each times its row's weight."""
    controls = [one.control for one in steered]
    found = _called(controls, _picked(inputs, [one.row for one in steered]))
    weights = torch.tensor([control.scales(len(found)) for control in controls])  # [rows, residuals]
    scales = to_device(weights, inputs.device).to(found[0].dtype)[..., None, None, None].unbind(1)
    if controls[0].is_pooled:
        found = [one.mean(dim=(2, 3), keepdim=True).expand_as(one) for one in found]
    return [one * scale for one, scale in zip(found, scales, strict=True)]


def _picked(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """Return the inputs of these rows, some of which may come twice."""
    if rows == list(range(len(inputs.latents))):
        return inputs
    places = to_device(torch.tensor(rows), inputs.device)

    def of(tensor: Tensor | None) -> Any:  # noqa: ANN401 - a tensor, or None as it came
        return None if tensor is None else tensor.index_select(0, places)

    latents = of(inputs.latents).contiguous(memory_format=torch.channels_last)
    return Inputs(latents, of(inputs.timesteps), Stacked(*map(of, inputs.stacked)), inputs.tiling, inputs.device)


def _called(controls: Sequence[Control], inputs: Inputs) -> list[Tensor]:
    """Return the residuals of the net of `controls` [rows, channels, h, w], the middle's last."""
    net: Any = controls[0].net
    types, stacked = controls[0].types, inputs.stacked
    hints = torch.stack([control.hint for control in controls]).contiguous(memory_format=torch.channels_last)
    call = partial(net, inputs.latents, inputs.timesteps, stacked.context, return_dict=False)
    if stacked.sizes is not None:
        call = partial(call, added_cond_kwargs={"text_embeds": stacked.pooled, "time_ids": stacked.sizes})
    with seamless(net, inputs.tiling), _masked(net, stacked.mask):
        if types:
            shown = torch.zeros(len(controls), net.config["num_control_type"])
            shown[:, list(types)] = 1
            kinds = to_device(shown, inputs.device).to(hints.dtype)
            down, middle = call([hints] * len(types), control_type=kinds, control_type_idx=list(types))
        else:
            down, middle = call(hints)
    return [*down, middle]


@contextmanager
def _masked(net: nn.Module, mask: Tensor | None) -> Iterator[None]:
    """Within the block, the attention of `net` to the text leaves out the tokens outside of `mask` [rows, tokens].

    Diffusers' control nets have no argument for it; their blocks have.
    """
    found = [*net.down_blocks, net.mid_block] if mask is not None else []  # type: ignore[misc]  # modules
    blocks = [block for block in found if getattr(block, "has_cross_attention", False)]
    for block in blocks:
        vars(block)["forward"] = partial(block.forward, encoder_attention_mask=mask)
    try:
        yield
    finally:
        for block in blocks:
            del vars(block)["forward"]  # makes the method of the class visible again
