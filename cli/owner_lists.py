"""Lists of owners in CSV files: learners of a class, each with a key, limits and, at the end, nothing any more."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy.orm import Session

from cli import terminal
from cli.connect import connect
from cli.keys import HERE, beside_the_database
from client.client import Json
from shared.accounts import keys, limit_rows, limits
from shared.errors import FieldError, Refused
from shared.settings import Settings

_MOST: Final = 1000
_MOST_BYTES: Final = 2**20
_KNOWN: Final = ("owner", "name", "role", "days")


def read(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a column `owner`, and perhaps name, role and days; or of a list of owners.

    Raises Refused that names the line.
    """
    try:
        data = file.read_bytes()[: _MOST_BYTES + 1]
        lines = [line for line in csv.reader(data.decode("utf-8-sig").splitlines()) if any(map(str.strip, line))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refused("file", str(error), "a CSV file in UTF-8") from error
    if len(data) > _MOST_BYTES or not lines or len(lines) > _MOST + 1:
        raise _refused("file", "is empty or too long", f"1 to {_MOST:,} owners, one a line")
    names = [cell.strip().casefold() for cell in lines[0]]
    has_headings = "owner" in names
    return [*_rows(lines[1:] if has_headings else lines, names if has_headings else ["owner"], first=1 + has_headings)]


def _rows(lines: Sequence[Sequence[str]], names: Sequence[str], first: int) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    for number, line in enumerate(lines, first):
        row = {name: cell.strip() for name, cell in zip(names, line, strict=False) if name in _KNOWN and cell.strip()}
        owner = row.get("owner", "")
        if not owner or owner in seen:
            raise _refused(f"line {number}", "names no owner, or one again", "an owner of its own in each line")
        seen.add(owner)
        yield row


def create(settings: Settings, file: Path, usual: Mapping[str, object], words: Sequence[str], *, as_json: bool) -> None:
    """Make a key for each owner of a file, and set limits for each; print them as CSV. Raises Refused.

    Beside the database all are made or none.
    """
    asked = [_asked({**usual, **row}) for row in read(file)]
    wanted = [keys.parse(one, one["owner"]) for one in asked]  # so that nothing is made if one is wrong
    given = limits.of_words(words)
    parsed = limits.parse(given)
    if settings.url:
        with connect(settings) as client:
            made = []
            for one in asked:
                made.append(client.create_key(**one))
                if given:
                    client.set_limits(one["owner"], given)
    else:

        def make_all(session: Session) -> list[Json]:
            found = []
            for one in wanted:
                view, key = keys.create(session, one, HERE, others=bool(settings.api_keys) or settings.signs_in)
                if parsed:
                    limit_rows.change(session, one.owner, parsed, HERE)
                found.append({"owner": view.owner, "id": view.id, "role": view.role, "key": key})
            return found

        made = beside_the_database(settings, make_all)
    if as_json:
        return terminal.answer_json({"keys": made})
    terminal.answer(_csv(made))
    return terminal.progress(f"{len(made)} keys. Nobody can show them again.")


def _csv(made: Sequence[Mapping[str, Any]]) -> str:
    """Return owners and keys for a spreadsheet, which takes none of it for a formula."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(("owner", "key"))
    for one in made:
        owner = str(one["owner"])
        lines.writerow((f"'{owner}" if owner[:1] in {*"=+-@"} else owner, one["key"]))
    return written.getvalue().rstrip("\n")


def _asked(row: Mapping[str, object]) -> dict[str, Any]:
    """Return what a key's row asks for; its days are a number."""
    asked = {name: value for name, value in row.items() if value is not None}
    days = asked.get("days")
    if isinstance(days, str) and days.isdecimal() and len(days) < 9:  # others are refused by their name
        asked["days"] = int(days)
    return asked


def _refused(field: str, message: str, accepted: str) -> Refused:
    return Refused(f"This list cannot be used: {field} {message}.", (FieldError(field, message, accepted),))
