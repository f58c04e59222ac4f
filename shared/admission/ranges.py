"""Numbers of the right form, checked against the farm's limits and against each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.admission import sizes
from shared.admission.accepted import accepted, bounds
from shared.errors import FieldError
from shared.params import paths
from shared.params.fields import MAX_SEED
from shared.params.geometry import hires_size
from shared.params.render import RenderParams
from shared.params.table import parameters
from shared.settings import Limits
from shared.wording import spelled

_USUAL_SIGMAS: Final = (0.0292, 14.6146)  # of the noise that Stable Diffusion 1 was trained with
MOST_STEPS: Final = 1000  # of one schedule: as many as there are timesteps


def beyond(params: RenderParams, limits: Limits) -> Iterator[FieldError]:
    """Yield the numbers of complete parameters that pass the farm's limits or contradict each other."""
    within = True
    for name, (least, most) in bounds(limits).items():
        value = paths.get(params, name)
        stands_for_something = value == 0 and 0 in parameters()[name].fact.means
        if value is None or least <= value <= most or stands_for_something:
            continue
        within = False
        how = "small" if value < least else "large"
        yield FieldError(name, f"{spelled(value)} is too {how}", accepted(name, limits))
    yield from _seeds(params)
    yield from _noise(params)
    yield from _sigmas(params)
    if within:  # else the numbers that are computed from them mean nothing
        yield from _areas(params, limits)
        yield from _second_pass(params, limits)
        if params.img2img is not None and params.img2img.exact_steps:
            yield from _spread("img2img.denoising", params.steps, params.img2img.denoising)


def _seeds(params: RenderParams) -> Iterator[FieldError]:
    """Yield the seed, or variation seed, that would pass the largest one: image i uses seed + i."""
    leans = params.noise.variation_strength > 0
    name, first = ("noise.variation_seed", params.noise.variation_seed) if leans else ("seed", params.seed)
    if first + params.count - 1 > MAX_SEED:
        message = f"the last of {params.count} images would pass {MAX_SEED}"
        yield FieldError(name, message, f"at most {MAX_SEED - params.count + 1}")


def _noise(params: RenderParams) -> Iterator[FieldError]:
    sizes = {"noise.resize_width": params.noise.resize_width, "noise.resize_height": params.noise.resize_height}
    if any(sizes.values()) and not all(sizes.values()):
        missing = next(name for name, side in sizes.items() if not side)
        yield FieldError(missing, "is missing: only the other side is given", "both sides, or 0 for both")


def _areas(params: RenderParams, limits: Limits) -> Iterator[FieldError]:
    """Yield the longer side of each size that has too many pixels, although neither side is too long."""
    for names in (("width", "height"), ("noise.resize_width", "noise.resize_height")):
        width, height = (paths.get(params, name) for name in names)
        if width * height > limits.max_pixels:
            message = f"{width}x{height} has {width * height:,} pixels"
            yield FieldError(names[height > width], message, _area(limits))


def _area(limits: Limits) -> str:
    side = sizes.largest_square(limits)
    return f"at most {limits.max_pixels:,} pixels, such as {side}x{side}"


def _sigmas(params: RenderParams) -> Iterator[FieldError]:
    options = params.sampling
    lowest, highest = (options.sigma_min or _USUAL_SIGMAS[0]), (options.sigma_max or _USUAL_SIGMAS[1])
    if lowest >= highest:
        name = "sampling.sigma_max" if options.sigma_max else "sampling.sigma_min"
        message = f"the schedule would go from {highest:g} up to {lowest:g}"
        yield FieldError(name, message, "a sigma_min below sigma_max, or 0 for the checkpoint's")


def _second_pass(params: RenderParams, limits: Limits) -> Iterator[FieldError]:
    """Yield the problems of the second pass: the enlarged size, also after it is cut, must be within the limits."""
    hires = params.hires
    if hires is None:
        return
    if params.img2img is not None:
        yield FieldError("hires", "a second pass is for text to image only", "hires or img2img, not both")
    target = hires_size(params.width, params.height, hires)
    is_beyond = max(target[:2]) > limits.max_size or min(target.final) < limits.min_size
    if is_beyond or target.width * target.height > limits.max_pixels:
        name = "hires.width" if hires.width else "hires.height" if hires.height else "hires.scale"
        message = f"the second pass would be {target.width}x{target.height}"
        yield FieldError(
            name,
            message,
            f"both sides within {limits.min_size} to {limits.max_size} pixels, together {_area(limits)}",
        )
    yield from _spread("hires.denoising", hires.steps or params.steps, hires.denoising)


def _spread(name: str, steps: int, denoising: float) -> Iterator[FieldError]:
    """Yield the denoising strength that would make these steps the end of too long a schedule."""
    if 0 < denoising < steps / MOST_STEPS:
        message = f"{steps} steps at {denoising:g} would be the end of a schedule of more than {MOST_STEPS}"
        yield FieldError(name, message, f"0, or {steps / MOST_STEPS:g} to 1")
