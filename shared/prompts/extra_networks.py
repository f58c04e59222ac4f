"""Tags that ask for a further network: `<lora:name:0.8>`, `<hypernet:name>`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_TAG: Final = re.compile(r"<(\w+):([^>]+)>")
_COMMENT: Final = re.compile(r"#[^\n]*\n?")
_COMMENT_OR_TAG: Final = re.compile(r"#[^\n]*|<(\w+):([^<>#]+)>")  # no search for an end goes past the next beginning


class Network(NamedTuple):
    """A network that a prompt names: `<lora:ink:0.8:unet=0.5>` is of the kind lora and has the name ink."""

    kind: str
    arguments: tuple[str, ...]  # the name, then arguments without a name: "0.8"
    options: tuple[tuple[str, str], ...]  # ("unet", "0.5")

    @property
    def name(self) -> str:
        return self.arguments[0] if self.arguments else ""


def networks(prompt: str) -> tuple[Network, ...]:
    """Return the networks that `prompt` names outside of comments, in its order."""
    plain = without_comments(prompt)
    return tuple(_network(*tag.groups()) for tag in _TAG.finditer(plain, 0, _end(plain)))


def without(prompt: str) -> str:
    """Return `prompt` without its tags; blanks around them stay."""
    end = _end(prompt)
    return _TAG.sub("", prompt[:end]) + prompt[end:]


def replaced(prompt: str, change: Callable[[Network, str], str]) -> str:
    """Return `prompt` with each tag outside of comments replaced by `change(network, the tag as it stands)`."""

    def changed(found: re.Match[str]) -> str:
        return change(_network(found[1], found[2]), found[0]) if found[1] else found[0]

    return _COMMENT_OR_TAG.sub(changed, prompt)


def renamed(tag: str, name: str) -> str:
    """Return a tag with another name in it."""
    kind, *given = tag[1:-1].split(":")
    place = next((place for place, one in enumerate(given) if one.count("=") != 1), len(given))
    return f"<{':'.join([kind, *given[:place], name, *given[place + 1 :]])}>"


def without_comments(prompt: str) -> str:
    """Return `prompt` without what stands behind a `#` in each of its lines."""
    return _COMMENT.sub("\n", prompt)


def _end(prompt: str) -> int:
    """Return where the last tag could end, so that no `<` after it is searched for its end."""
    return prompt.rfind(">") + 1


def _network(kind: str, inside: str) -> Network:
    arguments, options = [], []
    for given in inside.split(":"):
        name, *values = given.split("=")
        if len(values) == 1:
            options.append((name, values[0]))
        else:
            arguments.append(given)
    return Network(kind, tuple(arguments), tuple(options))
