"""What a turn does, without a card: requests are laid out, never answered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shared.prompts.chunks import EMPTY
from tests.support.conditioned import term
from worker.engine.architectures.base import Architecture, LatentSpace
from worker.engine.architectures.conditioning import Control, padded_chunks
from worker.engine.architectures.prediction import Prediction
from worker.engine.devices import Device
from worker.engine.loop.grouping import cost, plan
from worker.engine.loop.runs import Ask, Run
from worker.engine.requests import Apply, Denoise, Embed, Request, ToPixels


@dataclass(frozen=True, eq=False)
class Networks:
    """Weights, as far as grouping looks at them."""

    architecture: object = Architecture
    unet: object = field(default_factory=object)
    text_encoders: tuple[Any, ...] = field(default_factory=lambda: (SimpleNamespace(network=object()),))
    vae: object = field(default_factory=object)
    prediction: Prediction = Prediction.NOISE
    latent: LatentSpace = Architecture.latent
    tiling: str = "none"
    native_size: int = 64


WEIGHTS: Any = Networks()
OTHER: Any = Networks()


def denoise(weights: Any = WEIGHTS, *, side: int = 64, chunks: tuple[int, ...] = (1, 1)) -> Denoise:
    terms = tuple(term(1 / len(chunks), torch.zeros(77 * count, 1)) for count in chunks)
    return Denoise(weights, torch.zeros(4, side // 8, side // 8), 1.0, terms, 1, 1)


def decode(weights: Any = WEIGHTS) -> ToPixels:
    return ToPixels(weights, torch.zeros(4, 8, 8))


def ask(request: Request, *, exact: bool = False, urgent: bool = False) -> Ask:
    run = Run(iter(()), is_exact=exact, is_urgent=urgent, on_cancel=lambda _: None)
    return Ask(run, 0, request)


def test_requests_that_may_share_a_call_share_one() -> None:
    waiting = [ask(denoise()) for _ in range(3)]
    assert plan(waiting, 16) == ([waiting], [])


@pytest.mark.parametrize(
    "other",
    [
        denoise(OTHER),
        denoise(replace(WEIGHTS, tiling="x")),
        denoise(replace(WEIGHTS, prediction=Prediction.VELOCITY)),
        denoise(side=128),
        denoise(chunks=(2, 1)),
        decode(),
    ],
    ids=["weights", "tiling", "prediction", "size", "length", "kind"],
)
def test_requests_that_may_not_share_a_call_get_one_each_in_the_same_turn(other: Request) -> None:
    one, two = ask(denoise()), ask(other)
    assert plan([one, two], 16) == ([[one], [two]], [])


def test_checkpoints_that_differ_by_their_vae_alone_share_the_calls_of_their_other_networks() -> None:
    view = replace(WEIGHTS, vae=object())
    steps = [ask(denoise()), ask(denoise(view))]
    texts = [ask(Embed(WEIGHTS, ())), ask(Embed(view, ()))]
    assert plan([*steps, *texts], 16) == ([texts, steps], [])


def test_a_negative_prompt_that_is_shorter_makes_no_group_of_its_own() -> None:
    waiting = [ask(denoise(chunks=(2, 1))), ask(denoise(chunks=(1, 2))), ask(denoise(chunks=(2,)))]
    assert plan(waiting, 16) == ([waiting], [])


def test_exact_requests_stand_alone() -> None:
    waiting = [ask(denoise(), exact=True), ask(denoise()), ask(denoise(), exact=True), ask(denoise())]
    calls, _ = plan(waiting, 16)
    assert calls == [[waiting[0]], [waiting[1], waiting[3]], [waiting[2]]]


def test_a_call_is_filled_up_to_the_budget_by_who_has_waited_longest() -> None:
    waiting = [ask(denoise()) for _ in range(5)]
    assert plan(waiting, 6) == ([waiting[:3]], waiting[3:])


def test_rows_are_packed_not_pictures() -> None:
    waiting = [ask(denoise()), ask(denoise()), ask(denoise()), ask(denoise(chunks=(1,)))]
    assert plan(waiting, 5) == ([[waiting[0], waiting[1], waiting[3]]], [waiting[2]])


def test_a_request_over_the_budget_is_served_all_the_same() -> None:
    waiting = [ask(denoise()), ask(denoise())]
    assert plan(waiting, 1) == ([waiting[:1]], waiting[1:])


def test_urgent_rows_go_first() -> None:
    patient, urgent = ask(denoise()), ask(denoise(), urgent=True)
    assert plan([patient, urgent], 2) == ([[urgent]], [patient])


def test_at_most_one_decode_stands_between_two_denoising_calls() -> None:
    steps, other_steps = ask(denoise()), ask(denoise(OTHER))
    decodes = [ask(decode()) for _ in range(3)]
    calls, rest = plan([*decodes, steps, other_steps], 16)
    assert calls == [[steps], [decodes[0]], [other_steps], [decodes[1]]]
    assert rest == [decodes[2]]


def test_requests_of_one_network_with_the_same_answer_share_a_call_and_others_wait() -> None:
    network, pixels = torch.nn.Identity(), torch.ones(3, 8, 8)
    keys = ("sea", "moon", "sea", None, None)
    reads = [ask(Apply(network, pixels, answer_key=key), exact=place == 2) for place, key in enumerate(keys)]
    others = [ask(Apply(torch.nn.Identity(), pixels, answer_key="sea")), ask(denoise())]
    calls, left = plan([*reads, *others], 8)
    assert calls == [[others[1]], [reads[0], reads[2]]]
    assert left == [reads[1], *reads[3:], others[0]]


def test_a_decode_holds_one_picture_also_where_nobody_denoises() -> None:
    decodes = [ask(decode()) for _ in range(2)]
    assert plan(decodes, 16) == ([[decodes[0]]], [decodes[1]])


def test_contexts_are_made_together_and_first() -> None:
    steps = ask(denoise())
    texts = [ask(Embed(WEIGHTS, (EMPTY,))), ask(Embed(WEIGHTS, (EMPTY,)))]
    assert plan([steps, *texts], 16) == ([texts, [steps]], [])


def test_a_flood_of_texts_is_no_single_turn() -> None:
    waiting = [ask(Embed(WEIGHTS, (EMPTY, EMPTY))) for _ in range(5)]
    assert plan(waiting, 4) == ([waiting[:2]], waiting[2:])


@pytest.mark.parametrize(("side", "expected"), [(64, 2), (48, 2), (128, 8), (256, 32)])
def test_a_picture_above_its_native_size_costs_more_rows(side: int, expected: int) -> None:
    assert cost(denoise(side=side)) == expected


@pytest.mark.parametrize(
    ("controls", "side", "expected"), [((1, 1), 64, 3), ((1, 0), 64, 3), ((2, 2), 64, 4), ((1, 1), 128, 12)]
)
def test_a_control_net_costs_half_of_a_row(controls: tuple[int, ...], side: int, expected: int) -> None:
    request = denoise(side=side)
    control = Control(torch.nn.Identity(), torch.zeros(1, 8, 8))
    terms = tuple(
        replace(one, conditioning=replace(one.conditioning, controls=(control,) * count))
        for one, count in zip(request.terms, controls, strict=True)
    )
    steered = replace(request, terms=terms)
    assert cost(steered) == expected
    waiting = [ask(steered), ask(steered)]
    assert plan(waiting, expected) == ([waiting[:1]], waiting[1:])


def test_contexts_are_padded_to_few_lengths() -> None:
    lengths = [padded_chunks(chunks) for chunks in range(1, 17)]
    assert lengths == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16]


# The ladder of row counts.


LADDER = Device("cuda:0", "cuda", "a card", 80 * 2**30).ladder


def stepped(*rows: int, budget: int = 32, most: int = 1000) -> list[int]:
    """Which of requests with so many rows, by their places, the call of a turn holds."""
    waiting = [ask(denoise(chunks=(1,) * count)) for count in rows]
    calls, rest = plan(waiting, budget, ladder=LADDER, most_rows=lambda _: most)
    ((*call,),) = calls
    assert [one for one in waiting if one not in call] == rest, "who waits keeps the order"
    return [waiting.index(one) for one in call]


@pytest.mark.parametrize(
    ("pictures", "taken"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (7, 6), (9, 8), (16, 16), (20, 16)]
)
def test_guided_pictures_share_calls_of_the_ladder(pictures: int, taken: int) -> None:
    assert stepped(*[2] * pictures) == list(range(taken))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((1,), [0]),
        ((1, 1, 1), [0, 1]),
        ((1, 2), [0]),
        ((2, 1), [0]),
        ((1, 2, 2, 2), [0]),
        ((2, 1, 2, 2, 2), [0, 2, 3, 4]),
        ((1, 2, 2, 1, 2), [0, 1, 2, 3, 4]),
        ((2, 2, 2, 3, 3, 1), [0, 1, 2, 3, 4]),
        ((2, 1, 2), [0, 2]),
        ((1, 2, 1, 2), [0, 1, 2, 3]),
        ((3, 2, 2, 1), [0, 1, 2, 3]),
        ((3, 1, 1), [0, 1]),
        ((2, 2, 3), [0, 1]),
        ((5, 2, 2), [0, 1, 2]),
        ((3,), [0]),
    ],
)
def test_who_waits_longest_goes_first_and_others_go_along_where_they_fit(rows: Any, expected: list[int]) -> None:
    assert stepped(*rows) == expected


def test_a_ladder_starves_nobody() -> None:
    """Pictures of all kinds ask again once they are answered: each is served within as many turns as there are."""
    sizes = [2, 1, 3, 2, 4, 1, 2, 5, 2, 2, 7, 1]
    waiting = [ask(denoise(chunks=(1,) * rows)) for rows in sizes]
    names = {id(one.run): place for place, one in enumerate(waiting)}
    late = dict.fromkeys(range(len(sizes)), 0)
    for _ in range(60):
        ((*call,),), waiting = plan(waiting, 8, ladder=LADDER)
        served = {names[id(one.run)] for one in call}
        late = {place: 0 if place in served else turns + 1 for place, turns in late.items()}
        assert max(late.values()) <= len(sizes)
        waiting += call


def test_urgent_rows_go_first_on_a_ladder_too() -> None:
    patient, urgent = [ask(denoise()) for _ in range(4)], [ask(denoise(), urgent=True) for _ in range(3)]
    assert plan([*patient, *urgent], 32, ladder=LADDER) == ([[*urgent, *patient[:3]]], patient[3:])


def test_a_call_holds_fewer_rows_than_lately_had_no_room() -> None:
    assert stepped(*[2] * 16, most=15) == list(range(6))
    assert stepped(*[2] * 16, most=1) == [0]


def test_without_a_ladder_any_count_will_do() -> None:
    waiting = [ask(denoise()) for _ in range(5)]
    assert plan(waiting, 16) == ([waiting], [])
