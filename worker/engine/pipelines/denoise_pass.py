"""One way down the noise: words, sigmas, noise, a guided model and a sampler. Every picture is made of such passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Final

from torch import Tensor, cat

from shared.params.geometry import Steps
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS as FACTS
from worker.engine.devices import Device
from worker.engine.guidance import conditioning
from worker.engine.guidance.cfg import guided, guided_pair, switch_sigma, switched
from worker.engine.guidance.inpainting import View, seen
from worker.engine.requests import Asks, Denoise, Request, Work
from worker.engine.sampling import brownian, schedules
from worker.engine.sampling.algebra import Model
from worker.engine.sampling.noise import ImageNoise
from worker.engine.sampling.planning import Plan
from worker.engine.sampling.registry import SAMPLERS, plan
from worker.engine.transfers import pinned, to_device
from worker.engine.weights import Weights

PINNED_BYTES: Final = 2**20  # of noise at a time: the engine's thread copies so much in no time


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass is made of. `params` are its own: a second pass has its size and prompts where a first one has."""

    params: RenderParams
    weights: Weights
    refiner: Weights | None
    sigmas: Sequence[float]  # empty: no step is taken
    plan: Plan
    bounds: tuple[float, float]  # lowest and highest sigma of the schedule before it was cut
    before: Pass | None = None  # the pass whose result this one starts from
    calls_in_all: int = 0  # model calls of the whole render, for progress

    @property
    def steps_in_prompt(self) -> int:
        """Model calls that prompt editing takes for the whole: those of all steps asked for, be some cut off or not."""
        return self.params.steps * FACTS[self.params.sampler].order


@dataclass(frozen=True, eq=False)
class Draws:
    """The noise of a pass on the card: what it starts from, and what its steps add, sent when they ask for it."""

    first: Tensor  # [4, h/8, w/8]
    step: Callable[[float, float], Tensor]


def planned(
    params: RenderParams,
    weights: Weights,
    refiner: Weights | None = None,
    *,
    steps: Steps | None = None,
    before: Pass | None = None,
) -> Pass:
    """Return the pass that renders `params` along a whole schedule, or along the end of one that `steps` says.

    May be slow. Raises RenderError where the schedule's bounds are impossible.
    """
    weights, refiner = viewed(weights, params), refiner and viewed(refiner, params)
    if steps and not steps.run:
        return Pass(params, weights, refiner, (), Plan(0, ()), (0, 0), before)
    along = partial(
        schedules.sigmas, weights.sigmas, sampler=params.sampler, schedule=params.schedule, options=params.sampling
    )
    whole = along(steps=steps.total if steps else params.steps)
    sigmas = along(steps=steps.total, kept=steps.run - 1) if steps else whole
    known = plan(params.sampler, sigmas, params.sampling)
    return Pass(params, weights, refiner, sigmas, known, brownian.bounds(whole), before)


def viewed(weights: Weights, params: RenderParams) -> Weights:
    """Return `weights` with the edges and the noise levels that `params` ask for."""
    if params.sampling.zero_terminal_snr:
        weights = replace(weights, sigmas=weights.sigmas.at_zero_terminal_snr())
    return weights.tiled(params.tiling)


def drawn(way: Pass) -> Asks[Draws]:
    """Return the noise of a pass, drawn ahead on the host; an adaptive sampler alone draws as it goes."""
    params, device = way.params, way.weights.device
    source = ImageNoise(params.seed, params.noise, params.width, params.height)
    blocks = yield Work(lambda: _blocks(_draws(way, source), device))
    ahead = _sent(blocks, device)
    first = next(ahead)
    if FACTS[params.sampler].is_adaptive:
        return Draws(first, lambda *_: to_device(pinned(source.next(), device), device))
    return Draws(first, lambda *_: next(ahead))


def modelled(way: Pass, view: View | None = None) -> Asks[Model]:
    """Return the model of a pass: guided by its words, handed over to a refiner on the way if there is one.

    `view` is what a checkpoint for inpainting is shown; None: nothing, all is to be painted.
    """
    calls = count()
    model = yield from _guided(way, way.weights, calls, view)
    if way.refiner and way.params.refiner:
        second = yield from _guided(way, way.refiner, calls, view)
        model = switched(model, second, switch_sigma(way.weights.sigmas, way.params.refiner.switch_at))
    return _numbered(model, way)


def walked(way: Pass, model: Model, x: Tensor, draws: Draws) -> Asks[Tensor]:
    """Return the latent that the sampler of a pass makes of `x`, which stands at its first sigma."""
    if not way.sigmas:
        return x
    sampler = SAMPLERS[way.params.sampler]
    return (yield from sampler(model, x, way.sigmas, draws.step, way.params.sampling))


def noised(latent: Tensor, noise: Tensor, way: Pass, extra: float = 0) -> Tensor:
    """Return `latent` under the noise that a pass starts with and `extra` on top; where it takes no step, as it is."""
    return latent + noise * (way.sigmas[0] + extra) if way.sigmas else latent


def _draws(way: Pass, source: ImageNoise) -> Tensor:
    """The first noise of a pass and that of its steps [1 + draws, 4, h/8, w/8], in order."""
    params, queries = way.params, way.plan.queries
    if not FACTS[params.sampler].uses_brownian:
        return source.draws(1 + len(queries))
    first = source.first()
    steps = brownian.draws(first.shape, params.seed, way.bounds, queries, source=params.noise.source)
    return cat([first[None], steps])


def _blocks(noise: Tensor, device: Device) -> list[Tensor]:
    """`noise` in blocks of some draws, in order: the first one pinned, the others as they are."""
    draws = max(1, PINNED_BYTES // noise[0].nbytes)
    first, *others = noise.split(draws)
    return [pinned(first, device), *others]


def _sent(blocks: Sequence[Tensor], device: Device) -> Iterator[Tensor]:
    """Each draw on the card when its step asks: together they are large.

    So are they pinned, and pinned memory never goes back to the system: a block is when its turn comes.
    """
    for number, block in enumerate(blocks):
        for one in pinned(block, device) if number else block:
            yield to_device(one, device)


def _guided(way: Pass, weights: Weights, calls: Iterator[int], view: View | None) -> Asks[Model]:
    """The guided model of one of the checkpoints of a pass."""
    params, facts = way.params, FACTS[way.params.sampler]
    prompt = yield from conditioning.prepare(
        weights,
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        calls=way.steps_in_prompt,
        clip_skip=params.clip_skip,
        emphasis=params.emphasis,
        is_hires=way.before is not None,
        base_calls=way.before.steps_in_prompt if way.before else 0,
    )
    extra = yield from seen(weights, view, params.width, params.height)
    guide: Callable[..., Any] = guided_pair if facts.needs_unconditional else guided
    scale = params.cfg_scale / facts.scale_divisor
    model: Model = guide(weights, prompt, scale, params.guidance, way.plan.calls, extra=extra, count=calls)
    return model


def _numbered(model: Model, way: Pass) -> Model:
    """`model` with its calls numbered on from those of the pass before, and marked as those of a second one."""
    before = way.before.plan.calls if way.before else 0
    if way.before is None and way.calls_in_all in {0, way.plan.calls}:
        return model

    def number(request: Request) -> Request:
        if not isinstance(request, Denoise):
            return request
        call = request.call + before
        return replace(request, call=call, calls=max(call, way.calls_in_all), is_second_pass=way.before is not None)

    def numbered(x: Tensor, sigma: float) -> Asks[Any]:
        asks, answer = model(x, sigma), None
        while True:
            try:
                asked = asks.send(answer)
            except StopIteration as end:
                return end.value
            answer = yield tuple(map(number, asked)) if isinstance(asked, tuple) else number(asked)

    return numbered
