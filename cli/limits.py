"""`farm limits`: over HTTP where FARM_URL names a farm, else beside the database, as `farm keys`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.markup import escape

from cli import terminal
from cli.connect import connect
from cli.keys import beside_the_database
from cli.terminal import age, minute, table
from client.client import Json
from shared.accounts import limit_rows, limits
from shared.accounts.limit_rows import LimitRow
from shared.accounts.principal import Principal, Role
from shared.settings import Settings

_HERE: Final = Principal("farm limits", Role.ADMIN)  # as of `cli.keys`
_OWN: Final = ("limit", "at most", "used", "left", "renewed (UTC)")
_OWNERS: Final = ("owner", "limits", "set", "by")
_LEFT_AGAIN: Final = {"queued": "as images start", "running": "as images end", "upload_mb": "as uploads are deleted"}


def show(settings: Settings, *, everybodys: bool, as_json: bool) -> None:
    """Print one's own limits with what is left, or what is set for owners."""
    if settings.url and not everybodys:
        with connect(settings) as client:
            own = client.limits()
        if as_json:
            return terminal.answer_json(own)
        table(_OWN, map(_own_row, own["limits"]), "Nothing that is counted is limited.")
        for what in ("checkpoints", "pools"):
            if own[what] is not None:
                terminal.answer(f"{what.capitalize()} of your jobs: {', '.join(own[what])}")
        return terminal.answer(f"Your jobs may {'' if own['urgent'] else 'not '}be urgent.")
    if settings.url:
        with connect(settings) as client:
            found = client.owners_limits()
    else:
        found = [_json(row) for row in beside_the_database(settings, limit_rows.every) if row.set_at]
    if as_json:
        return terminal.answer_json({"owners": found})
    rows = [_owner_row(row) for row in found if row["limits"]]
    return table(_OWNERS, rows, "Every owner has the limits of the role.", folded=("owner", "limits", "by"))


def change(settings: Settings, owner: str, words: Sequence[str], *, as_json: bool) -> None:
    """Set limits of an owner, written as `queued=100`. Raises Refused."""
    asked = limits.of_words(words)
    if settings.url:
        with connect(settings) as client:
            row = client.set_limits(owner, asked)
    else:
        name, wanted = limits.owner(owner), limits.parse(asked)
        row = _json(beside_the_database(settings, lambda session: limit_rows.change(session, name, wanted, _HERE)))
    _say(row, as_json=as_json)


def clear(settings: Settings, owner: str, *, as_json: bool) -> None:
    """Give an owner the limits of the role alone. Raises Refused."""
    if settings.url:
        with connect(settings) as client:
            row = client.clear_limits(owner)
    else:
        name = limits.owner(owner)
        row = _json(beside_the_database(settings, lambda session: limit_rows.clear(session, name, _HERE)))
    _say(row, as_json=as_json)


def _say(row: Json, *, as_json: bool) -> None:
    if as_json:
        terminal.answer_json(row)
    else:
        terminal.answer(f"{row['owner']}: {limits.words(row['limits']) or 'the limits of the role'}")


def _json(row: LimitRow) -> Json:
    set_at = row.set_at.isoformat() if row.set_at else None
    return {"owner": row.owner, "limits": dict(row.given), "set_at": set_at, "set_by": row.set_by}


def _own_row(limit: Json) -> tuple[str, ...]:
    renews = minute(limit["renews_at"]) or _LEFT_AGAIN.get(limit["name"], "")
    return limit["label"], f"{limit['limit']:,}", f"{limit['used']:,}", f"{limit['left']:,}", renews


def _owner_row(row: Json) -> tuple[str, ...]:
    return escape(row["owner"]), escape(limits.words(row["limits"])), age(row["set_at"]), escape(row["set_by"] or "")
