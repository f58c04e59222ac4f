"""The controls of a pass: each control picture prepared on the host, at the pass's size, and embedded by its net."""

from __future__ import annotations

import sys

from torch import Tensor

from shared.errors import RenderError
from shared.media.arrays import Pixels
from shared.media.framing import followed
from shared.params.controlnet import ControlUnit
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.architectures.conditioning import Control
from worker.engine.images.preprocessors import hint
from worker.engine.pipelines.denoise_pass import Pass
from worker.engine.pipelines.img2img_host import Canvas
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Apply, Asks, Work
from worker.engine.transfers import pinned, to_device


def controls(this_pass: Pass, kit: Kit, canvas: Canvas | None = None) -> Asks[tuple[Control, ...]]:
    """Return the controls of a pass, which starts from `canvas` if from a picture.

    Raises RenderError if a net does not suit the checkpoint, or a picture is missing.
    """
    found = []
    for unit, net, picture, second in kit.controls:
        first, behind = calls(this_pass, unit.start, unit.end)
        if unit.weight and first < behind:
            net.require_fit(this_pass.weights)
            is_second = second is not None and this_pass.before is not None
            embedded = yield from _embedded(this_pass, unit, net, second if is_second else picture, canvas)
            how = unit.weight, first, behind, unit.mode, types(unit, net), net.is_pooled
            found.append(Control(net.network, embedded, *how))
    return tuple(found)


def calls(this_pass: Pass, start: float, end: float) -> tuple[int, int]:
    """Return the first model call of a pass that lies between these shares of its steps, and the first behind them.

    A step lies between them if it begins after `start` and ends before `end`, as in diffusers.
    """
    steps, order = max(0, len(this_pass.sigmas) - 1), this_pass.facts.order
    if this_pass.plan.calls != order * steps - (order - 1):  # it steps back on the way, or as far as it likes
        steps, order = this_pass.plan.calls, 1
    acting = [step for step in range(steps) if step / steps >= start and (step + 1) / steps <= end]
    if not acting:
        return 0, 0
    return acting[0] * order, sys.maxsize if acting[-1] == steps - 1 else (acting[-1] + 1) * order


def types(unit: ControlUnit, net: ControlNet) -> tuple[int, ...]:
    """Return the type of a unit's picture as a union net numbers it. Raises RenderError if it knows no such type."""
    if not net.types:
        return ()
    if unit.type is None:
        raise RenderError(f"the control net {net.name} is a union: say in `shows` what the control picture shows")
    if unit.type >= net.types:
        raise RenderError(f"the control net {net.name} was not trained on what the control picture shows")
    return (unit.type,)


def _embedded(
    this_pass: Pass, unit: ControlUnit, net: ControlNet, picture: Pixels | None, canvas: Canvas | None
) -> Asks[Tensor]:
    """Return a unit's picture [channels, h/cell, w/cell] as its net embeds it."""
    params, weights = this_pass.params, this_pass.weights

    def prepared() -> Tensor:
        pixels = followed(picture, unit, params.width, params.height, canvas)
        return pinned(hint(pixels, canvas.mask if canvas else None, unit).to(weights.dtype), weights.device)

    shown = yield Work(prepared)
    embedded: Tensor = yield Apply(net.embedding, to_device(shown, weights.device), weights.tiling)
    return embedded
