"""Keys: who has one is its owner, in the role that it gives. SQL holds their digests alone; a key is shown once.

A key that was made here is random, so its SHA-256 is enough: nobody can try them all.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select, text, update
from sqlalchemy.orm import Session

from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.principal import Principal, Role
from shared.accounts.scope import Scope
from shared.db.tables import ApiKey
from shared.errors import FieldError, Forbidden, NotFound, Refused, Unauthorized
from shared.quantities import counted
from shared.wording import choices

PREFIX: Final = "sf_"
"""How keys that were made here begin, so that people and scanners for lost secrets know them."""
LONGEST: Final = 60  # characters of a name, and of an owner
MOST_OF_AN_OWNER: Final = 200  # that open the farm
MOST_LISTED: Final = 1000
MOST_DAYS: Final = 3650
_NOTED: Final = timedelta(minutes=5)  # a use is written down so often at most
_IN_A_LIST: Final = frozenset(",:*")  # they part owners in settings, or mean all of them
_LOCK: Final = 0x57E9FA29

_OPENS: Final[ColumnElement[bool]] = and_(
    ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.clock_timestamp())
)


@dataclass(frozen=True)
class NewKey:
    """A key that somebody asks for."""

    owner: str
    role: Role
    name: str
    days: int | None = None  # that it opens the farm; None: until it is revoked


@dataclass(frozen=True)
class KeyView:
    """A key as people may see it again."""

    id: int
    owner: str
    role: str  # a newer version may know others
    name: str
    created_at: datetime
    created_by: str
    used_at: datetime | None  # some minutes early
    expires_at: datetime | None
    revoked_at: datetime | None
    opens: bool


class Made(NamedTuple):
    """A key that was just made, and the words that nobody can show again."""

    view: KeyView
    key: str


class Standing(NamedTuple):
    """A key that opens the farm."""

    digest: str
    who: Principal
    is_noted: bool  # that it was used a while ago or since


def digest(key: str) -> str:
    """Return what stands for a key in SQL and in memory."""
    return sha256(key.encode(errors="surrogateescape")).hexdigest()


def parse(given: object, owner: str) -> NewKey:
    """Return the key that a JSON object asks for; without an owner it is to be `owner`'s.

    Raises Refused that names every wrong field.
    """
    fields: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    wrong = FieldError("body", "is not an object", 'such as {"name": "laptop"}')
    problems = [] if isinstance(given, Mapping) else [wrong]
    known = ("name", "owner", "role", "days")
    problems += [
        FieldError(str(name)[:LONGEST], "is not known", choices(known)) for name in fields if name not in known
    ]
    name, whose, role, days = (fields.get(field) for field in known)
    whose, role = owner if whose is None else whose, Role.USER.value if role is None else role
    if not _is_text(name):
        problems.append(FieldError("name", "is missing, too long or no text", _TEXT))
    if not is_owner(whose):
        problems.append(FieldError("owner", "cannot be an owner", OWNERS))
    if role not in [*Role]:
        problems.append(FieldError("role", "is not a role", choices([*Role])))
    if days is not None and (isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS):
        problems.append(FieldError("days", "is not a number of days", f"1 to {MOST_DAYS:,}, or nothing: for good"))
    if problems:
        raise _refused(problems)
    return NewKey(str(whose).strip(), Role(role), str(name).strip(), days)


def create(session: Session, wanted: NewKey, by: Principal, *, others: bool) -> Made:
    """Make a key. Raises Refused: for a key that may more than who asks, lasts longer than theirs, or is one too many.

    Raises Unauthorized if theirs has ended meanwhile.

    The first one must be an admin's: with it the farm begins to ask for keys. `others`: FARM_API_KEYS has some.
    """
    lock(session)  # of two at once one is the first
    if problems := [*_beyond(session, wanted, by), *_too_many(session, wanted.owner)]:
        raise _refused(problems)
    if wanted.role != Role.ADMIN and not others and not is_any(session):
        message = "is not an admin's: from the first key on the farm asks for one, and only an admin can make others"
        raise _refused([FieldError("role", message, Role.ADMIN.value)])
    key = PREFIX + secrets.token_urlsafe(32)
    row = ApiKey(owner=wanted.owner, role=wanted.role.value, name=wanted.name, digest=digest(key), created_by=by.owner)
    if wanted.days is not None:
        row.expires_at = func.clock_timestamp() + timedelta(days=wanted.days)
    session.add(row)
    session.flush()
    lasts = "" if wanted.days is None else f", {counted(wanted.days, 'day')}"
    detail = f"{wanted.name}, {wanted.role.value}{lasts}"
    audit.note(session, by, Action.KEY_MADE, f"key {row.id}", whose=wanted.owner, detail=detail)
    return Made(_found(session, Scope(wanted.owner), row.id), key)


def lock(session: Session) -> None:
    """Let nobody else make a key until this transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def listed(session: Session, whose: Scope) -> list[KeyView]:
    """Return the keys of a scope: those that open the farm first, by their owners, the latest first."""
    order = ((~_OPENS), ApiKey.owner, ApiKey.id.desc())
    query = select(ApiKey, _OPENS).where(whose.covers(ApiKey.owner)).order_by(*order).limit(MOST_LISTED)
    rows = session.execute(query)
    return [_view(row, opens=opens) for row, opens in rows]


def revoke(session: Session, by: Principal, key_id: int) -> KeyView:
    """Have a key open nothing any more; one that was revoked before stays so. Raises NotFound, Forbidden."""
    found = _found(session, by.scope, key_id)
    if not any(by.role.includes(role) for role in Role if role == found.role) and by.role != Role.ADMIN:
        raise Forbidden(f"Key {key_id} may do more than yours: revoke it with itself, or ask an admin.")
    standing = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    if session.scalar(standing.values(revoked_at=func.clock_timestamp()).returning(ApiKey.id)) is not None:
        audit.note(session, by, Action.KEY_REVOKED, f"key {key_id}", whose=found.owner, detail=found.name)
    return _found(session, by.scope, key_id)


def standing(session: Session) -> list[Standing]:
    """Return all keys that open the farm; a role that only a newer version knows opens nothing here."""
    noted = func.coalesce(ApiKey.used_at > func.clock_timestamp() - _NOTED, False)
    rows = session.execute(select(ApiKey.id, ApiKey.owner, ApiKey.role, ApiKey.digest, noted).where(_OPENS))
    return [
        Standing(digest, Principal(owner, Role(role), key_id), is_noted)
        for key_id, owner, role, digest, is_noted in rows
        if role in {*Role}
    ]


def opens(session: Session, digest: str) -> bool:
    """True if the key with this digest opens the farm."""
    return session.scalar(select(ApiKey.id).where(ApiKey.digest == digest, _OPENS)) is not None


def is_any(session: Session) -> bool:
    """True if a key was ever made: from then on the farm asks for one, also when all are revoked."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def note_use(session: Session, key_id: int) -> None:
    """Write down that a key was used now."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(used_at=func.clock_timestamp()))


def _beyond(session: Session, wanted: NewKey, by: Principal) -> Sequence[FieldError]:
    """Return what of a key is more than who asks may give."""
    problems = []
    if not by.role.includes(wanted.role):
        roles = [role for role in Role if by.role.includes(role)]
        problems.append(FieldError("role", "may do more than your own key", choices(roles)))
    if wanted.owner != by.owner and by.role != Role.ADMIN:
        problems.append(FieldError("owner", "is somebody else; only an admin makes keys for others", by.owner))
    mine = select(ApiKey.expires_at, _OPENS).where(ApiKey.id == by.key_id).with_for_update(read=True)
    end, opens = session.execute(mine).one() if by.key_id else (None, True)
    if not opens:  # the process that let it in has not heard of it yet
        raise Unauthorized("The key that you use opens nothing any more.")
    left = None if end is None else end - session.execute(select(func.clock_timestamp())).scalar_one()
    if left is not None and (wanted.days is None or timedelta(days=wanted.days) > left) and by.role != Role.ADMIN:
        accepted = f"at most {left.days}" if left.days else "a key that ends later makes others"
        problems.append(FieldError("days", "would outlive the key that you use", accepted))
    return problems


def _too_many(session: Session, owner: str) -> Sequence[FieldError]:
    count = session.scalar(select(func.count()).where(ApiKey.owner == owner, _OPENS)) or 0
    accepted = "the name of somebody else, or revoke some"
    return [FieldError("owner", f"has {count} keys", accepted)] if count >= MOST_OF_AN_OWNER else []


def _found(session: Session, whose: Scope, key_id: int) -> KeyView:
    row = session.execute(
        select(ApiKey, _OPENS).where(ApiKey.id == key_id, whose.covers(ApiKey.owner)),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no key {key_id}.")
    return _view(row[0], opens=row[1])


def _view(row: ApiKey, *, opens: bool) -> KeyView:
    return KeyView(
        id=row.id,
        owner=row.owner,
        role=row.role,
        name=row.name,
        created_at=row.created_at,
        created_by=row.created_by,
        used_at=row.used_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        opens=opens,
    )


_TEXT: Final = f"1 to {LONGEST} characters that can be seen"
OWNERS: Final = f"{_TEXT}, without commas, colons and stars"
"""The names that owners may have, in words."""


def is_owner(given: object) -> bool:
    """True if an owner may be called so."""
    return _is_text(given) and not _IN_A_LIST & {*str(given)}


def _is_text(given: object) -> bool:
    return isinstance(given, str) and 0 < len(given.strip()) <= LONGEST and given.strip().isprintable()


def _refused(problems: Sequence[FieldError]) -> Refused:
    return Refused(f"The key cannot be made: {', '.join(one.field for one in problems)}.", tuple(problems))
