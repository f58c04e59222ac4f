"""Comma-separated values for people, who open them in a spreadsheet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any, Final

from flask import Response

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")
_BOM: Final = "\ufeff"  # without it Excel does not read UTF-8


def written(rows: Iterable[Sequence[object]]) -> str:
    """Return rows of values of JSON as lines; what a spreadsheet would run as a formula is written as text."""
    out = StringIO()
    lines = csv.writer(out)
    lines.writerows(map(_text, row) for row in rows)
    return out.getvalue()


def download(text: str, name: str) -> Response:
    """Return `text` as a file of this name. Caches must not keep it: it belongs to one owner, and changes."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(_BOM + text, mimetype="text/csv", headers=headers)


def _text(value: Any) -> str:  # noqa: ANN401 - a value of JSON
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    is_number = not isinstance(value, str) or _NUMBER.fullmatch(text)
    return f"'{text}" if text.startswith(_FORMULA) and not is_number else text
