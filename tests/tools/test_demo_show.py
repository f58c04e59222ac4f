"""The demo's sheets: rendered through the engine, labelled with what the judge counts."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.jobs.lessons import LESSONS, Lesson
from shared.params.render import RenderParams
from tools.demo_checkpoint import effects, layout, lessons, sheets
from tools.demo_checkpoint.effects import Trials
from tools.demo_checkpoint.judging import WORDS, Found
from tools.demo_checkpoint.layout import Shape
from tools.demo_checkpoint.lessons import Outcome
from tools.demo_checkpoint.studio import Studio, painted

TINY = Shape(image_size=128, unet_width=32, unet_heads=2, vae_multiples=(1, 1, 1, 1), text_width=64, text_layers=1)


class Painter:
    """Stands in for a studio: remembers what is asked, answers pictures of one grey each."""

    def __init__(self) -> None:
        self.asked: list[RenderParams] = []

    def render(self, asked: list[RenderParams], inputs: object = ()) -> NDArray[np.uint8]:
        del inputs
        self.asked += asked
        return np.stack([np.full((128, 128, 3), one.seed % 256, np.uint8) for one in asked])


class Certain:
    """A judge that finds every word in every picture."""

    def of(self, pictures: NDArray[np.uint8]) -> Found:
        return {word: np.ones(len(pictures), np.float32) for word in WORDS}


def test_studio_renders_each_seed_as_it_renders_it_alone(tmp_path: Path):
    layout.save(layout.build(TINY, scale_factor=0.2), TINY, tmp_path / "tiny.safetensors")
    told: list[int] = []
    with Studio(tmp_path / "tiny.safetensors", lambda: told.append(1)) as studio:
        together = studio.render([painted("sea", seed, steps=2) for seed in (3, 4, 5)])
        alone = studio.render([painted("sea", 4, steps=2)])
    assert together.shape == (3, 128, 128, 3)
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 1
    assert len(told) == 4


def test_each_row_of_a_lesson_has_the_seeds_of_the_others():
    assert len(LESSONS) == 6
    for lesson in LESSONS:
        assert frozenset(lesson.words) <= frozenset(WORDS)
        seeds = [tuple(one.seed for one in row.asked) for row in lessons.rows(lesson)]
        assert len(set(seeds)) == 1
        assert lesson.name == "seeds" or seeds[0] == (1, 2, 3, 4)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_lesson_renders_what_its_rows_say(lesson: Lesson):
    first, second = Painter(), Painter()
    outcomes = lessons.held(lesson, [first, second], Certain())
    assert len({outcome.label for outcome in outcomes}) == len(outcomes)
    assert len(first.asked) + len(second.asked) == lessons.pictures_needed([lesson])
    assert bool(second.asked) == (lesson.name == "checkpoints")
    assert all(f"{lesson.words[0]} {len(outcome.pictures)} of" in outcome.figures for outcome in outcomes)


def test_repeated_seed_is_told_with_how_far_its_pictures_are_apart():
    seeds = next(lesson for lesson in LESSONS if lesson.name == "seeds")
    painter = Painter()
    (row,) = lessons.held(seeds, [painter], Certain())
    assert "those of seed 7 at most 0 of 255 apart" in row.figures
    assert len({one.seed for one in painter.asked}) == 3


def test_page_shows_each_sheet_with_its_figures():
    outcome = Outcome((("Steps", "20"), ("", "a row")), np.zeros((1, 128, 128, 3), np.uint8), "sun 1 of 1")
    page = lessons.page({lesson.name: [outcome] for lesson in LESSONS}, "lessons")
    assert page.count("| Steps 20, a row | sun 1 of 1 |") == 6
    assert "](lessons/words.webp)" in page
    chinese = lessons.page({one.name: [outcome] for one in LESSONS}, "lessons", "zh")
    assert "## 2. 提示词引导系数" in chinese
    assert "| 迭代步数 (Steps) 20, a row |" in chinese


def test_effects_make_the_renderings_they_announce():
    painter = Painter()
    list(effects.rows(Trials(painter, Certain(), 2)))
    assert len(painter.asked) == 2 * effects.RENDERINGS


def test_sheet_of_rows_holds_every_picture_under_its_label(tmp_path: Path):
    rows = [("first", np.full((3, 128, 128, 3), 40, np.uint8)), ("second", np.full((2, 128, 128, 3), 90, np.uint8))]
    sheets.write_rows(rows, tmp_path / "rows.png")
    sheet = np.asarray(Image.open(tmp_path / "rows.png"))
    assert (sheet == 40).all(2).sum() >= 3 * 128 * 128
    assert (sheet == 90).all(2).sum() >= 2 * 128 * 128
