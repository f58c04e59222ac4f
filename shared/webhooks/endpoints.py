"""Endpoints: where an owner wants messages when jobs end, and the secrets that the messages are signed with."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.owner_locks import OwnerLock, lock_owner
from shared.db.tables import WebhookEndpoint
from shared.errors import FieldError, NotFound, Refused
from shared.webhooks import addresses
from shared.webhooks.addresses import Networks
from shared.webhooks.messages import FORMATS, KINDS, Format
from shared.wording import choices

MOST: Final = 20  # of an owner
LONGEST_NAME: Final = 60  # characters
OLD_SECRET_HOURS: Final = 24  # that the secret before goes on signing
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class Endpoint:
    """Where messages go; without a URL it stands for the addresses that jobs name themselves."""

    id: int
    owner: str
    url: str | None
    name: str
    format: Format
    kinds: tuple[str, ...]  # of messages that it gets
    paused: bool
    created_at: datetime
    old_until: datetime | None  # until when the secret before signs too


@dataclass(frozen=True)
class WithSecret:
    """An endpoint with its secret, which is shown this once."""

    endpoint: Endpoint
    secret: str


def every(session: Session, owner: str) -> list[Endpoint]:
    """Return an owner's endpoints, the oldest first."""
    rows = session.scalars(select(WebhookEndpoint).where(WebhookEndpoint.owner == owner).order_by(WebhookEndpoint.id))
    return [_endpoint(row) for row in rows]


def find(session: Session, owner: str, endpoint_id: int, *, is_locked: bool = False) -> Endpoint:
    """Return one of an owner's endpoints, locked against a pause and a deletion if asked. Raises NotFound."""
    return _endpoint(_row(session, owner, endpoint_id, is_locked=is_locked))


def make(session: Session, owner: str, given: Mapping[str, Any], allowed: Networks) -> WithSecret:
    """Make an endpoint with a secret of its own. Raises Refused that names every wrong field.

    `given` may have url, name, format and kinds. Without a URL it is the one of addresses that jobs name.
    """
    problems = _problems(given, allowed)
    lock_owner(session, OwnerLock.WEBHOOKS, owner)  # two at a time could be one too many
    others = every(session, owner)
    if given.get("url") is None and any(other.url is None for other in others):
        accepted = "a URL, or rotate the secret of the one that there is"
        problems.append(FieldError("url", "is missing, and there is a webhook for the URLs of jobs already", accepted))
    if len(others) >= MOST:
        problems.append(FieldError("url", f"would be one webhook more than {MOST}", "delete one first"))
    if problems:
        raise _refused(problems)
    values = {"kinds": list(KINDS)} | dict(given)
    row = WebhookEndpoint(owner=owner, secret=new_secret(), **values)
    session.add(row)
    session.flush()
    session.refresh(row)
    return WithSecret(_endpoint(row), row.secret)


def of_jobs(session: Session, owner: str) -> None:
    """Make the endpoint of the addresses that an owner's jobs name, unless there is one."""
    made = insert(WebhookEndpoint).values(owner=owner, secret=new_secret(), kinds=list(KINDS))
    session.execute(made.on_conflict_do_nothing(index_elements=["owner"], index_where=text("url IS NULL")))


def change(session: Session, owner: str, endpoint_id: int, given: Mapping[str, Any], allowed: Networks) -> Endpoint:
    """Change url, name, format, kinds or paused of an endpoint. Raises NotFound, Refused.

    Messages that wait for an endpoint when it is paused are given up, and can be sent again later.
    """
    row = _row(session, owner, endpoint_id)
    problems = _problems(given, allowed)
    if row.url is None and given.get("url") is not None:
        problems.append(FieldError("url", "cannot be changed: jobs name the addresses", "a new webhook"))
    if problems:
        raise _refused(problems)
    for name, value in given.items():
        setattr(row, name, value)
    session.flush()
    if row.paused:
        session.execute(_GIVE_UP, {"endpoint_id": row.id, "reason": "the webhook is paused"})
    return _endpoint(row)


def rotate(session: Session, owner: str, endpoint_id: int) -> WithSecret:
    """Give an endpoint a new secret; the one before signs too for a day. Raises NotFound."""
    row = _row(session, owner, endpoint_id)
    row.old_secret, row.secret = row.secret, new_secret()
    row.old_until = session.scalars(select(func.clock_timestamp() + text(f"interval '{OLD_SECRET_HOURS} hours'"))).one()
    session.flush()
    return WithSecret(_endpoint(row), row.secret)


def drop(session: Session, owner: str, endpoint_id: int) -> None:
    """Delete an endpoint and all its deliveries. Raises NotFound."""
    session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.id == _row(session, owner, endpoint_id).id))


def new_secret() -> str:
    """Return a random secret in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


_GIVE_UP: Final = text("""
    UPDATE webhook_deliveries
    SET dead_at = clock_timestamp(),
        reason = :reason
    WHERE endpoint_id = :endpoint_id
      AND delivered_at IS NULL
      AND dead_at IS NULL
""")


def _row(session: Session, owner: str, endpoint_id: int, *, is_locked: bool = True) -> WebhookEndpoint:
    """Return an endpoint's row. Raises NotFound."""
    row = session.get(WebhookEndpoint, endpoint_id, with_for_update=True if is_locked else None)
    if row is None or row.owner != owner:
        raise NotFound(f"There is no webhook {endpoint_id}.")
    return row


def _problems(given: Mapping[str, Any], allowed: Networks) -> list[FieldError]:
    found = []
    url, name, kinds = given.get("url"), given.get("name", ""), given.get("kinds")
    if url is not None and (wrong := addresses.wrong_with(url, allowed)):
        found.append(FieldError("url", wrong, addresses.ACCEPTED))
    if len(name) > LONGEST_NAME or not name.isprintable():
        found.append(FieldError("name", "cannot be a name", f"at most {LONGEST_NAME} characters that can be seen"))
    if given.get("format", FORMATS[0]) not in FORMATS:
        found.append(FieldError("format", "is none of the forms", choices(FORMATS)))
    if kinds is not None and (not kinds or not set(kinds) <= set(KINDS)):
        found.append(FieldError("kinds", "names no kind of message, or one that does not exist", choices(KINDS)))
    return found


def _refused(problems: Collection[FieldError]) -> Refused:
    fields = ", ".join(problem.field for problem in problems)
    return Refused(f"The webhook cannot be accepted as it is: {fields}.", tuple(problems))


def _endpoint(row: WebhookEndpoint) -> Endpoint:
    return Endpoint(
        id=row.id,
        owner=row.owner,
        url=row.url,
        name=row.name,
        format=cast("Format", row.format),
        kinds=tuple(row.kinds),
        paused=row.paused,
        created_at=row.created_at,
        old_until=row.old_until,
    )
