"""One denoising pass: prompts, sigmas, noise, a guided model and a sampler. Every picture is made by such passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Final

from torch import Tensor, cat

from shared.params.geometry import Steps
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS as FACTS
from shared.params.samplers import Sampler as SamplerFacts
from worker.engine.architectures.conditioning import UNSTEERED, Adapter, Steering
from worker.engine.architectures.weights import Weights
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

PINNED_BYTES: Final = 2**20  # of noise at a time, which the engine's thread copies quickly


@dataclass(frozen=True, eq=False)
class Pass:
    """One denoising pass. `params` are its own: those of a second pass hold its own size and prompts."""

    params: RenderParams
    weights: Weights
    refiner: Weights | None
    adapters: Mapping[str, Adapter]
    sigmas: Sequence[float]  # empty: it takes no step
    plan: Plan
    bounds: tuple[float, float]  # lowest and highest sigma of the schedule before it was cut
    before: Pass | None = None  # the pass whose result this one starts from
    calls_in_all: int = 0  # model calls of the whole render, for progress

    @property
    def facts(self) -> SamplerFacts:
        """The facts about its sampler."""
        return FACTS[self.params.sampler]

    @property
    def steps_in_prompt(self) -> int:
        """Model calls of all steps, by which prompt editing counts, also if img2img skips some of them."""
        return self.params.steps * self.facts.order

    @property
    def takes_mask(self) -> bool:
        """Whether its checkpoint or its refiner was trained to inpaint."""
        return any(one.takes_mask for one in (self.weights, self.refiner) if one)


@dataclass(frozen=True, eq=False)
class Draws:
    """The noise of a pass on the card: the first one, and that of its steps, copied when a step asks for it."""

    first: Tensor  # [channels, h/cell, w/cell]
    step: Callable[[float, float], Tensor]


def planned(  # noqa: PLR0913 - what a pass has beside its parameters
    params: RenderParams,
    weights: Weights,
    refiner: Weights | None = None,
    *,
    adapters: Mapping[str, Adapter] = conditioning.NONE,
    steps: Steps | None = None,
    before: Pass | None = None,
) -> Pass:
    """Return the pass that renders `params` along a whole schedule, or along the last part of one, by `steps`.

    May be slow. Raises RenderError if the schedule's bounds are impossible.
    """
    weights, refiner = viewed(weights, params), refiner and viewed(refiner, params)
    if steps and not steps.run:
        return Pass(params, weights, refiner, adapters, (), Plan(0, ()), (0, 0), before)
    along = partial(
        schedules.sigmas, weights.sigmas, sampler=params.sampler, schedule=params.schedule, options=params.sampling
    )
    whole = along(steps=steps.total if steps else params.steps)
    sigmas = along(steps=steps.total, run_last=steps.run - 1) if steps else whole
    calls_and_noise = plan(params.sampler, sigmas, params.sampling)
    return Pass(params, weights, refiner, adapters, sigmas, calls_and_noise, brownian.bounds(whole), before)


def viewed(weights: Weights, params: RenderParams) -> Weights:
    """Return `weights` with the edges and the noise levels that `params` ask for."""
    if params.sampling.zero_terminal_snr:
        weights = replace(weights, sigmas=weights.sigmas.at_zero_terminal_snr())
    return weights.tiled(params.tiling)


def drawn(this_pass: Pass) -> Asks[Draws]:
    """Return the noise of a pass, drawn ahead on the host; only for an adaptive sampler each step draws its own."""
    params, device = this_pass.params, this_pass.weights.device
    source = ImageNoise(params.seed, params.noise, this_pass.weights.latent, params.width, params.height)
    blocks = yield Work(lambda: _blocks(_draws(this_pass, source), device))
    ahead = _sent(blocks, device)
    first = next(ahead)
    if this_pass.facts.is_adaptive:
        return Draws(first, lambda *_: to_device(pinned(source.next(), device), device))
    return Draws(first, lambda *_: next(ahead))


def modelled(this_pass: Pass, view: View | None = None, steering: Steering = UNSTEERED) -> Asks[Model]:
    """Return the model of a pass, guided by its prompts; a refiner, if there is one, takes over on the way.

    `view` goes to an inpainting checkpoint; None: the whole picture is masked. `steering` is for the pass's checkpoint,
    and not for its refiner.
    """
    calls, params = count(), this_pass.params
    extra = None
    if this_pass.takes_mask:
        extra = yield from seen(this_pass.weights, view, params.width, params.height)
    model = yield from _guided(this_pass, this_pass.weights, calls, extra, steering)
    if this_pass.refiner and params.refiner:
        second = yield from _guided(this_pass, this_pass.refiner, calls, extra)
        model = switched(model, second, switch_sigma(this_pass.weights.sigmas, params.refiner.switch_at))
    return _with_numbers(model, this_pass)


def from_noise(this_pass: Pass, noise: Tensor) -> Tensor:
    """Return the latent at the first sigma from which a pass paints without a picture: unit `noise`, brought there.

    For some samplers `noise` is the whole latent as the network sees it.
    """
    sigma = this_pass.sigmas[0]
    return noise * (this_pass.weights.prediction.scale(sigma) if this_pass.facts.uses_network_scale else sigma)


def sampled(this_pass: Pass, model: Model, x: Tensor, draws: Draws) -> Asks[Tensor]:
    """Return the latent to which the sampler of a pass takes `x`, which is at its first sigma.

    Some samplers end above sigma 0, with a latent as the network sees it, in which some noise is left.
    """
    if not this_pass.sigmas:
        return x
    sampler = SAMPLERS[this_pass.params.sampler]
    end = yield from sampler(model, x, this_pass.sigmas, draws.step, this_pass.params.sampling)
    return end / this_pass.weights.prediction.scale(this_pass.sigmas[-1]) if this_pass.facts.uses_network_scale else end


def noised(latent: Tensor, noise: Tensor, this_pass: Pass, extra: float = 0) -> Tensor:
    """Return `latent` with the noise that a pass starts with, and `extra`; unchanged if the pass takes no step."""
    return latent + noise * (this_pass.sigmas[0] + extra) if this_pass.sigmas else latent


def _draws(this_pass: Pass, source: ImageNoise) -> Tensor:
    """Return the first noise of a pass and that of its steps [1 + draws, channels, h/cell, w/cell], in order."""
    params, queries = this_pass.params, this_pass.plan.queries
    if not this_pass.facts.uses_brownian:
        return source.draws(1 + len(queries))
    first = source.first()
    steps = brownian.draws(first.shape, params.seed, this_pass.bounds, queries, source=params.noise.source)
    return cat([first[None], steps])


def _blocks(noise: Tensor, device: Device) -> list[Tensor]:
    """Return `noise` in blocks of several draws, in order; only the first block is pinned."""
    draws = max(1, PINNED_BYTES // noise[0].nbytes)
    first, *others = noise.split(draws)
    return [pinned(first, device), *others]


def _sent(blocks: Sequence[Tensor], device: Device) -> Iterator[Tensor]:
    """Yield each draw on the card when its step asks for it: all of them together would be large.

    A block is pinned only when it is needed, because pinned memory never returns to the system.
    """
    for number, block in enumerate(blocks):
        for one in pinned(block, device) if number else block:
            yield to_device(one, device)


def _guided(
    this_pass: Pass,
    weights: Weights,
    calls: Iterator[int],
    extra: Tensor | None,
    steering: Steering = UNSTEERED,
) -> Asks[Model]:
    """Return the guided model of one checkpoint of a pass; only one that was trained to inpaint sees `extra`.

    A refiner has no adapters: they were made for the checkpoint that it takes over from.
    """
    params, facts = this_pass.params, this_pass.facts
    before = this_pass.before
    prompt = yield from conditioning.prepare(
        weights,
        params,
        calls=this_pass.steps_in_prompt,
        base_calls=before.steps_in_prompt if before else None,
        extra=extra if weights.takes_mask else None,
        adapters=this_pass.adapters if weights is this_pass.weights else conditioning.NONE,
        steering=steering,
    )
    guide: Callable[..., Any] = guided_pair if facts.needs_unconditional else guided
    scale = params.cfg_scale / facts.scale_divisor
    model: Model = guide(weights, prompt, scale, params.guidance, this_pass.plan.calls, count=calls)
    return model


def _with_numbers(model: Model, this_pass: Pass) -> Model:
    """Return `model` with its calls counted on from the pass before, and marked as those of a second pass."""
    before = this_pass.before.plan.calls if this_pass.before else 0
    if this_pass.before is None and this_pass.calls_in_all in {0, this_pass.plan.calls}:
        return model

    def number(request: Request) -> Request:
        if not isinstance(request, Denoise):
            return request
        call = request.call + before
        return replace(
            request, call=call, calls=max(call, this_pass.calls_in_all), is_second_pass=this_pass.before is not None
        )

    def numbered(x: Tensor, sigma: float) -> Asks[Any]:
        asks, answer = model(x, sigma), None
        while True:
            try:
                yielded = asks.send(answer)
            except StopIteration as end:
                return end.value
            answer = yield tuple(map(number, yielded)) if isinstance(yielded, tuple) else number(yielded)

    return numbered
