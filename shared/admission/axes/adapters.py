"""Axes of LoRAs: the weights of one, or several by name. They change the tags of prompts."""

from __future__ import annotations

from functools import partial
from typing import Final

from shared.admission.axes.notation import BadValues, Item
from shared.admission.axes.numbers import Grid, numbers
from shared.admission.axes.values import Scalar, Value, given_items, text_of, titled
from shared.params.codecs import number, split_title
from shared.prompts.adapters import BadTag, used
from shared.prompts.extra_networks import Network, networks, renamed
from shared.prompts.extra_networks import replaced as tags_replaced
from shared.settings import Limits
from shared.wording import LONGEST

_KINDS: Final = frozenset({"lora", "lyco"})
_WITHOUT: Final = "none"
_SIGNS: Final = frozenset("<>#")


def weights(name: str, values: object, limits: Limits) -> list[Value]:
    """Return the values of `lora`: the weights of the LoRA `name`; at 0 it has no tag. Raises BadValues."""
    if not name.strip():
        raise BadValues("does not say which LoRA is meant", 'the name of a LoRA in `of`, such as "of": "ink"')
    found = []
    for place, one in enumerate(given_items(values, limits)):
        for weight in _weights(one):
            tag = f"{name.strip()}:{weight:g}"
            _check(tag, place)
            title = f"{split_title(name)[0]} {number(float(weight))}"
            found.append(Value(titled(title), edit=partial(_tagged, name.strip(), tag if weight else "")))
    return found


def names(replaced: str, values: object, limits: Limits) -> list[Value]:
    """Return the values of `lora_name`: LoRAs by name, with a weight behind a colon, or none. Raises BadValues.

    `replaced` is the LoRA of the prompt whose place they take, with its weights; empty: they are added to the prompt.
    """
    found = []
    for place, one in enumerate(given_items(values, limits)):
        text = text_of(one).strip()
        is_none = text.casefold() == _WITHOUT or not text
        if not is_none:
            _check(text, place)
        title = _WITHOUT if is_none else split_title(text.partition(":")[0])[0]
        found.append(Value(titled(title), edit=partial(_renamed, replaced.strip(), "" if is_none else text)))
    return found


def appended(prompt: str, tag: str) -> str:
    """Return a prompt with the tag of a LoRA behind it: `ink:0.8`. Raises BadValues."""
    _check(tag, None)
    return f"{prompt} <lora:{tag}>".strip()


def _weights(one: Scalar | Item) -> list[float]:
    if isinstance(one, bool) or one is None:
        raise BadValues("is not a weight", "numbers such as 0, 0.5, 1")
    return [float(weight) for weight in numbers(text_of(one).strip(), Grid(is_whole=False))]


def _check(tag: str, place: int | None) -> None:
    """Raise BadValues unless `name:weight` makes a tag."""
    try:
        is_one = len(used(f"<lora:{tag}>")) == 1 and not _SIGNS & {*tag}
    except BadTag as bad:
        raise BadValues(str(bad), bad.accepted, place) from None
    if not is_one:
        raise BadValues(f"holds {tag[:LONGEST]!r}, which is not a name and a weight", "such as ink or ink:0.8", place)


def _tagged(name: str, tag: str, prompt_name: str, prompt: str) -> str:
    """Return a prompt with this tag in the place of the first of that name, or behind it; an empty one takes it out."""
    if prompt_name.endswith("negative_prompt"):
        return prompt
    new = f"<lora:{tag}>" if tag else ""
    placed = False

    def change(network: Network, old: str) -> str:
        nonlocal placed
        if not _is_called(network, name):
            return old
        first, placed = not placed, True
        return new if first else ""

    text = tags_replaced(prompt, change)
    return text if placed else f"{prompt} {new}".strip()


def _renamed(replaced: str, tag: str, prompt_name: str, prompt: str) -> str:
    if prompt_name.endswith("negative_prompt"):
        return prompt
    is_there = replaced and any(_is_called(network, replaced) for network in networks(prompt))
    if not is_there or ":" in tag or not tag:
        return _tagged(replaced, tag, prompt_name, prompt)

    def change(network: Network, old: str) -> str:
        return renamed(old, tag) if _is_called(network, replaced) else old

    return tags_replaced(prompt, change)


def _is_called(network: Network, name: str) -> bool:
    return network.kind.casefold() in _KINDS and network.name.strip() == name
