"""Conditioning: the contexts of a picture's prompts at each of its model calls."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor

from shared.errors import RenderError
from shared.params.fields import Emphasis
from shared.prompts import composable, editing
from shared.prompts.chunks import EMPTY, Text
from worker.engine.requests import Asks, Embed, Term, Work
from worker.engine.weights import Weights


@dataclass(frozen=True, eq=False)
class Timeline:
    """The contexts of one text, which prompt editing may change on the way."""

    ends: Sequence[int]  # the last step of each segment, rising
    contexts: Sequence[Tensor]  # [tokens, width] each

    def at(self, call: int) -> Tensor:
        """Return the context of model call `call`, counted from 0: of the first segment that ends there or later.

        Segments count from 1, so the first one lasts a call longer than it says, as users know it from other programs.
        After the last segment its context stays.
        """
        return self.contexts[min(bisect_left(self.ends, call), len(self.ends) - 1)]


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt in the parts that AND joins, and the negative prompt."""

    parts: Sequence[tuple[float, Timeline]]
    negative: Timeline

    def conditional(self, call: int) -> tuple[Term, ...]:
        """Return the parts at model call `call`, counted from 0, with the weights that the prompt gives them."""
        return tuple(Term(weight, timeline.at(call)) for weight, timeline in self.parts)

    def unconditional(self, call: int) -> Term:
        """Return the negative prompt at model call `call`, counted from 0."""
        return Term(1.0, self.negative.at(call))


class Line(NamedTuple):
    """One text of a script: its weight, the last step of each segment, and the place of its text in `texts`."""

    weight: float
    ends: Sequence[int]
    places: Sequence[int]


@dataclass(frozen=True)
class Script:
    """Prompts before they are embedded: each text once, and the lines that refer to them."""

    texts: tuple[Text, ...]
    lines: tuple[Line, ...]  # the AND parts, then the negative prompt


def prepare(  # noqa: PLR0913 - all that decides how prompts are read
    weights: Weights,
    *,
    prompt: str,
    negative_prompt: str,
    calls: int,
    clip_skip: int = 1,
    emphasis: Emphasis = "Original",
    is_hires: bool = False,
    base_calls: int = 0,
) -> Asks[Prompt]:
    """Return the contexts of a pass, with prompt editing counted over `calls` model calls.

    These are all steps, twice as many for a sampler of second order, also if fewer are run. A hires pass counts on from
    the first pass's `base_calls`. Raises RenderError if the text encoder has fewer layers than `clip_skip`.
    """
    layers = weights.text_encoder.config.num_hidden_layers
    if clip_skip > layers:
        depth = "1 layer" if layers == 1 else f"{layers} layers"
        raise RenderError(f"clip skip {clip_skip} is too deep: this checkpoint's text encoder has {depth}")
    schedule = partial(editing.schedule, calls=calls, first_pass_calls=base_calls if is_hires else None)
    chunks = partial(weights.tokenizer.chunks, emphasis=emphasis)
    script: Script = yield Work(lambda: _script(prompt, negative_prompt, schedule, chunks))
    embeds = tuple(Embed(weights, text, clip_skip, keeps_mean=emphasis == "Original") for text in script.texts)
    contexts: Sequence[Tensor] = yield embeds
    timelines = [Timeline(line.ends, [contexts[place] for place in line.places]) for line in script.lines]
    weighed = zip((line.weight for line in script.lines), timelines, strict=True)
    return Prompt(tuple(weighed)[:-1], timelines[-1])


def _script(
    prompt: str,
    negative_prompt: str,
    schedule: Callable[[str], Iterable[editing.Segment]],
    chunks: Callable[[str], Text],
) -> Script:
    """Read both prompts."""
    places: dict[Text, int] = {}
    lines = []
    for part in (*composable.read(prompt), *composable.read(negative_prompt, is_negative=True)):
        segments = tuple(schedule(part.text))
        filled = _filled({segment.text: chunks(segment.text) for segment in segments})
        known = {text: places.setdefault(said, len(places)) for text, said in filled.items()}
        lines.append(Line(part.weight, [end for end, _ in segments], [known[text] for _, text in segments]))
    return Script(tuple(places), tuple(lines))


def _filled(texts: Mapping[str, Text]) -> dict[str, Text]:
    """Return the variants of one part with empty chunks up to the longest: a context keeps its length on the way."""
    longest = max(map(len, texts.values()))
    return {text: (*said, *(EMPTY for _ in range(longest - len(said)))) for text, said in texts.items()}
