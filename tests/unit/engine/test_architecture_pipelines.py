"""Every way to make a picture works for every architecture: what each call of a U-Net sees is looked at one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shared.errors import RenderError
from shared.media.arrays import Pixels
from shared.params.groups import Hires, Refiner
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from shared.params.size_conditioning import Crop, OriginalSize, TargetSize
from tests.unit.engine.conftest import Small
from worker.engine.answers.answer import answer
from worker.engine.answers.denoising import denoise
from worker.engine.answers.pixels import to_latent, to_pixels
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.pipelines.film import Shot, developed
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Asks, Denoise, Request, Term, ToLatent, ToPixels, Work

KINDS = ("sd2", "sd2-velocity", "sdxl", "sdxl-velocity")
REPRESENTATIVES = ("sd2-velocity", "sdxl")
SHA = "0" * 64
MASKED = ({"soft": True}, {"area": "only masked", "padding": 4})


def by_day(*kinds: str, of: Sequence[str] = KINDS) -> list[Any]:
    """All kinds as parameters: all but those named are nightly."""
    return [kind if kind in kinds else pytest.param(kind, marks=pytest.mark.nightly) for kind in of]


def params(**changes: Any) -> RenderParams:
    usual = {"prompt": "sea", "negative_prompt": "house", "width": 64, "height": 64, "steps": 4, "cfg_scale": 4.0}
    return RenderParams(checkpoint="small", seed=7, **{**usual, **changes})


class Card:
    """Answers the requests of one run, and keeps them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    @property
    def steps(self) -> list[Denoise]:
        return [request for request in self.requests if isinstance(request, Denoise)]

    @torch.inference_mode()
    def run(self, asks: Asks[Any]) -> Any:
        answered: Any = None
        while True:
            try:
                request = asks.send(answered)
            except StopIteration as end:
                return end.value
            answered = tuple(map(self._answer, request)) if isinstance(request, tuple) else self._answer(request)

    def _answer(self, request: Request) -> Any:
        self.requests.append(request)
        if isinstance(request, Work):
            return request.function()
        [answered] = answer([request], is_exact=False)
        if isinstance(answered, Exception):
            raise answered
        return answered


def rendered(wanted: RenderParams, *args: Any, **kit: Any) -> tuple[Pixels, list[Denoise]]:
    """Return the picture and the calls of U-Nets."""
    card = Card()
    return card.run(render(wanted, Kit(*args, **kit))), card.steps


def conditionings(steps: list[Denoise]) -> list[Conditioning]:
    return [term.conditioning for step in steps for term in step.terms]


def sizes(steps: list[Denoise]) -> set[tuple[float, ...]]:
    return {one.sizes for one in conditionings(steps)}


def own(width: int, height: int | None = None) -> tuple[float, ...]:
    """The figures of a picture that says nothing about its sizes."""
    return (height or width, width, 0, 0, height or width, width)


def scene(height: int = 64, width: int = 64) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def patch() -> Pixels:
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    return mask


def apart(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(float) - other).mean())


# A second pass.


@pytest.mark.parametrize("kind", by_day("sdxl"))
@pytest.mark.parametrize(
    "upscaler", ["Latent (bicubic antialiased)", pytest.param("Lanczos", marks=pytest.mark.nightly)]
)
def test_a_second_pass_sees_its_own_size(small: Small, kind: str, upscaler: str) -> None:
    weights, other = small(kind), small(kind, 1)
    wanted = params(hires=Hires(scale=1.5, upscaler=upscaler, steps=2), width=80)
    picture, steps = rendered(wanted, weights, hires=other)
    assert picture.shape == (96, 120, 3)
    first, second = ([step for step in steps if step.is_second_pass is which] for which in (False, True))
    assert {step.weights.unet for step in first} == {weights.unet}
    assert {step.weights.unet for step in second} == {other.unet}
    is_xl = weights.architecture.size_figures == 6
    assert (sizes(first), sizes(second)) == (({own(80, 64)}, {own(120, 96)}) if is_xl else ({()}, {()}))


def test_stated_sizes_hold_for_both_passes(small: Small) -> None:
    stated = {
        "original_size": OriginalSize(width=2048, height=1024),
        "crop": Crop(left=16, top=8),
        "target_size": TargetSize(width=512, height=768),
    }
    plain, _ = rendered(params(), small("sdxl"))
    picture, _ = rendered(params(**stated), small("sdxl"))
    assert apart(plain, picture) > 1
    _, steps = rendered(params(hires=Hires(scale=1.5, steps=2), **stated), small("sdxl"))
    assert sizes(steps) == {(1024, 2048, 8, 16, 768, 512)}


# Painting over pictures.


@pytest.mark.parametrize("kind", by_day("sdxl"))
@pytest.mark.parametrize("mode", ["crop", "latent"])
def test_the_stronger_a_picture_is_painted_over_the_less_of_it_is_left(small: Small, kind: str, mode: Any) -> None:
    weights, pictures = small(kind), []
    for denoising in (0.0, 0.05, 1.0):
        over = Img2Img(picture=SHA, denoising=denoising, resize_mode=mode, exact_steps=True)
        picture, steps = rendered(params(img2img=over), weights, source=scene(72, 88))
        assert picture.shape == (64, 64, 3)
        assert sizes(steps) <= {own(64) if weights.architecture.size_figures else ()}
        pictures.append(picture)
    untouched, little, all_of_it = pictures
    assert 0 < apart(untouched, little) < apart(untouched, all_of_it)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, {}) for kind in (*REPRESENTATIVES, "sd2-inpainting", "sdxl-inpainting")),
        *(("sdxl-inpainting", how) for how in MASKED),
        *(
            pytest.param(kind, how, marks=pytest.mark.nightly)
            for kind in (*REPRESENTATIVES, "sd2-inpainting")
            for how in MASKED
        ),
    ],
    ids=str,
)
def test_what_is_masked_changes_and_the_rest_stays(small: Small, kind: str, how: dict[str, Any]) -> None:
    weights, inside = small(kind), patch() > 0
    over = Img2Img(picture=SHA, denoising=0.8, mask=Mask(picture=SHA, blur=0.0, **how))
    picture, steps = rendered(params(img2img=over), weights, source=scene(), mask=patch())
    assert np.array_equal(picture[~inside], scene()[~inside])
    assert apart(picture[inside], scene()[inside]) > 10
    extras = [one.extra for one in conditionings(steps)]
    if not kind.endswith("inpainting"):
        assert extras == [None] * len(extras)
        return
    for extra in extras:
        assert extra is not None
        assert extra.shape == (5, 8, 8)
        assert set(extra[0].unique().tolist()) == {0.0, 1.0}


def test_an_inpainting_checkpoint_sees_the_latent_of_what_is_left(small: Small) -> None:
    weights = small("sdxl-inpainting")
    over = Img2Img(picture=SHA, denoising=0.8, mask=Mask(picture=SHA, blur=0.0))
    _, steps = rendered(params(img2img=over), weights, source=scene(), mask=patch())
    hidden = torch.from_numpy(scene()).permute(2, 0, 1) / 127.5 - 1
    hidden[:, 16:48, 16:48] = 0
    [latent] = to_latent([ToLatent(weights, hidden)])
    extra = steps[0].terms[0].conditioning.extra
    assert extra is not None
    torch.testing.assert_close(extra[1:], latent, atol=1e-4, rtol=1e-4)
    assert torch.equal(extra[0], torch.from_numpy(patch()[::8, ::8] / 255).float())


def test_an_inpainting_checkpoint_makes_pictures_of_a_prompt_alone(small: Small) -> None:
    picture, steps = rendered(params(hires=Hires(scale=1.5, steps=2)), small("sdxl-inpainting"))
    assert picture.shape == (96, 96, 3)
    assert {tuple(one.extra.shape) for one in conditionings(steps)} == {(5, 8, 8), (5, 12, 12)}
    assert all(bool((one.extra[0] == 1).all()) for one in conditionings(steps))


def test_a_refiner_that_was_trained_to_inpaint_sees_the_mask_and_needs_no_vae(small: Small) -> None:
    refiner = replace(small("sdxl-inpainting"), vae=None)
    over = Img2Img(picture=SHA, denoising=1.0, mask=Mask(picture=SHA, blur=0.0))
    wanted = params(img2img=over, refiner=Refiner(checkpoint="other", switch_at=0.5))
    _, steps = rendered(wanted, small("sdxl"), refiner=refiner, source=scene(), mask=patch())
    for step in steps:
        for term in step.terms:
            extra = term.conditioning.extra
            assert (extra is not None) == (step.weights.unet is refiner.unet)
            assert extra is None or torch.equal(extra[0], torch.from_numpy(patch()[::8, ::8] / 255).float())


# A refiner.


def scores(step: Denoise) -> list[tuple[float, ...]]:
    return [term.conditioning.sizes for term in step.terms]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 64),
        pytest.param({"img2img": Img2Img(picture=SHA, denoising=1.0)}, 64, marks=pytest.mark.nightly),
        ({"hires": Hires(scale=1.5, steps=6, denoising=1.0, upscaler="None")}, 96),
    ],
    ids=["of a prompt", "over a picture", "in the second pass"],
)
def test_the_refiner_of_sdxl_takes_over_with_its_five_figures(small: Small, changes: Any, size: int) -> None:
    base, refiner = small("sdxl"), small("sdxl-refiner")
    wanted = params(steps=6, refiner=Refiner(checkpoint="refiner", switch_at=0.5), **changes)
    source = scene() if "img2img" in changes else None
    picture, steps = rendered(wanted, base, refiner=refiner, source=source)
    assert picture.shape == (size, size, 3)
    if "hires" in changes:
        assert {step.weights.unet for step in steps if not step.is_second_pass} == {base.unet}
        steps = [step for step in steps if step.is_second_pass]
    by_base, by_refiner = ([step for step in steps if step.weights.unet is one.unet] for one in (base, refiner))
    assert [*by_base, *by_refiner] == steps
    assert len(by_base) == len(by_refiner) == 3
    assert min(step.sigma for step in by_base) > base.sigmas.sigma(499.5) >= max(step.sigma for step in by_refiner)
    assert sizes(by_base) == {own(size)}
    for step in by_refiner:
        assert scores(step) == [(size, size, 0, 0, 6.0), (size, size, 0, 0, 2.5)]
    alone, _ = rendered(wanted.model_copy(update={"refiner": None}), base, source=source)
    assert apart(alone, picture) > 1


def test_a_refiner_alone_paints_over_a_picture(small: Small) -> None:
    over = Img2Img(picture=SHA, denoising=0.5)
    picture, steps = rendered(params(img2img=over), small("sdxl-refiner"), source=scene())
    assert picture.std() > 1
    assert [scores(step)[-1][-1] for step in steps] == [2.5] * len(steps)


# Prompts.


@pytest.mark.parametrize("kind", REPRESENTATIVES)
def test_prompt_editing_and_parts_change_all_that_an_encoder_gives(small: Small, kind: str) -> None:
    weights = small(kind)
    _, steps = rendered(params(prompt="[sea:moon:0.5] AND desert :0.4", steps=4), weights)
    assert [len(step.terms) for step in steps] == [3] * 4
    first, last = steps[0].terms, steps[-1].terms
    assert not torch.equal(first[0].conditioning.context, last[0].conditioning.context)
    assert torch.equal(first[1].conditioning.context, last[1].conditioning.context)
    if weights.architecture.size_figures:
        pooled = [terms[0].conditioning.pooled for terms in (first, last)]
        assert not torch.equal(*pooled)  # type: ignore[arg-type]  # SDXL has them


@pytest.mark.parametrize(("kind", "is_zeroed"), [("sd2-velocity", False), ("sdxl", True)])
def test_only_sdxl_zeroes_an_empty_negative_prompt(small: Small, kind: str, is_zeroed: bool) -> None:  # noqa: FBT001
    for text, zeroed in (("", is_zeroed), (" ", False), ("house", False)):
        _, steps = rendered(params(negative_prompt=text, steps=1), small(kind))
        negative = steps[0].terms[-1].conditioning
        assert (not negative.context.any()) is zeroed
        assert negative.pooled is None or (not negative.pooled.any()) is zeroed


def embedded(weights: Weights, text: str, **changes: Any) -> Conditioning:
    wanted = params(prompt=text, steps=1, cfg_scale=1.0, **changes)
    return rendered(wanted, weights)[1][0].terms[0].conditioning


def test_a_long_prompt_of_sdxl_has_a_context_by_chunk_and_the_pooled_vector_of_the_first(small: Small) -> None:
    first, whole = "moon, " * 37 + "sea", "moon, " * 37 + "sea" + ", desert" * 40
    short, long = (embedded(small("sdxl"), text) for text in (first, whole))
    assert short.context.shape == (77, 192)
    assert long.context.shape == (3 * 77, 192)
    assert torch.equal(short.pooled, long.pooled)  # type: ignore[arg-type]


def test_emphasis_scales_both_encoders_and_not_the_pooled_vector(small: Small) -> None:
    plain, strong = (embedded(small("sdxl"), text, emphasis="No norm") for text in ("sea", "(sea:1.5)"))
    assert torch.equal(plain.pooled, strong.pooled)  # type: ignore[arg-type]
    torch.testing.assert_close(strong.context[1], plain.context[1] * 1.5)
    assert torch.equal(strong.context[2:], plain.context[2:])


@pytest.mark.parametrize("kind", by_day("sdxl", of=("sd2", "sdxl", "sdxl-refiner")))
def test_clip_skip_changes_nothing_but_in_stable_diffusion_1(small: Small, kind: str) -> None:
    usual, skipped = (embedded(small(kind), "sea", clip_skip=layer) for layer in (1, 12))
    assert torch.equal(usual.context, skipped.context)
    assert not torch.equal(*(embedded(small("sd1"), "sea", clip_skip=layer).context for layer in (1, 2)))


def test_clip_skip_moves_clip_l_of_sdxl_alone_and_only_if_that_is_wanted(small: Small) -> None:
    usual = embedded(small("sdxl"), "sea")
    same, other = (embedded(small("sdxl"), "sea", clip_skip=layer, sdxl_clip_l_skip=True) for layer in (2, 3))
    assert torch.equal(usual.context, same.context)
    assert not torch.equal(usual.context[:, :64], other.context[:, :64])
    assert torch.equal(usual.context[:, 64:], other.context[:, 64:])
    with pytest.raises(RenderError, match="clip skip 12 is too deep"):
        embedded(small("sdxl"), "sea", clip_skip=12, sdxl_clip_l_skip=True)


# Edges, steps and colours.


@pytest.mark.parametrize("kind", by_day("sdxl", of=REPRESENTATIVES))
def test_a_tiled_picture_goes_on_at_its_other_side(small: Small, kind: str) -> None:
    """A latent that is moved around the edge comes out moved around the edge."""
    weights = small(kind).tiled("both")
    x = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(3))
    context = replace(embedded(small(kind), "sea"), sizes=weights.architecture.sizes(params(), is_negative=False))

    def moved(latent: torch.Tensor) -> torch.Tensor:
        return latent.roll((4, 8), dims=(1, 2))

    def step(latent: torch.Tensor) -> torch.Tensor:
        [denoised] = denoise([Denoise(weights, latent, 3.0, (Term(1.0, context),), 1, 1)], is_exact=False)
        assert isinstance(denoised, torch.Tensor)
        return denoised

    torch.testing.assert_close(step(moved(x)), moved(step(x)), atol=1e-3, rtol=1e-3)
    plain, around = (to_pixels([ToPixels(weights, latent)])[0] for latent in (x, moved(x)))
    assert isinstance(plain, torch.Tensor)
    torch.testing.assert_close(around, plain.roll((32, 64), dims=(1, 2)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", by_day("sdxl", of=REPRESENTATIVES))
def test_a_film_shows_the_steps_of_both_passes(small: Small, kind: str) -> None:
    weights, other = small(kind), small(kind, 1)
    latent = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(3))
    shots = [Shot(1, 3, latent), Shot(2, 3, latent, is_second_pass=True)]
    first, second = Card().run(developed(Kit(weights, hires=other), "none", shots))
    assert first.shape == second.shape == (64, 96, 3)
    assert apart(first, second) > 1


def test_the_requests_of_an_exact_picture_make_calls_of_one_row(small: Small) -> None:
    weights, rows = small("sdxl"), list[int]()
    hook = weights.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    _, steps = rendered(params(steps=1), weights)
    rows.clear()
    answer(steps, is_exact=True)
    hook.remove()
    assert rows == [1, 1]
