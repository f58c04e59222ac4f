"""The conditionings of a picture's prompts at each of its model calls."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from torch import Tensor

from shared.errors import RenderError
from shared.params.render import RenderParams
from shared.prompts import composable, editing
from shared.prompts.adapters import Use, used
from shared.prompts.chunks import EMPTY, Text
from worker.engine.architectures.conditioning import UNSTEERED, Adapter, Applied, Conditioning, Steering
from worker.engine.architectures.weights import Weights
from worker.engine.requests import Asks, Embed, Term, Work

NONE: Final[Mapping[str, Adapter]] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Timeline:
    """The conditionings of one text, which prompt editing may change on the way."""

    ends: Sequence[int]  # the last step of each segment, rising
    conditionings: Sequence[Conditioning]

    def at(self, call: int) -> Conditioning:
        """Return the conditioning of model call `call`, counted from 0: of the first segment that ends there or later.

        Segments count from 1, so the first one lasts a call longer than it says, as users know it from other programs.
        After the last segment its conditioning stays.
        """
        return self.conditionings[min(bisect_left(self.ends, call), len(self.ends) - 1)].at(call)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt in the parts that AND joins, and the negative prompt."""

    parts: Sequence[tuple[float, Timeline]]
    negative: Timeline
    adapters: Callable[[int], tuple[Applied, ...]] = lambda _call: ()  # of every row at a model call

    def conditional(self, call: int) -> tuple[Term, ...]:
        """Return the parts at model call `call`, counted from 0, with the weights that the prompt gives them."""
        adapters = self.adapters(call)
        return tuple(Term(weight, timeline.at(call).adapted(adapters)) for weight, timeline in self.parts)

    def unconditional(self, call: int) -> Term:
        """Return the negative prompt at model call `call`, counted from 0."""
        return Term(1.0, self.negative.at(call).adapted(self.adapters(call)), is_negative=True)


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


def prepare(  # noqa: PLR0913 - what goes with every conditioning
    weights: Weights,
    params: RenderParams,
    *,
    calls: int,
    base_calls: int | None = None,
    extra: Tensor | None = None,
    adapters: Mapping[str, Adapter] = NONE,
    steering: Steering = UNSTEERED,
) -> Asks[Prompt]:
    """Return the prompts of a pass, with prompt editing counted over `calls` model calls.

    These are all steps, twice as many for a sampler of second order, also if fewer are run. A hires pass counts on from
    the first pass's `base_calls`. `extra` channels go with every conditioning, and `steering` with those that it acts
    on. `adapters` are those that the prompt's tags name, by their keys; they act on both prompts, and on text encoders
    with their weight at the beginning. Raises RenderError if a text encoder has fewer layers than clip skip asks for.
    """
    architecture = weights.architecture
    clip_skip = architecture.clip_skip(params)
    _require_layers(weights, clip_skip)
    schedule = partial(editing.schedule, calls=calls, first_pass_calls=base_calls)
    chunks = partial(weights.tokenizer.chunks, emphasis=params.emphasis, words=weights.words)
    script: Script = yield Work(lambda: _script(params.prompt, params.negative_prompt, schedule, chunks))
    keeps_mean = params.emphasis == "Original"
    uses = [(adapters[use.key], use) for use in used(params.prompt) if use.key in adapters]  # the others are merged
    read = tuple(Applied(adapter, use.text_encoder.start, use.rank) for adapter, use in uses)
    embeds = tuple(Embed(weights, text, clip_skip, keeps_mean=keeps_mean, adapters=read) for text in script.texts)
    embedded: Sequence[Conditioning] = yield embeds

    def timeline(line: Line, *, is_negative: bool = False) -> Timeline:
        sizes = architecture.sizes(params, is_negative=is_negative)
        acting = tuple(one for one in steering.controls if one.acts_on_negative or not is_negative)
        shown = tuple(one.negative() if is_negative else one for one in steering.image_prompts)
        beside = partial(replace, sizes=sizes, extra=extra, controls=acting, image_prompts=shown)
        return Timeline(line.ends, [beside(embedded[place]) for place in line.places])

    *parts, last = script.lines
    negative = timeline(last, is_negative=True)
    if architecture.zeroes_empty_negative and not params.negative_prompt:
        negative = replace(negative, conditionings=[one.zeroed() for one in negative.conditionings])
    painted = partial(_painted, uses, steps=params.steps, calls=calls)
    return Prompt(tuple((part.weight, timeline(part)) for part in parts), negative, painted)


def _painted(uses: Sequence[tuple[Adapter, Use]], call: int, *, steps: int, calls: int) -> tuple[Applied, ...]:
    """Return the adapters of the U-Net at model call `call`, counted from 0, of a pass of `calls`."""
    return tuple(Applied(adapter, use.unet.at(call / calls, steps=steps), use.rank) for adapter, use in uses)


def _require_layers(weights: Weights, clip_skip: int | None) -> None:
    for encoder in weights.text_encoders:
        if encoder.layer_of(clip_skip) > encoder.layers:
            depth = "1 layer" if encoder.layers == 1 else f"{encoder.layers} layers"
            raise RenderError(f"clip skip {clip_skip} is too deep: this checkpoint's text encoder has {depth}")


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
