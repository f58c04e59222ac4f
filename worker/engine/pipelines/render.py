"""Pipelines: from parameters to a picture. A pipeline never sees a batch, a thread or another picture."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from shared.media.arrays import Pixels
from shared.params import geometry
from shared.params.img2img import Img2Img
from shared.params.render import RenderParams
from worker.engine.architectures.weights import Weights
from worker.engine.pipelines import hires, img2img, img2img_host
from worker.engine.pipelines.denoise_pass import Pass, drawn, from_noise, modelled, noised, planned, sampled
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.steering import steering
from worker.engine.requests import Asks, Work
from worker.engine.upscaling.face_restoring import restored
from worker.engine.vae import decoded

Picture = Pixels


def render(params: RenderParams, kit: Kit) -> Asks[Picture]:
    """Return the picture that resolved parameters describe. Raises RenderError where the result is not a picture."""
    return image_to_image(params, params.img2img, kit) if params.img2img else text_to_image(params, kit)


def text_to_image(params: RenderParams, kit: Kit) -> Asks[Picture]:
    """Return a picture of the prompt alone: one pass, and with hires fix a larger one over its result."""
    first, second = yield Work(partial(_passes, params, kit))
    draws = yield from drawn(first)
    model = yield from modelled(first, steering=(yield from steering(first, kit)))
    latent = yield from sampled(first, model, from_noise(first, draws.first), draws)
    if second and params.hires:
        latent = yield from hires.larger(latent, first, second, params.hires, kit.upscaler)
        draws = yield from drawn(second)
        model = yield from modelled(second, steering=(yield from steering(second, kit)))
        latent = yield from sampled(second, model, noised(latent, draws.first, second), draws)
    return (yield from _finished(params, kit, (second or first).weights, latent))


def image_to_image(params: RenderParams, options: Img2Img, kit: Kit) -> Asks[Picture]:
    """Return a picture painted over another one, or over its masked part."""
    steps = geometry.img2img_steps(params.steps, options.denoising, exact=options.exact_steps)
    source = yield Work(partial(img2img_host.prepared, params, options, kit))
    this_pass: Pass = yield Work(partial(planned, params, kit.weights, kit.refiner, adapters=kit.adapters, steps=steps))
    draws = yield from drawn(this_pass)
    start = yield from img2img.scene(source, this_pass, draws.first, options.repaints)
    model = yield from modelled(this_pass, start.view, (yield from steering(this_pass, kit, source)))
    noise = draws.first * options.noise_multiplier
    x = noised(start.latent, noise, this_pass, extra=options.extra_noise)
    latent = yield from sampled(this_pass, start.model(model, noise, this_pass), x, draws)
    pixels = yield from _finished(params, kit, this_pass.weights, start.with_unmasked(latent))
    result: Picture = yield Work(lambda: img2img_host.finished(source, pixels, options))
    return result


def _finished(params: RenderParams, kit: Kit, weights: Weights, latent: Tensor) -> Asks[Pixels]:
    """Return the picture of the last pass, with its faces restored; only what a mask shows of it is seen later."""
    pixels = yield from decoded(weights, latent)
    if params.faces and kit.face_restorer:
        pixels = yield from restored(kit.face_restorer, pixels, params.faces, weights.device)
    return pixels


def _passes(params: RenderParams, kit: Kit) -> tuple[Pass, Pass | None]:
    """Return the pass of `params` and the second one, if any, in which alone a refiner then takes part."""
    if not params.hires:
        return planned(params, kit.weights, kit.refiner, adapters=kit.adapters), None
    first = planned(params, kit.weights, adapters=kit.adapters)
    second = hires.second_pass(first, params.hires, kit)
    calls = first.plan.calls + second.plan.calls
    return replace(first, calls_in_all=calls), replace(second, calls_in_all=calls)
