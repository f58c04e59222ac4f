"""The experiments of the page of lessons as rows of pictures, with what the judge counts in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.admission.admit import prepare
from shared.admission.parse import parse
from shared.jobs.lessons import LESSONS, Lesson
from shared.languages.catalogue import translations
from shared.params.render import RenderParams
from shared.settings import Limits
from tools.demo_checkpoint.judging import Found, Judge, shows
from tools.demo_checkpoint.studio import SIDE, Studio

CHECKPOINTS = ("scenes-v1", "scenes-pixel-v1")
SIZE = {"width": SIDE, "height": SIDE}
JUDGED = {"en": "the judge finds", "zh": "判别器在图片中找到的内容"}
"""The head of the figures, by the language of a page."""


class Row(NamedTuple):
    """The pictures of a sheet that stand beside each other, each with the number of its checkpoint."""

    label: tuple[tuple[str, str], ...]  # what differs from other rows, and how, as `said` puts it together
    asked: tuple[RenderParams, ...]
    checkpoint: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """The pictures of a row, [count, h, w, 3], and what the judge counts in them."""

    label: tuple[tuple[str, str], ...]
    pictures: NDArray[np.uint8]
    figures: str


def rows(lesson: Lesson) -> list[Row]:
    """The job of an experiment, planned as the farm plans it, a row for each value of all axes but the last."""
    request = prepare(parse(lesson.request(*CHECKPOINTS), "", Limits()), {})
    if request.plan is None or request.problems:
        raise ValueError(f"{lesson.name} is not a sweep that can be rendered: {request.problems}")
    plan, found = request.plan, []
    for places, cells in groupby(plan.cells, key=lambda cell: cell.places[:-1]):
        line = list(cells)
        titles = plan.titles(line[0])[:-1] if places else [plan.titles(cell)[-1] for cell in line]
        axes = plan.described[:-1] if places else plan.described
        names = ["" if axis.field == "prompt_matrix" else axis.label for axis in axes]  # whose titles say it all
        label = zip(names, titles if places else [", ".join(titles)], strict=True)
        asked = tuple(cell.params.model_copy(update=SIZE) for cell in line)
        found.append(Row(tuple(label), asked, CHECKPOINTS.index(line[0].params.checkpoint)))
    return found


def said(label: tuple[tuple[str, str], ...], language: str = "en") -> str:
    """The label of a row in the language of a page."""
    words = translations(language).gettext
    return ", ".join(f"{words(name)} {words(title)}" if name else words(title) for name, title in label)


def held(lesson: Lesson, studios: Sequence[Studio], judge: Judge) -> list[Outcome]:
    """The rows of a lesson, rendered; where a row repeats a seed it also says how far its pictures are apart."""
    outcomes = []
    for row in rows(lesson):
        pictures = studios[row.checkpoint].render(row.asked)
        figures = counted(judge.of(pictures), lesson.words)
        seeds = [one.seed for one in row.asked]
        if (twice := next((seed for seed in seeds if seeds.count(seed) > 1), None)) is not None:
            same = pictures[[at for at, seed in enumerate(seeds) if seed == twice]].astype(np.int16)
            figures += f"; those of seed {twice} at most {int(np.abs(same - same[0]).max())} of 255 apart"
        outcomes.append(Outcome(row.label, pictures, figures))
    return outcomes


def counted(found: Found, words: Sequence[str]) -> str:
    """In how many of the pictures each word holds."""
    return ", ".join(f"{word} {np.count_nonzero(shows(found, word))} of {len(found[word])}" for word in words)


def pictures_needed(lessons: Sequence[Lesson] = LESSONS) -> int:
    return sum(len(row.asked) for lesson in lessons for row in rows(lesson))


def page(outcomes: dict[str, list[Outcome]], folder: str, language: str = "en") -> str:
    """All lessons as a page in Markdown, each with its sheet and its figures; titles in the language of the page."""
    words = translations(language).gettext
    parts = []
    for number, lesson in enumerate(LESSONS, 1):
        lines = [f"| {said(outcome.label, language)} | {outcome.figures} |" for outcome in outcomes[lesson.name]]
        table = "\n".join([f"| | {JUDGED[language]} |", "| --- | --- |", *lines])
        title = words(lesson.title)
        parts.append(f"## {number}. {title}\n\n![{title}]({folder}/{lesson.name}.webp)\n\n{table}")
    return "\n\n".join(parts)
