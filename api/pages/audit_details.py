"""What a line of the audit log tells beside who did what, in the reader's language.

The log keeps English, as commands and programs read it. What people wrote, names and reasons, stays as they did.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Final

from api.languages import lazy, ngettext
from api.schemas.audit import AuditLineBody
from api.sentences import said
from shared.accounts.audit import CUT, Action
from shared.accounts.limits import AS_ROLE, LIMITS, NONE
from shared.accounts.principal import Role

_OBJECTS: Final = {"everything": lazy("everything"), "limits": lazy("limits"), "session": lazy("session")}
_VALUES: Final = {NONE: lazy("no limit"), AS_ROLE: lazy("as the role has it"), "yes": lazy("yes"), "no": lazy("no")}
_MARKS: Final = {
    "tag": lazy("tag added"),
    "untag": lazy("tag removed"),
    "favourite": lazy("Favourite"),
    "unfavourite": lazy("No favourite"),
}
_KEY: Final = re.compile(rf"(.*), ({'|'.join(Role)})(?:, (\d+ days?))?", re.DOTALL)
_WIPED: Final = re.compile(r"(\d+) keys?, (\d+) jobs?")


def thing(line: AuditLineBody) -> str:
    """Return what the deed was done with."""
    return str(_OBJECTS.get(line.object) or said(line.object))


def details(line: AuditLineBody) -> list[str]:
    """Return the parts of the line's detail."""
    return _READERS.get(line.action, _parts)(line.detail) if line.detail else []


def _as_written(detail: str) -> list[str]:
    return [detail]


def _parts(detail: str) -> list[str]:
    whole = said(detail)
    return [whole] if whole != detail else [said(part) for part in detail.split(", ")]


def _key(detail: str) -> list[str]:
    made = _KEY.fullmatch(detail)
    return [made[1], *map(said, filter(None, made.groups()[1:]))] if made else [detail]


def _limits(detail: str) -> list[str]:
    """Return each limit with its value; a detail that was too long is cut, and stays as it is."""
    if detail.endswith(CUT):
        return [detail]
    try:
        pairs = [word.partition("=") for word in shlex.split(detail)]
    except ValueError:
        return [detail]
    if not all(name in LIMITS and value for name, _, value in pairs):
        return [detail]
    return [f"{said(LIMITS[name].label)}: {_VALUES.get(value, value)}" for name, _, value in pairs]


def _mark(detail: str) -> list[str]:
    mark, _, tag = detail.partition(" ")
    return [": ".join(filter(None, (str(_MARKS.get(mark, mark)), tag)))]


def _wiped(detail: str) -> list[str]:
    found = _WIPED.fullmatch(detail)
    if not found:
        return [detail]
    keys, jobs = map(int, found.groups())
    return [ngettext("%(num)s key", "%(num)s keys", keys), ngettext("%(num)s job", "%(num)s jobs", jobs)]


_READERS: Final[Mapping[str, Callable[[str], list[str]]]] = {
    Action.KEY_MADE: _key,
    Action.KEY_REVOKED: _as_written,
    Action.LIMITS_SET: _limits,
    Action.OWNER_WIPED: _wiped,
    Action.WORKER_DRAINED: _as_written,
    Action.WEBHOOK_MADE: _as_written,
    Action.PICTURES_MARKED: _mark,
}
