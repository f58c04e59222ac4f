"""Six experiments of a first lesson: what each knob does, as rows of eight pictures of the same eight seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tools.demo_checkpoint.judging import Found, Judge, shows
from tools.demo_checkpoint.studio import Studio, painted

SEEDS = range(1, 9)
PYRAMIDS = "a painting of the desert at sunset, pyramids, sun"
SAILBOAT = "a photo of the sea at night, moon, red sailboat"
HOUSE = "a painting of the meadow at noon with clouds and a red house"


@dataclass(frozen=True)
class Try:
    """One row of an experiment: a prompt with what is changed, rendered for each seed by one of the checkpoints."""

    label: str
    prompt: str
    changes: dict[str, object] = field(default_factory=dict)
    seeds: Sequence[int] = SEEDS
    checkpoint: int = 0


@dataclass(frozen=True)
class Lesson:
    """An experiment: what one sees, the words that the judge counts, and the rows."""

    name: str
    title: str
    words: tuple[str, ...]
    tries: tuple[Try, ...]


LESSONS = (
    Lesson(
        "words",
        "The prompt says what is there, the negative prompt what is not",
        ("pyramids", "sun", "desert", "sunset"),
        (
            Try("pyramids in the prompt", PYRAMIDS),
            Try("without them", PYRAMIDS.replace(" pyramids,", "")),
            Try("pyramids in both prompts", PYRAMIDS, {"negative_prompt": "pyramids"}),
        ),
    ),
    Lesson(
        "guidance",
        "The CFG scale says how strongly the prompt guides",
        ("sailboat", "red", "moon", "night"),
        tuple(Try(f"CFG {scale:g}", SAILBOAT, {"cfg_scale": scale}) for scale in (1.0, 4.0, 7.0, 15.0)),
    ),
    Lesson(
        "steps",
        "More steps draw finer, up to a point",
        ("house", "red", "clouds", "meadow"),
        tuple(Try(f"{steps} steps", HOUSE, {"steps": steps}) for steps in (5, 10, 20, 40)),
    ),
    Lesson(
        "samplers",
        "Samplers go different ways from the same noise",
        ("sailboat", "red", "moon", "night"),
        tuple(Try(name, SAILBOAT, {"sampler": name}) for name in ("Euler a", "Euler", "DPM++ 2M", "DDIM")),
    ),
    Lesson(
        "seeds",
        "One seed is one picture; another seed is another",
        ("pyramids", "sun"),
        (
            Try("seed 1, rendered four times", PYRAMIDS, seeds=(1, 1, 1, 1)),
            Try("seeds 1 to 4", PYRAMIDS, seeds=(1, 2, 3, 4)),
        ),
    ),
    Lesson(
        "checkpoints",
        "Another checkpoint paints the same words its own way",
        ("house", "red", "painting", "pixel art"),
        (Try("scenes-v1", HOUSE), Try("scenes-pixel-v1", HOUSE, checkpoint=1)),
    ),
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """The pictures of a row, [count, h, w, 3], and what the judge counts in them."""

    label: str
    pictures: NDArray[np.uint8]
    figures: str


def held(lesson: Lesson, studios: Sequence[Studio], judge: Judge) -> list[Outcome]:
    """The rows of a lesson, rendered; where a row repeats a seed it also says how far its pictures are apart."""
    outcomes = []
    for row in lesson.tries:
        asked = [painted(row.prompt, seed, **row.changes) for seed in row.seeds]
        pictures = studios[row.checkpoint].render(asked)
        figures = counted(judge.of(pictures), lesson.words)
        if len(set(row.seeds)) < len(row.seeds):
            apart = int(np.abs(pictures.astype(np.int16) - pictures[0]).max())
            figures += f"; at most {apart} of 255 apart"
        outcomes.append(Outcome(row.label, pictures, figures))
    return outcomes


def counted(found: Found, words: Sequence[str]) -> str:
    """In how many of the pictures each word holds."""
    return ", ".join(f"{word} {np.count_nonzero(shows(found, word))} of {len(found[word])}" for word in words)


def pictures_needed(lessons: Sequence[Lesson] = LESSONS) -> int:
    return sum(len(row.seeds) for lesson in lessons for row in lesson.tries)


def page(outcomes: dict[str, list[Outcome]], folder: str) -> str:
    """All lessons as a page in Markdown, each with its sheet and its figures."""
    parts = []
    for number, lesson in enumerate(LESSONS, 1):
        rows = [f"| {outcome.label} | {outcome.figures} |" for outcome in outcomes[lesson.name]]
        table = "\n".join(["| | the judge finds |", "| --- | --- |", *rows])
        parts.append(f"## {number}. {lesson.title}\n\n![{lesson.title}]({folder}/{lesson.name}.webp)\n\n{table}")
    return "\n\n".join(parts)
