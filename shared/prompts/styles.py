"""Styles: named texts that join people's prompts, kept in a CSV file as other front ends keep theirs.

Columns `name`, `prompt`, `negative_prompt`; old files have `name`, `text`. A row whose name begins with # is a remark.
Until the file exists, the styles that ship with the farm are used.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from shared.errors import Conflict, NotFound, Unavailable
from shared.suggest import nearest

PLACE: Final = "{prompt}"  # the place of the prompt in a style's text; without it the text follows
_SHIPPED: Final = Path(__file__).with_suffix(".csv")
_COLUMNS: Final = ("name", "prompt", "negative_prompt")
_REMARK: Final = "#"


class Style(NamedTuple):
    """One style."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""


def load(path: Path) -> Mapping[str, Style]:
    """Return the styles of a file by their names, in its order. Raises Unavailable if it cannot be read."""
    return {style.name: style for style in _rows(path) if style.name and not style.name.startswith(_REMARK)}


def add(path: Path, style: Style, *, replace: bool = False) -> None:
    """Add a style to a file, or with `replace` replace the style of its name.

    Raises Conflict if the name is taken, Unavailable.
    """
    rows = _rows(path)
    places = [place for place, row in enumerate(rows) if row.name == style.name]
    if places and not replace:
        raise Conflict(f"There is a style {style.name!r} already: take another name, or replace it.")
    others = [row for row in rows if row.name != style.name]
    others.insert(places[0] if places else len(others), style)
    _save(path, others)


def remove(path: Path, name: str) -> None:
    """Remove a style from a file. Raises NotFound, Unavailable."""
    find(load(path), name)
    _save(path, [row for row in _rows(path) if row.name != name])


def find(styles: Mapping[str, Style], name: str) -> Style:
    """Return the style of a name. Raises NotFound with the nearest names."""
    if name in styles:
        return styles[name]
    meant = nearest(name, styles)
    raise NotFound(f"There is no style {name!r}." + (f" Did you mean {' or '.join(meant)}?" if meant else ""))


def merge(prompt: str, texts: Iterable[str]) -> str:
    """Return a prompt with the texts of styles, in their order: in place of their {prompt}, or before them."""
    for text in texts:
        if PLACE in text:
            prompt = text.replace(PLACE, _closed(prompt))
        elif text.strip():
            prompt = ", ".join(part for part in (_closed(prompt.strip()), text.strip()) if part)
        else:
            prompt = prompt.strip()
    return prompt


def _closed(prompt: str) -> str:
    """Return a prompt, with its last line ended if it is a remark, which would otherwise contain the next text."""
    return f"{prompt}\n" if _REMARK in prompt.rpartition("\n")[2] else prompt


def _rows(path: Path) -> list[Style]:
    """Return every row of a file, with its remarks."""
    try:
        text = (path if path.exists() else _SHIPPED).read_bytes().decode("utf-8-sig")
        rows = [
            Style(row["name"] or "", row.get("prompt") or row.get("text") or "", row.get("negative_prompt") or "")
            for row in csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        ]
    except KeyError:
        raise Unavailable(f"The styles in {path} cannot be read: the first line names no column `name`.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Unavailable(f"The styles in {path} cannot be read: {error}.") from error
    return rows


def _save(path: Path, rows: Iterable[Style]) -> None:
    """Write the whole file or nothing; the old file stays beside it as .bak."""
    written = io.StringIO(newline="")
    table = csv.writer(written, quoting=csv.QUOTE_ALL)  # blanks at the beginning of a text are read only within quotes
    table.writerow(_COLUMNS)
    table.writerows(rows)
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(written.getvalue(), "utf-8", newline="")
        if path.exists():
            path.with_name(f"{path.name}.bak").write_bytes(path.read_bytes())
        fresh.replace(path)
    except OSError as error:
        raise Unavailable(f"The styles in {path} cannot be written: {error}.") from error
