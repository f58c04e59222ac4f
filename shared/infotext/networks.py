"""The files of adapters in the text of a picture: by their names in tags, and by hashes beside these.

The ecosystem's form is `Lora hashes: "ink: 0123456789ab, style/wash: ba9876543210"`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from shared.params.codecs import split_title
from shared.prompts.adapters import BadTag, used
from shared.prompts.extra_networks import Network, renamed, replaced

LORA_HASHES: Final = "Lora hashes"
HYPERNET_HASHES: Final = "Hypernet hashes"
TI_HASHES: Final = "TI hashes"
_KEYS: Final = {"lora": LORA_HASHES, "hypernet": HYPERNET_HASHES, "embedding": TI_HASHES}
"""By the beginning of a key: the value that holds the hashes of its files. The second one is the farm's own."""
_HASHES: Final = "Hashes"  # of all files, in JSON, as Civitai has them
_DIGITS: Final = re.compile(r"(?:0x)?([0-9a-f]{10,64})", re.IGNORECASE)
_SHORT: Final = 10  # digits of a hash in a title
_LONGEST: Final = 80

Hashes = Mapping[str, str]
"""By `Use.key`: the beginning of a file's hash."""


def written(hashes: Hashes) -> dict[str, str]:
    """Return the values of a text that hold these hashes."""
    names: dict[str, dict[str, str]] = {kind: {} for kind in _KEYS}
    for key, digits in hashes.items():
        kind, _, name = key.partition(":")
        if kind in names and digits:
            names[kind].setdefault(split_title(name)[0], digits)
    return {
        _KEYS[kind]: ", ".join(f"{name}: {digits}" for name, digits in some.items())
        for kind, some in names.items()
        if some
    }


def taken(values: dict[str, str]) -> dict[str, str]:
    """Take the hashes of adapters out of the values of a text, and return them by key, casefolded."""
    found: dict[str, str] = {}
    for name, digits in _listed(values.get(_HASHES, "")):
        found[name.casefold()] = digits
    for kind, key in _KEYS.items():
        found |= {f"{kind}:{name}".casefold(): digits for name, digits in _pairs(values.pop(key, ""))}
    return {name: digits.lower()[:_SHORT] for name, digits in found.items()}


def embeddings(hashes: Hashes) -> dict[str, str]:
    """Return the hashes of embeddings among `hashes`, by their words, casefolded."""
    kinds = ("embedding:", "embed:")  # Civitai's list has the second one
    found = {key: next((kind for kind in kinds if key.startswith(kind)), "") for key in hashes}
    return {key.removeprefix(kind): hashes[key] for key, kind in found.items() if kind}


def _listed(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and hashes of adapters in Civitai's list; a broken one has none."""
    try:
        listed = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return
    for name, digits in listed.items() if isinstance(listed, dict) else ():
        if isinstance(digits, str) and (known := _DIGITS.fullmatch(digits.strip())):
            yield name, known[1]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and hashes in `ink: 0123456789ab, a, b: ba9876543210`; a name may hold commas."""
    parts: list[str] = []
    for part in text.split(","):
        name, _, digits = part.rpartition(":")
        if known := _DIGITS.fullmatch(digits.strip()):
            yield ",".join([*parts, name]).strip(), known[1]
            parts = []
        else:
            parts.append(part)


def pinned(prompt: str, hashes: Hashes, *, is_negative: bool = False) -> tuple[str, list[str]]:
    """Return a prompt of which each tag names its file by a title, if its hash is said; and notes of tags taken out.

    A tag that asks for no adapter is taken out, and any of a negative prompt.
    """
    notes: list[str] = []

    def changed(tag: Network, text: str) -> str:
        try:
            [use] = used(text)
        except (BadTag, ValueError) as error:
            notes.append(f"{_shown(tag)}: the prompt {error}")
            return ""
        if is_negative:
            notes.append(f"{_shown(tag)}: it stood in the negative prompt, where no tag acts")
            return ""
        name, has_hash = split_title(use.name)
        digits = hashes.get(use.key.casefold()) or hashes.get(f"{use.kind}:{name}".casefold())
        return renamed(text, f"{name} [{digits}]") if digits and not has_hash else text

    return replaced(prompt, changed), notes


def _shown(tag: Network) -> str:
    return f"{tag.kind} {tag.name}"[:_LONGEST]
