"""Prompts: refused if they are too long for the text encoder or the card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from shared.admission.accepted import accepted
from shared.errors import FieldError
from shared.params import paths
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from shared.prompts.composable import MOST_PARTS, read
from shared.prompts.learned_words import NO_WORDS, Words
from shared.prompts.styles import Style, merge
from shared.prompts.tokenizer import MAX_CHUNKS_IN_ALL, MAX_TOKENS, Length, Tokenizer, is_surely_accepted
from shared.settings import Limits
from shared.suggest import nearest
from shared.wording import LONGEST, choices

_SHOWN: Final = 5  # styles that a refusal offers when none is alike


def unreadable(params: RenderParams, limits: Limits) -> Iterator[FieldError]:
    """Yield the first problem of each prompt that cannot be rendered; its styles must be merged already."""
    for name, prompt in params.of_kind("prompt").items():
        problem = next(_problems(name, prompt, params, limits), None)
        if problem is not None:
            yield problem


def styled(params: RenderParams, styles: Mapping[str, Style], limits: Limits) -> RenderParams:
    """Return the parameters with their styles written into the prompts of both passes; unknown styles are ignored."""
    known = [styles[name] for name in params.styles if name in styles]

    def merged(prompt: str, texts: Iterable[str]) -> str:
        for text in texts:
            if len(prompt) > limits.max_prompt_chars:  # it is refused, and a style may repeat it again and again
                break
            prompt = merge(prompt, [text])
        return prompt

    def with_styles(path: str, prompt: str) -> str:
        is_negative = path.endswith("negative_prompt")
        return merged(prompt, [style.negative_prompt if is_negative else style.prompt for style in known])

    texts = params.of_kind("prompt")
    own = {path: text for path, text in texts.items() if text or "." not in path}  # an empty one is the first pass's
    return paths.replaced(params, {"styles": ()} | {path: with_styles(path, text) for path, text in own.items()})


def unknown_styles(params: RenderParams, styles: Mapping[str, Style]) -> Iterator[FieldError]:
    """Yield the styles that the farm does not have, with the nearest names."""
    for place, name in enumerate(params.styles):
        if name not in styles:
            known = nearest(name, styles) or [*styles][:_SHOWN]
            offered = choices(known) if known else "none: the farm has no styles"
            yield FieldError(f"styles.{place}", f"There is no style {name[:LONGEST]!r}", offered)


def lengths(
    name: str, params: RenderParams, limits: Limits, words: Mapping[bool, Words] = MappingProxyType({})
) -> Iterator[tuple[bool, Length]]:
    """Yield for each pass that reads a prompt whether it is the second, and its length; `words` are learned likewise.

    None for a prompt that is refused before its tokens are counted.
    """
    prompt, is_negative = params.of_kind("prompt")[name], name.endswith("negative_prompt")
    if len(prompt) <= limits.max_prompt_chars and len(read(prompt, is_negative=is_negative)) <= MOST_PARTS:
        for one in _passes(name, params, limits):
            is_second = one.calls_before is not None
            length = Tokenizer().measure(
                prompt,
                one.calls,
                params.emphasis,
                first_pass_calls=one.calls_before,
                is_negative=is_negative,
                words=words.get(is_second, NO_WORDS),
            )
            yield is_second, length


def too_long(name: str, length: Length, limits: Limits) -> Iterator[FieldError]:
    """Yield the problem of a prompt of a length that the text encoder, or the card, does not take."""
    if length.tokens > MAX_TOKENS:
        yield FieldError(name, f"is {length.tokens:,} tokens long", accepted(name, limits))
    if length.chunks > MAX_CHUNKS_IN_ALL:
        message = f"is longer than {MAX_CHUNKS_IN_ALL} chunks of 75 tokens, with all variants of AND and editing"
        yield FieldError(name, message, f"at most {MAX_CHUNKS_IN_ALL} chunks with all variants")


def _problems(name: str, prompt: str, params: RenderParams, limits: Limits) -> Iterator[FieldError]:
    """Yield the problems of a prompt, those that are cheap to find first."""
    if len(prompt) > limits.max_prompt_chars:
        yield FieldError(name, f"is {len(prompt):,} characters long", accepted(name, limits))
    parts = len(read(prompt, is_negative=name.endswith("negative_prompt")))
    if parts > MOST_PARTS:
        yield FieldError(name, f"has {parts} parts joined by AND", f"at most {MOST_PARTS} parts")
    if not is_surely_accepted(prompt):  # of a sweep each of a thousand may be another one
        for _, length in lengths(name, params, limits):
            yield from too_long(name, length, limits)


class _Pass(NamedTuple):
    """The model calls of a pass as editing counts them, and those of the pass before; None: it is the first."""

    calls: int
    calls_before: int | None = None


def _passes(name: str, params: RenderParams, limits: Limits) -> Iterator[_Pass]:
    """Yield each pass that reads a prompt."""
    first = _calls(params.sampler, params.steps, limits)
    group, _, field = name.rpartition(".")
    if not group:
        yield _Pass(first)
    hires = params.hires
    if hires is not None and (group or not getattr(hires, field)):  # an empty one is the first pass's
        yield _Pass(_calls(hires.sampler or params.sampler, hires.steps or params.steps, limits), first)


def _calls(sampler: str, steps: int, limits: Limits) -> int:
    """Return the model calls of a pass as editing counts them, within the limits of the farm."""
    order = SAMPLERS[sampler].order if sampler in SAMPLERS else 1
    return min(steps, limits.max_steps) * order
