"""The demo's pictures: repeatable, and said as they are drawn."""

import numpy as np
import pytest

from tools.demo_checkpoint import captions, dataset, scenes
from tools.demo_checkpoint.scenes import Scene

SEED = 11
SAMPLES = [dataset.sample(SEED, index) for index in range(60)]
THINGS = {"sun", "moon", "clouds", "mountains", "pyramid", "pine", "palm", "house", "sailboat"}


def words(caption: str) -> set[str]:
    return {word.removesuffix("s") if word == "pyramids" else word for word in caption.replace(",", " ").split()}


def drawn(scene: Scene) -> set[str]:
    return {"pyramid" if trait == "pyramids" else trait for trait in scene.traits()} & THINGS


def test_sample_of_the_same_number_is_the_same() -> None:
    again = dataset.sample(SEED, 7)
    assert np.array_equal(again.picture, SAMPLES[7].picture)
    assert (again.caption, again.scene) == (SAMPLES[7].caption, SAMPLES[7].scene)


def test_samples_of_other_numbers_and_series_differ() -> None:
    assert not np.array_equal(SAMPLES[0].picture, SAMPLES[1].picture)
    assert not np.array_equal(SAMPLES[0].picture, dataset.sample(SEED + 1, 0).picture)


def test_picture_is_full_size_and_neither_black_nor_blank() -> None:
    for picture, _, _ in SAMPLES:
        assert picture.shape == (128, 128, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 8


def test_caption_names_exactly_the_things_in_the_scene() -> None:
    for _, caption, scene in SAMPLES:
        assert words(caption) & THINGS == drawn(scene), caption


def test_caption_names_the_ground_and_never_a_sky_style_or_colour_that_is_not_there() -> None:
    for _, caption, scene in SAMPLES:
        said = words(caption)
        assert scene.ground in said
        assert said & set(scenes.SKIES) <= {scene.sky}
        assert said & set(scenes.COLOURS) <= ({scene.colour} if scene.building else set())
        assert said & {"painting", "photo", "pixel", "paper"} <= set(scene.style.split())


def test_caption_counts_pyramids_and_trees() -> None:
    rng = np.random.default_rng(0)
    one = scenes.caption(Scene("desert", "noon", "photo", pyramids=1, tree="palm", trees=1), rng)
    many = scenes.caption(Scene("desert", "noon", "photo", pyramids=3, tree="palm", trees=3), rng)
    assert "pyramids" not in one
    assert "trees" not in one
    assert "pyramids" in many
    assert "palm trees" in many


@pytest.mark.parametrize(
    ("scene", "wanted"),
    [
        (
            Scene("desert", "sunset", "painting", sun=True, pyramids=3),
            "a painting of the desert at sunset, pyramids, sun",
        ),
        (
            Scene("sea", "night", "photo", moon=True, building="sailboat", colour="red"),
            "a photo of the sea at night, moon, red sailboat",
        ),
        (Scene("desert", "noon", "photo"), "desert at noon"),
        (Scene("meadow", "dawn", "photo", sun=True), "a photo of the meadow at dawn with the sun"),
    ],
)
def test_captions_of_the_guides_are_in_the_grammar(scene: Scene, wanted: str) -> None:
    rng = np.random.default_rng(1)
    assert not scene.is_held_out()
    assert wanted in {scenes.caption(scene, rng) for _ in range(4000)}


def test_things_are_said_in_any_order() -> None:
    rng = np.random.default_rng(2)
    scene = Scene("sea", "noon", "photo", sun=True, clouds=True, building="sailboat")
    said = [scenes.caption(scene, rng) for _ in range(50)]
    orders = {caption.index("sun") < caption.index("clouds") for caption in said}
    assert orders == {True, False}


def test_training_never_shows_a_held_out_combination() -> None:
    assert not any(dataset.sample(SEED, index).scene.is_held_out() for index in range(300))


def test_held_out_series_shows_nothing_else() -> None:
    found = [dataset.sample(SEED, index, held_out=True).scene for index in range(40)]
    assert all(scene.is_held_out() for scene in found)
    assert len({scene.ground for scene in found}) > 1


@pytest.mark.parametrize("combination", scenes.HELD_OUT, ids=lambda combination: "-".join(sorted(combination)))
def test_every_held_out_combination_can_be_drawn(combination: frozenset[str]) -> None:
    rng = np.random.default_rng(3)
    assert any(combination <= scenes.draw_scene(rng).traits() for _ in range(20_000))


def test_lights_belong_to_their_hours() -> None:
    rng = np.random.default_rng(4)
    for scene in (scenes.draw_scene(rng) for _ in range(500)):
        assert not scene.moon or scene.sky == "night"
        assert not scene.sun or scene.sky in ("noon", "sunset", "dawn")
        assert scene.building != "sailboat" or scene.ground == "sea"
        assert not (scene.ground == "sea" and (scene.trees or scene.pyramids))


def test_overstated_scene_has_one_thing_more_that_the_grammar_allows() -> None:
    rng = np.random.default_rng(5)
    for scene in (scenes.draw_scene(rng) for _ in range(300)):
        more = captions.overstated(scene, rng)
        added = drawn(more) - drawn(scene)
        assert len(added) == 1 or more == scene
        assert drawn(scene) <= drawn(more)
        assert not more.is_held_out() or more == scene
        assert (more.ground, more.sky, more.style) == (scene.ground, scene.sky, scene.style)
        assert not more.moon or more.sky == "night"
        assert not more.sun or more.sky in ("noon", "sunset", "dawn")
        assert more.building != "sailboat" or more.ground == "sea"
        assert not (more.ground == "sea" and (more.trees or more.pyramids))


def test_fragment_names_only_what_is_there() -> None:
    rng = np.random.default_rng(6)
    for scene in (scenes.draw_scene(rng) for _ in range(200)):
        named = words(captions.fragment(scene, rng)) & THINGS
        assert named <= drawn(scene)
        assert named or not drawn(scene)


def test_shares_of_what_training_says_are_as_they_are_told() -> None:
    rng = np.random.default_rng(7)
    scene = Scene("sea", "night", "photo", building="sailboat")
    said = [captions.said(scene, rng) for _ in range(4000)]
    wordless, fragments = (np.mean([test(text) for text in said]) for test in (lambda text: not text, without_ground))
    false = np.mean([bool({"moon", "clouds", "mountains"} & words(text)) for text in said if "sea" in words(text)])
    assert wordless == pytest.approx(captions.NOTHING, abs=0.02)
    assert fragments == pytest.approx(captions.FRAGMENT, abs=0.02)
    assert false == pytest.approx(captions.OVERSTATED, abs=0.03)


def without_ground(text: str) -> bool:
    return bool(text) and "sea" not in words(text)
