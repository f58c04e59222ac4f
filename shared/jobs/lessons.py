"""Experiments of a first lesson, each one job: what a setting does, its pictures side by side.

The page of lessons offers them, and `make lessons` renders them for docs/lessons.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

_SAILBOAT: Final = "a photo of the sea at night, moon, red sailboat"
_HOUSE: Final = "a painting of the meadow at noon with clouds and a red house"
_SEEDS: Final = ("seed", ("1-4",))
_CHOSEN: Final = "checkpoint"


@dataclass(frozen=True)
class Lesson:
    """An experiment: what it is about, and the job that it is. Its texts are English; pages translate them."""

    name: str
    title: str
    about: str  # what is compared
    look_for: str
    words: tuple[str, ...]  # of the prompt, that a judge can count in its pictures
    params: Mapping[str, Any]
    axes: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())  # field and values, as a request has them

    @property
    def needs_two(self) -> bool:
        """Whether it compares two checkpoints."""
        return any(field == _CHOSEN for field, _ in self.axes)

    def request(self, checkpoint: str, other: str) -> dict[str, Any]:
        """Return the job as a request: with one checkpoint, or where it compares two, with both."""
        job = {"checkpoint": checkpoint, **self.params}
        axes = self.varying(checkpoint, other)
        listed = [{"field": field, "values": [*values]} for field, values in axes]
        return {**job, "sweep": {"axes": listed}} if axes else job

    def varying(self, checkpoint: str, other: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return its axes, field and values."""
        return tuple((field, (checkpoint, other) if field == _CHOSEN else values) for field, values in self.axes)


def _job(prompt: str, **others: object) -> Mapping[str, Any]:
    return MappingProxyType({"prompt": prompt, **others})


LESSONS: Final = (
    Lesson(
        "words",
        "The prompt says what is there, the negative prompt what is not",
        "A desert with and without pyramids in the prompt, each with and without them in the negative prompt, at four "
        "seeds.",
        "Pyramids stand where the prompt asks for them and the negative prompt does not push them out. The desert, the "
        "sun and the light stay, since the seed is the same.",
        ("pyramids", "sun", "desert", "sunset"),
        _job("a painting of the desert at sunset, sun|pyramids"),
        (("prompt_matrix", ()), ("negative_prompt", ("", "pyramids")), _SEEDS),
    ),
    Lesson(
        "guidance",
        "The CFG scale says how strongly the prompt guides",
        "One prompt at a CFG scale of 7, 15, 20 and 25.5, at four seeds.",
        "Colours and edges get harder as the scale grows. Somewhere they burn out, and details disappear that the "
        "prompt does not name.",
        ("sailboat", "red", "moon", "night"),
        _job(_SAILBOAT),
        (("cfg_scale", ("7", "15", "20", "25.5")), _SEEDS),
    ),
    Lesson(
        "samplers",
        "Samplers go different ways from the same noise",
        "Euler a, LMS, Heun and DPM2 with the same prompt, steps and seeds.",
        "LMS, Heun and DPM2 solve the same equation and come to nearly the same picture. Euler a adds fresh noise at "
        "each step and ends elsewhere. Heun and DPM2 ask the network twice a step, so they take about twice as long.",
        ("sailboat", "red", "moon", "night"),
        _job(_SAILBOAT),
        (("sampler", ("Euler a", "LMS", "Heun", "DPM2")), _SEEDS),
    ),
    Lesson(
        "steps",
        "More steps draw finer, up to a point",
        "One prompt with 20, 30, 40, 60 and 100 steps, at four seeds.",
        "The time grows with the steps. From some number on, the pictures are not better any more, only different: "
        "Euler a adds noise at each step.",
        ("house", "red", "clouds", "meadow"),
        _job(_HOUSE),
        (("steps", ("20", "30", "40", "60", "100")), _SEEDS),
    ),
    Lesson(
        "seeds",
        "One seed is one picture; another seed is another",
        "The seed -1 twice, then the seed 7 twice.",
        "-1 draws another seed each time, so the first two pictures differ. The last two are equal in every pixel. "
        "Above each picture stands its seed.",
        ("pyramids", "sun"),
        _job("a painting of the desert at sunset, pyramids, sun"),
        (("seed", ("-1", "-1", "7", "7")),),
    ),
    Lesson(
        "checkpoints",
        "Another checkpoint paints the same words its own way",
        "One prompt and four seeds with two checkpoints.",
        "The words are the same, and at the same size the noise is too. The difference is what each checkpoint has "
        "learned to draw.",
        ("house", "red", "painting", "pixel art"),
        _job(_HOUSE),
        ((_CHOSEN, ()), _SEEDS),
    ),
)
"""The six experiments, each a sweep."""

MADE: Final = Lesson(
    "made",
    "From text to a picture in five steps",
    "One picture, kept together with everything that it was made of.",
    "The noise that it starts from, the tokens of the prompt, the latent step by step, what the prompt changes in it, "
    "and the picture that the decoder makes of it.",
    (),
    _job("a painting of the desert at sunset, pyramids, sun", seed=7, intermediates=True),
)
"""One picture with its intermediates, which a page of its own explains."""

BY_NAME: Final[Mapping[str, Lesson]] = MappingProxyType({lesson.name: lesson for lesson in (*LESSONS, MADE)})
