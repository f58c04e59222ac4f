"""The demo's judge: what it is asked, what it learns from, and how its findings are counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.demo_checkpoint import asking, dataset, judge, measures, scenes, teaching
from tools.demo_checkpoint.asking import Asked
from tools.demo_checkpoint.judging import (
    CHOICES,
    THINGS,
    WORDS,
    Found,
    Judge,
    Network,
    adherence,
    parted,
    pixels,
    shows,
)
from tools.demo_checkpoint.measures import Row, Seen
from tools.demo_checkpoint.scenes import Scene

HOUSE = Scene("meadow", "noon", "photo", building="house", colour="blue")
SAIL = Scene("sea", "night", "painting", moon=True, building="sailboat", colour="red")


def finding(*truths: frozenset[str]) -> Found:
    """What a judge finds that sees exactly these words in each picture."""
    return {word: np.array([0.9 if word in words else 0.1 for words in truths], np.float32) for word in WORDS}


def asked(scene: Scene, *, is_held_out: bool = False, against: str = "") -> Asked:
    return Asked("", scene, scene.traits(), is_held_out, against)


def test_prompts_of_a_seed_are_the_same_however_many_there_are():
    assert asking.prompts(12, 5) == asking.prompts(40, 5)[:12]
    assert asking.prompts(4, 5) != asking.prompts(4, 6)


def test_every_fourth_prompt_is_a_held_out_combination():
    listed = asking.prompts(80)
    assert [one.is_held_out for one in listed] == [one.scene.is_held_out() for one in listed]
    assert sum(one.is_held_out for one in listed) == 20


def test_prompt_says_every_thing_of_its_scene():
    for one in asking.prompts(100):
        assert one.things == one.scene.traits() & frozenset(THINGS), one.text
        assert one.scene.ground in one.said
        assert one.against in one.things or not one.things


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a photo of the meadow at sunset with a pyramid", {"photo", "meadow", "sunset", "pyramids"}),
        ("meadow, three pyramids", {"meadow", "pyramids"}),
        ("the meadow with the sun", {"meadow", "sun"}),
    ],
)
def test_said_are_whole_words_in_either_number(text: str, words: set[str]):
    scene = Scene("meadow", "sunset", "photo", sun=True, pyramids=3)
    assert asking.said(text, scene) == words


def test_judge_answers_a_probability_for_every_word(tmp_path: Path):
    torch.manual_seed(0)
    Judge(Network().eval()).save(tmp_path / "judge.safetensors")
    pictures = np.random.default_rng(0).integers(0, 255, (3, 128, 128, 3), np.uint8)
    found = Judge.load(tmp_path / "judge.safetensors").of(pictures)
    assert tuple(found) == WORDS
    assert all(((share >= 0) & (share <= 1)).all() and share.shape == (3,) for share in found.values())
    for words in CHOICES.values():
        assert np.sum([found[word] for word in words], axis=0) == pytest.approx(np.ones(3), abs=1e-5)


def test_pictures_of_other_sizes_are_brought_to_the_judges():
    assert pixels(np.zeros((2, 192, 256, 3), np.uint8)).shape == (2, 3, 128, 128)


def test_thing_holds_when_it_is_likelier_than_not_and_a_choice_when_it_is_likeliest():
    found = finding(HOUSE.traits(), SAIL.traits())
    found["noon"], found["dawn"] = np.array([0.3, 0.1], np.float32), np.array([0.2, 0.1], np.float32)
    found["moon"] = np.array([0.4, 0.6], np.float32)
    assert shows(found, "noon").tolist() == [True, False]
    assert shows(found, "moon").tolist() == [False, True]


def test_shipped_judge_is_right_about_fresh_scenes():
    samples = [dataset.sample(9002, index, held_out=index % 4 == 3) for index in range(120)]
    found = Judge.load().of(np.stack([one.picture for one in samples]))
    right = measures.accuracy(found, [one.scene for one in samples])
    assert min(right.values()) >= 0.97, right


def test_adherence_is_the_share_of_wanted_words_that_are_shown():
    found = finding(HOUSE.traits() - {"house"}, SAIL.traits())
    assert adherence(found, [frozenset({"house", "meadow"}), frozenset({"moon", "sea"})]) == 0.75


def test_measures_count_named_and_unnamed_things():
    right, missing, extra = HOUSE.traits(), SAIL.traits() - {"moon"}, HOUSE.traits() | {"sun"}
    seen = Seen([asked(HOUSE), asked(SAIL), asked(HOUSE, is_held_out=True)], finding(right, missing, extra))
    assert measures.presence(seen) == pytest.approx(3 / 4)
    assert measures.absence(seen) == pytest.approx(1 - 1 / 23)
    assert measures.complete(seen) == pytest.approx(1 / 3)
    assert measures.absence(seen.only(held_out=True)) == pytest.approx(7 / 8)


def test_colour_counts_only_where_its_bearer_is_there():
    wrong = HOUSE.traits() - {"blue"} | {"green"}
    seen = Seen([asked(HOUSE)] * 3, finding(HOUSE.traits(), wrong, wrong - {"house"}))
    assert measures.choice(seen, "colour") == 0.5


def test_fall_is_by_what_share_the_things_spoken_against_become_rarer():
    spoken = [asked(SAIL, against="moon")] * 4
    before = Seen(spoken, finding(*[SAIL.traits()] * 4))
    after = Seen(spoken, finding(SAIL.traits(), *[SAIL.traits() - {"moon"}] * 3))
    assert measures.fall(before, after) == 0.75


def test_accuracy_judges_no_colour_where_nothing_bears_one():
    empty = Scene("desert", "noon", "photo")
    right = measures.accuracy(finding(HOUSE.traits(), empty.traits() | {"red", "moon"}), [HOUSE, empty])
    assert right["colour"] == 1
    assert right["moon"] == 0.5


def test_row_says_whether_its_target_is_met():
    assert str(Row("things", "90%", "95%", is_met=True)) == "| things | 90% | 95% | yes |"
    assert "**no**" in str(Row("things", "90%", "85%", is_met=False))


def test_table_goes_between_the_marks_of_a_page_only():
    page = f"before\n{judge.START}\nold\n{judge.END}\nafter"
    assert judge.replaced(page, "new") == f"before\n{judge.START}\nnew\n{judge.END}\nafter"
    with pytest.raises(ValueError, match="judge"):
        judge.replaced("a page without marks", "new")


def test_targets_leave_the_colour_of_nothing_out():
    there, numbers = teaching.targets(HOUSE)
    assert [thing for thing, value in zip(THINGS, there, strict=True) if value] == ["house"]
    assert numbers[-1] == scenes.COLOURS.index("blue")
    assert teaching.targets(replace(HOUSE, building=""))[1][-1] == teaching.NOT_THERE


def test_softened_pictures_stay_near_what_they_show():
    picture = dataset.sample(3, 0).picture
    for seed in range(12):
        soft = teaching.softened(picture, np.random.default_rng(seed))
        assert soft.shape == picture.shape
        distances = (np.abs(soft.astype(float) - turned).mean() for turned in (picture, picture[:, ::-1]))
        assert min(distances) < 25


def test_lesson_is_of_presence_and_of_choices_and_reaches_every_weight(tmp_path: Path):
    list(dataset.keep(tmp_path, 8, lambda indices: [dataset.sample(3, index) for index in indices]))
    torch.manual_seed(0)
    network = Network((8, 8, 8, 8))
    parts = teaching.lesson(network, [dataset.Dataset(tmp_path)] * 2, "cpu")(0, 0.0)
    parts["loss"].backward()
    assert parts["loss"].item() == pytest.approx(4 * parts["presence"].item() + parts["choices"].item(), rel=1e-4)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    assert [part.shape[1] for part in parted(torch.zeros(1, len(WORDS)))] == [9, 4, 5, 4, 6]


@pytest.mark.parametrize("one", [one for one in asking.prompts(60) if one.against], ids=lambda one: one.text)
def test_negative_prompt_says_a_thing_as_the_prompt_does(one: Asked):
    assert one.negative in one.text
    assert one.against.removesuffix("s") in one.negative
