"""Guided models against the papers' formulas, over answers that are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.params.groups import Guidance
from worker.engine.architectures.prediction import Prediction
from worker.engine.guidance.cfg import guided, guided_pair, switch_sigma, switched
from worker.engine.requests import Denoise, Term
from worker.engine.sigma_table import SigmaTable

X = torch.randn((4, 6, 5), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SIGMA = 3.0
PLAIN = Guidance()


@dataclass(frozen=True)
class Network:
    """Weights, as far as guidance looks at them."""

    prediction: Prediction = Prediction.NOISE


@dataclass(frozen=True)
class Words:
    """A prompt whose contexts name the answers that they get."""

    parts: Sequence[tuple[float, str]]
    negative: str

    def conditional(self, _: int) -> tuple[Term, ...]:
        return tuple(Term(weight, name) for weight, name in self.parts)

    def unconditional(self, _: int) -> Term:
        return Term(1.0, self.negative)


CAT = Words([(1.0, "cat")], "blurry")
BOTH = Words([(0.7, "cat"), (-0.2, "dog"), (0.4, "moon")], "blurry")


def denoised(name: str) -> Tensor:
    """The network's answer to a context."""
    generator = torch.Generator().manual_seed(len(name) * 1000 + ord(name[0]))
    return torch.randn(X.shape, generator=generator, dtype=torch.float64) * 2 + 0.3


class Card:
    """Answers a model's requests, and keeps them."""

    def __init__(self) -> None:
        self.asked: list[Denoise] = []

    def call(self, model: Any, sigma: float = SIGMA) -> Any:
        """What the model returns for one call."""
        steps = model(X, sigma)
        try:
            request = next(steps)
            while True:
                self.asked.append(request)
                request = steps.send(self._answer(request))
        except StopIteration as end:
            return end.value

    def _answer(self, request: Denoise) -> Any:
        rows = [denoised(term.conditioning) for term in request.terms]
        weighings = [[term.weight for term in request.terms], *request.also]
        sums = [sum(weight * row for weight, row in zip(weights, rows, strict=True)) for weights in weighings]
        return tuple(sums) if request.also else sums[0]

    @property
    def contexts(self) -> list[list[str]]:
        return [[term.conditioning for term in request.terms] for request in self.asked]


@pytest.fixture
def card() -> Card:
    return Card()


def model(words: Words = CAT, scale: float = 7.0, guidance: Guidance = PLAIN, calls: int = 8, **more: Any) -> Any:
    return guided(Network(), words, scale, guidance, calls, **more)


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


# Classifier-free guidance.


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 7.0, 30.0])
def test_guidance_is_the_textbooks_formula(card: Card, scale: float) -> None:
    cat, blurry = denoised("cat"), denoised("blurry")
    assert_close(card.call(model(scale=scale)), blurry + scale * (cat - blurry))


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.0])
def test_parts_are_guided_to_together(card: Card, scale: float) -> None:
    blurry = denoised("blurry")
    expected = blurry + sum(weight * scale * (denoised(name) - blurry) for weight, name in BOTH.parts)
    assert_close(card.call(model(BOTH, scale)), expected)
    assert sum(term.weight for term in card.asked[0].terms) == pytest.approx(1)


@pytest.mark.parametrize(("scale", "asked"), [(7.0, ["cat", "blurry"]), (1.0, ["cat"]), (0.0, ["blurry"])])
def test_what_weighs_nothing_costs_no_row(card: Card, scale: float, asked: list[str]) -> None:
    card.call(model(scale=scale))
    assert card.contexts == [asked]


def test_a_whole_prompt_may_weigh_more(card: Card) -> None:
    cat, blurry = denoised("cat"), denoised("blurry")
    assert_close(card.call(model(Words([(1.2, "cat")], "blurry"), 1.0)), blurry + 1.2 * (cat - blurry))


def test_calls_are_numbered_from_one_and_may_be_counted_together(card: Card) -> None:
    numbers = count()
    first, second = (model(count=numbers, calls=3) for _ in range(2))
    for one in (first, second, first):
        card.call(one)
    assert [(request.call, request.calls) for request in card.asked] == [(1, 3), (2, 3), (3, 3)]


# Rescaled.


def noise(latent: Tensor) -> Tensor:
    """The noise that a network predicts which denoises `X` to `latent`."""
    return (X - latent) / SIGMA


def velocity(latent: Tensor) -> Tensor:
    """The velocity that a network predicts which denoises `X` to `latent` (Salimans and Ho 2022, appendix D)."""
    return (noise(latent) - SIGMA * latent) / math.hypot(1, SIGMA)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("predicted", [noise, velocity])
def test_rescaling_is_the_papers_formula_over_the_networks_prediction(
    card: Card, share: float, predicted: Callable[[Tensor], Tensor]
) -> None:
    """Lin et al. 2023, equations 14 to 16."""
    of_cat, of_blurry = predicted(denoised("cat")), predicted(denoised("blurry"))
    of_both = of_blurry + 7 * (of_cat - of_blurry)
    expected = share * of_both * of_cat.std() / of_both.std() + (1 - share) * of_both
    rescaled = guided(
        Network(Prediction.VELOCITY if predicted is velocity else Prediction.NOISE),
        CAT,
        7.0,
        Guidance(rescale=share),
        8,
    )
    assert_close(predicted(card.call(rescaled)), expected)
    assert card.contexts == [["cat", "blurry"]]  # no row more than without


def test_there_is_nothing_to_rescale_without_guidance(card: Card) -> None:
    assert_close(card.call(model(scale=1.0, guidance=Guidance(rescale=0.7))), denoised("cat"))
    assert card.contexts == [["cat"]]


def test_several_parts_are_rescaled_to_what_they_are_without_the_negative_prompt(card: Card) -> None:
    guidance = Guidance(rescale=1.0)
    result = card.call(model(BOTH, 7.0, guidance))
    plain = denoised("cat") + sum(weight * (denoised(name) - denoised("cat")) for weight, name in BOTH.parts)
    assert float((result - X).std()) == pytest.approx(float((plain - X).std()))


# Without the negative prompt.


def asked_over(card: Card, guidance: Guidance, sigmas: Sequence[float]) -> list[bool]:
    """Whether the negative prompt was asked at each of these sigmas in turn."""
    one = model(guidance=guidance, calls=len(sigmas))
    for sigma in sigmas:
        card.call(one, sigma)
    return ["blurry" in contexts for contexts in card.contexts]


FALLING = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [
        (Guidance(), "11111111"),
        (Guidance(skip_below_sigma=5.5), "11101010"),  # the odd calls, counted from 0
        (Guidance(skip_below_sigma=5.5, skip_all_steps=True), "11100000"),
        (Guidance(skip_all_steps=True), "11111111"),
        (Guidance(skip_early=0.25), "00011111"),  # call / calls up to the share
        (Guidance(skip_early=1.0), "00000000"),
        (Guidance(skip_early=0.1, skip_below_sigma=2.5), "01111110"),
    ],
)
def test_the_negative_prompt_is_left_out_where_it_is_said_to_be(card: Card, guidance: Guidance, expected: str) -> None:
    assert asked_over(card, guidance, FALLING) == [asked == "1" for asked in expected]


def test_without_the_negative_prompt_the_scale_is_one(card: Card) -> None:
    guidance = Guidance(skip_below_sigma=20, skip_all_steps=True)
    assert_close(card.call(model(guidance=guidance)), denoised("cat"))
    expected = denoised("cat") + sum(weight * (denoised(name) - denoised("cat")) for weight, name in BOTH.parts)
    assert_close(card.call(model(BOTH, guidance=guidance)), expected)
    assert card.contexts[1] == ["cat", "dog", "moon"]


# With the negative prompt's own answer.


@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("guidance", [PLAIN, Guidance(skip_early=1.0)])
def test_a_pair_holds_the_guided_and_the_negative_prompts_answer(card: Card, scale: float, guidance: Guidance) -> None:
    cat, blurry = denoised("cat"), denoised("blurry")
    both, negative = card.call(guided_pair(Network(), CAT, scale, guidance, 8))
    assert_close(both, blurry + scale * (cat - blurry))
    assert_close(negative, blurry)


def test_a_pair_can_be_rescaled_too(card: Card) -> None:
    both, negative = card.call(guided_pair(Network(), CAT, 7.0, Guidance(rescale=1.0), 8))
    assert float((both - X).std()) == pytest.approx(float((denoised("cat") - X).std()))
    assert_close(negative, denoised("blurry"))
    assert len(card.asked) == 1


# A refiner.


def test_a_refiner_takes_over_below_a_sigma(card: Card) -> None:
    refined = switched(model(), model(Words([(1.0, "fine cat")], "blurry")), 4.0)
    for sigma in FALLING:
        card.call(refined, sigma)
    assert [contexts[0] for contexts in card.contexts] == ["cat"] * 4 + ["fine cat"] * 4


@pytest.mark.parametrize(("switch_at", "timestep"), [(0.0, 999), (0.25, 749.25), (0.8, 199.8)])
def test_a_refiner_starts_at_a_share_of_the_timesteps(switch_at: float, timestep: float) -> None:
    table = SigmaTable.scaled_linear()
    assert switch_sigma(table, switch_at) == pytest.approx(table.sigma(timestep))


def test_a_refiner_that_starts_at_the_end_never_does() -> None:
    assert switch_sigma(SigmaTable.scaled_linear(), 1.0) == 0
