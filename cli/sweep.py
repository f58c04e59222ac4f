"""`farm sweep`: a job whose pictures differ along axes, from the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from cli import terminal
from client.client import Client, Json
from shared.errors import FarmError
from shared.quantities import counted, duration

_WORD: Final = re.compile(r"[^\w.+-]+")
_LONGEST: Final = 60  # characters of titles in a file's name
_FORM: Final = "FIELD=VALUES, such as cfg=7,15,20 or sampler='Euler a, LMS' (docs/sweeps.md)"
_RANDOM: Final = re.compile(r"random\s*(\d+)")


def read_sweep(
    vary: Sequence[str], seeds: str | None, draft: int | None, draft_steps: int | None = None
) -> dict[str, Any]:
    """Return the sweep that options of the command line ask for, as the API takes it. Raises FarmError."""
    if not vary:
        raise FarmError(f"A sweep varies something: --vary {_FORM}.")
    wanted: dict[str, Any] = {"axes": [*map(_axis, vary)]}
    if seeds is not None:
        wanted["seeds"] = seeds
    drafted = {name: value for name, value in (("every", draft), ("steps", draft_steps)) if value is not None}
    if drafted:
        wanted["draft"] = drafted
    return wanted


def _axis(text: str) -> dict[str, Any]:
    """Return the axis of `field=values`, `lora:name=weights`, or a field alone. Raises FarmError."""
    field, equals, values = text.partition("=")
    name, _, of = field.strip().partition(":")
    if not name:
        raise FarmError(f"--vary {text}: must be {_FORM}.")
    axis: dict[str, Any] = {"field": name.strip()}
    if of.strip():
        axis["of"] = of.strip()
    if name.strip() == "dynamic_prompts" and (drawn := _RANDOM.fullmatch(values.strip())):
        return axis | {"of": "random", "count": int(drawn[1])}
    if values.startswith("@"):
        return axis | {"values": _file(Path(values[1:]))}
    return axis | ({"values": values} if equals else {})


def _file(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FarmError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not text'}).") from None


def show(client: Client, params: Mapping[str, Any], *, as_json: bool) -> int:
    """Print what a sweep would be; return the exit status."""
    found = client.preview_sweep(params)
    if as_json:
        terminal.answer_json(found)
        return 1 if found["problems"] else 0
    for line in _lines(found):
        terminal.answer(line)
    for problem in found["problems"]:
        terminal.warn(f"{problem['field']}: {problem['message']}. Accepted: {problem['accepted']}.")
    return 1 if found["problems"] else 0


def _lines(found: Json) -> Iterator[str]:
    if found["images"]:
        draft = f", {found['draft']} of them as a draft" if found["draft"] else ""
        seconds = f", about {duration(found['seconds'])}" if found["seconds"] is not None else ""
        yield f"{counted(found['images'], 'picture')}{draft}{seconds}"
    for axis in found["axes"]:
        yield escape(f"{axis['label']} ({len(axis['values'])}): {', '.join(axis['values'])}")
    yield from map(escape, found["notes"])


def stem(job: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """Return the name of a picture's file: its job, its number, and the titles of its values; else nothing."""
    titles = image.get("titles")
    if not titles:
        return ""
    number = str(image["index"]).zfill(len(str(max(len(job["images"]) - 1, 100))))
    words = "-".join(filter(None, (_WORD.sub("_", title).strip("_.") for title in titles)))
    return f"{job['id']:05d}-{number}-{words[:_LONGEST]}".rstrip("-")
