"""The revisions of the tables that this version of the code knows, without Alembic, which takes a while to import."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

SCRIPTS: Final = Path(__file__).parents[2] / "migrations"
_REVISION: Final = re.compile(r"\d{4}")  # the form of the farm's own revisions


@cache
def known() -> frozenset[str]:
    """Return every revision that this version of the code has a migration for."""
    return frozenset(path.name[:4] for path in (SCRIPTS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def head() -> str:
    """Return the revision that this version of the code needs: the last one of a chain without branches."""
    return max(known())


def is_newer(revision: str | None) -> bool:
    """Return whether a newer version made this revision: this version runs on it as before."""
    return revision is not None and bool(_REVISION.fullmatch(revision)) and revision > head()


def mismatch(revision: str | None) -> str | None:
    """Return why this version does not run on tables at `revision`; None if it does, as on newer ones."""
    if revision == head() or is_newer(revision):
        return None
    return f"The tables stand at {revision or 'nothing'}; this version needs {head()}."
