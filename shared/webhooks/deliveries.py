"""Deliveries: each message to each endpoint is a row, made once for an event and sent until it has arrived or a day
has passed.

A row that is taken is due again a while later, so one whose sender was killed is sent by the next: a message arrives
at least once, and a receiver knows it again by its id. One message at a time goes to a receiver. One that does not
answer holds up all that waits for it, so that it costs one try and not a thousand; when it answers again, all is due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, cast
from uuid import UUID, uuid5

import structlog
from sqlalchemy import case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import Sessions, transact
from shared.db.states import ImageState
from shared.db.tables import Job, WebhookDelivery, WebhookEndpoint
from shared.errors import Conflict, NotFound
from shared.maintenance.outbox import EventKind, OutboxEvent
from shared.queue import queries
from shared.queue.queries import JobView, Span
from shared.webhooks import endpoints, messages
from shared.webhooks.endpoints import Endpoint
from shared.webhooks.messages import Format

log = structlog.get_logger(__name__)

State = Literal["waiting", "delivered", "dead"]
TRY_HOURS: Final = 24  # that a message is tried for, since it could not be sent
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
_MOST_OF_AN_OWNER: Final = 2  # sent at a time: silent receivers of one hold up nobody else
_MOST_OF_AWAY: Final = 3  # sent at a time, one of each owner, for those with a receiver that does not answer
_HOLD_SECONDS: Final = 60.0  # of one try: longer than any takes
_KEPT_DAYS: Final = 7  # after it was delivered
_KEPT_DEAD_DAYS: Final = 30
_BATCH: Final = 1000
_MESSAGES: Final = UUID("1a8f8f0e-6c1c-4b39-9a53-0d9a35f3a3c6")  # the namespace of their ids
_READ: Final = Span(limit=2 * messages.MOST_PICTURES, states=(ImageState.SUCCEEDED, ImageState.FAILED))


@dataclass(frozen=True)
class Outgoing:
    """A message that is to be sent now."""

    id: int
    owner: str
    message: str  # its id for the receiver
    target: str
    url: str
    format: Format
    payload: Mapping[str, Any]
    tries: int  # this one counted
    secrets: tuple[str, ...]  # that sign it, the newest first


@dataclass(frozen=True)
class DeliveryView:
    """A message and how it fared."""

    id: int
    endpoint_id: int
    message: str
    kind: str
    job_id: int | None
    url: str | None  # that the job named
    state: State
    tries: int
    reason: str | None  # why it could not be sent the last time
    created_at: datetime
    due_at: datetime | None  # of the next try
    delivered_at: datetime | None
    dead_at: datetime | None


def record(event: OutboxEvent, *, sessions: Sessions, base: str) -> None:
    """Make a delivery of an end of a job for each endpoint that asks for it. Safe to do again. Raises Unavailable."""
    if event.kind == EventKind.JOB_ENDED:
        transact(sessions, partial(_record, event=event, base=base))


def test(session: Session, owner: str, endpoint: Endpoint, base: str) -> DeliveryView:
    """Have a message sent to an endpoint that says no more than that it arrives. Raises Conflict where it has no URL
    of its own, is paused, or another test waits.

    The caller holds the endpoint locked.
    """
    if endpoint.url is None:
        raise Conflict("It has no URL of its own: its jobs name theirs.")
    if endpoint.paused:
        raise Conflict("It is paused.")
    waits = WebhookDelivery.delivered_at.is_(None) & WebhookDelivery.dead_at.is_(None)
    tests = select(WebhookDelivery.id).where(WebhookDelivery.target == str(endpoint.id), waits)
    if session.scalar(tests.where(WebhookDelivery.kind == messages.TEST).limit(1)) is not None:
        raise Conflict("It waits to be sent already.")
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    payload = messages.of_test(now, base)
    row = WebhookDelivery(
        endpoint_id=endpoint.id, event_id=None, target=str(endpoint.id), kind=messages.TEST, payload=payload
    )
    session.add(row)
    session.flush()
    return find(session, owner, row.id)


# Index: ix_webhook_deliveries_due.
_TAKE = text("""
    WITH taken AS (
        SELECT waiting.id
        FROM webhook_deliveries AS waiting
        JOIN webhook_endpoints ON webhook_endpoints.id = waiting.endpoint_id
        WHERE delivered_at IS NULL
          AND dead_at IS NULL
          AND due_at <= clock_timestamp()
          -- One at a time to each receiver.
          AND NOT target = ANY(CAST(:busy AS text[]))
          -- No owner has all the places.
          AND NOT owner = ANY(CAST(:served AS text[]))
        ORDER BY due_at, waiting.id
        LIMIT 1
        FOR UPDATE OF waiting SKIP LOCKED
    )
    UPDATE webhook_deliveries AS delivery
    SET tries = tries + 1,
        due_at = clock_timestamp() + make_interval(secs => :seconds)
    FROM taken, webhook_endpoints AS endpoint
    WHERE delivery.id = taken.id
      AND endpoint.id = delivery.endpoint_id
    RETURNING delivery.id, owner, message, target, coalesce(delivery.url, endpoint.url) AS url, format, payload, tries,
              secret, CASE WHEN old_until > clock_timestamp() THEN old_secret END AS old_secret
""")

# Index: ix_webhook_deliveries_due.
_AWAY = text("""
    SELECT DISTINCT owner
    FROM webhook_deliveries AS waiting
    JOIN webhook_endpoints ON webhook_endpoints.id = waiting.endpoint_id
    WHERE delivered_at IS NULL
      AND dead_at IS NULL
      AND is_postponed
""")

_DELIVERED = text("""
    UPDATE webhook_deliveries
    SET delivered_at = clock_timestamp(),
        -- It may have been given up, by a pause, while it was on its way.
        dead_at = NULL,
        is_postponed = false,
        reason = NULL
    WHERE id = :id
      AND delivered_at IS NULL
""")

# Messages that were held up by a receiver that did not answer are due now that it has.
# Index: ix_webhook_deliveries_target.
_HURRY = text("""
    UPDATE webhook_deliveries
    SET due_at = clock_timestamp(),
        is_postponed = false
    WHERE target = :target
      AND is_postponed
      AND delivered_at IS NULL
      AND dead_at IS NULL
""")

# The failed one, and with it all that waits for a receiver which does not answer.
_FAILED = text("""
    UPDATE webhook_deliveries
    SET due_at = CASE
            WHEN id = :id THEN clock_timestamp() + make_interval(secs => :seconds)
            ELSE greatest(due_at, clock_timestamp() + make_interval(secs => :seconds))
        END,
        is_postponed = :is_away,
        reason = CASE WHEN id = :id THEN :reason ELSE reason END,
        give_up_at = coalesce(give_up_at, clock_timestamp() + make_interval(hours => :hours)),
        dead_at = CASE WHEN :is_gone OR give_up_at <= clock_timestamp() THEN clock_timestamp() END
    WHERE target = :target
      AND (id = :id OR :is_away OR :is_gone)
      AND delivered_at IS NULL
      AND dead_at IS NULL
    RETURNING dead_at IS NOT NULL
""")

_REPLAY = text("""
    UPDATE webhook_deliveries AS delivery
    SET due_at = clock_timestamp(),
        dead_at = NULL,
        delivered_at = NULL,
        is_postponed = false,
        give_up_at = NULL,
        tries = 0
    FROM webhook_endpoints AS endpoint
    WHERE endpoint.id = delivery.endpoint_id
      AND endpoint.owner = :owner
      AND NOT endpoint.paused
      AND (delivery.id = :id OR endpoint.id = :endpoint_id AND dead_at IS NOT NULL)
      AND (delivered_at IS NOT NULL OR dead_at IS NOT NULL)
    RETURNING delivery.id
""")

# Indexes: ix_webhook_deliveries_delivered_at, ix_webhook_deliveries_dead_at.
_FORGET = text("""
    WITH old AS (
        SELECT id
        FROM webhook_deliveries
        WHERE delivered_at < clock_timestamp() - make_interval(days => :days)
           OR dead_at < clock_timestamp() - make_interval(days => :dead_days)
        LIMIT :batch
        FOR UPDATE SKIP LOCKED
    ),
    forgotten AS (
        DELETE FROM webhook_deliveries
        USING old
        WHERE webhook_deliveries.id = old.id
        RETURNING webhook_deliveries.id
    )
    SELECT count(*) FROM forgotten
""")


_STATE: Final = case(
    (WebhookDelivery.dead_at.is_not(None), "dead"),
    (WebhookDelivery.delivered_at.is_not(None), "delivered"),
    else_="waiting",
)


def owners_away(session: Session) -> frozenset[str]:
    """Return the owners with a receiver that does not answer."""
    return frozenset(session.scalars(_AWAY))


def take(session: Session, sending: Collection[Outgoing] = (), away: frozenset[str] = frozenset()) -> Outgoing | None:
    """Take the delivery that has been due for longest, beside those that are being sent; it is due again in a minute.

    None to a receiver that is being sent to, and none of an owner who has two on the way. Owners of `away` come after
    all others, have one on the way, and three between them.
    """
    counts = Counter(one.owner for one in sending)
    busy = [one.target for one in sending]
    served = frozenset(owner for owner, count in counts.items() if count >= _MOST_OF_AN_OWNER)
    found = _take(session, busy, served | away)
    if found is None and away and sum(counts[owner] for owner in away) < _MOST_OF_AWAY:
        found = _take(session, busy, served | (away & counts.keys()))
    return found


def _take(session: Session, busy: list[str], served: frozenset[str]) -> Outgoing | None:
    given = {"busy": busy, "served": list(served), "seconds": _HOLD_SECONDS}
    row = session.execute(_TAKE, given).mappings().one_or_none()
    if row is None:
        return None
    columns = {name: value for name, value in row.items() if name not in {"secret", "old_secret"}}
    return Outgoing(**columns, secrets=tuple(filter(None, (row["secret"], row["old_secret"]))))


def delivered(session: Session, outgoing: Outgoing) -> None:
    """Record that a message has arrived; what its receiver's silence held up is due at once."""
    session.execute(_DELIVERED, {"id": outgoing.id})
    session.execute(_HURRY, {"target": outgoing.target})


@dataclass(frozen=True)
class Failure:
    """Why a message could not be delivered this time."""

    reason: str
    is_away: bool  # the receiver did not answer: nothing else that waits for it would arrive now
    is_gone: bool = False  # the receiver asks for no more messages
    pause_seconds: float = 0.0  # that the receiver asks for


def failed(session: Session, outgoing: Outgoing, failure: Failure) -> int:
    """Put a message off, with what waits for a receiver that does not answer; return how many were given up."""
    seconds = min(max(pause_seconds(outgoing.tries), failure.pause_seconds), LONGEST_PAUSE_SECONDS)
    said = {"reason": failure.reason, "is_away": failure.is_away, "is_gone": failure.is_gone}
    which = {"id": outgoing.id, "target": outgoing.target, "seconds": seconds, "hours": TRY_HOURS}
    if failure.is_gone:
        _pause(session, outgoing.id)  # first: what is recorded until then is given up too
    dead: int = sum(session.scalars(_FAILED, said | which))
    return dead


def pause_seconds(tries: int) -> float:
    """Return how long to wait after so many tries: twice as long each time, up to an hour."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 30), LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True)
class Listing:
    """Which deliveries to list: those in any of `states` (none given: in all) from before `cursor`, latest first."""

    states: Collection[State] = ()
    cursor: int | None = None
    limit: int = 50


def listed(session: Session, endpoint_id: int, which: Listing = Listing()) -> list[DeliveryView]:
    """Return deliveries to an endpoint."""
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    if which.cursor is not None:
        query = query.where(WebhookDelivery.id < which.cursor)
    if which.states:
        query = query.where(_STATE.in_(which.states))
    return [_view(row) for row in session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(which.limit))]


def find(session: Session, owner: str, delivery_id: int) -> DeliveryView:
    """Return a delivery to one of an owner's endpoints. Raises NotFound."""
    row = session.get(WebhookDelivery, delivery_id)
    is_theirs = select(WebhookEndpoint.id).where(WebhookEndpoint.owner == owner)
    if row is None or session.scalar(is_theirs.where(WebhookEndpoint.id == row.endpoint_id)) is None:
        raise NotFound(f"There is no delivery {delivery_id}.")
    return _view(row)


def replay(session: Session, owner: str, delivery_id: int) -> DeliveryView:
    """Have a message sent once more, under its own id. Raises NotFound, and Conflict while it waits anyway."""
    found = find(session, owner, delivery_id)
    if endpoints.find(session, owner, found.endpoint_id, is_locked=True).paused:
        raise Conflict("Its webhook is paused.")
    if not session.scalars(_REPLAY, {"owner": owner, "id": delivery_id, "endpoint_id": None}).all():
        raise Conflict("It waits to be sent already.")
    session.expire_all()
    return find(session, owner, delivery_id)


def replay_dead(session: Session, owner: str, endpoint_id: int) -> int:
    """Have all that was given up for an endpoint sent again; return how many. Raises NotFound, Conflict."""
    if endpoints.find(session, owner, endpoint_id, is_locked=True).paused:
        raise Conflict("It is paused.")
    return len(session.scalars(_REPLAY, {"owner": owner, "id": None, "endpoint_id": endpoint_id}).all())


def forget(sessions: Sessions) -> int:
    """Delete what was delivered more than a week ago, or given up a month ago; return how many. Raises Unavailable."""
    forgotten = 0
    while some := transact(sessions, _forget):
        forgotten += some
    return forgotten


def _forget(session: Session) -> int:
    given = {"days": _KEPT_DAYS, "dead_days": _KEPT_DEAD_DAYS, "batch": _BATCH}
    return int(session.scalar(_FORGET, given) or 0)


def _record(session: Session, event: OutboxEvent, base: str) -> None:
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    if event.at < now - timedelta(days=_KEPT_DAYS):
        return  # its messages may have been sent and forgotten
    asks = session.execute(
        select(WebhookEndpoint.id, WebhookEndpoint.url, WebhookEndpoint.kinds)
        .where(WebhookEndpoint.owner == event.owner, WebhookEndpoint.paused.is_(False))
        .order_by(WebhookEndpoint.id)
        .with_for_update(read=True)  # a pause gives up what waits then
    ).all()
    if not asks:
        return
    row = session.get(Job, event.job_id)
    state = event.state or (row.state if row is not None and row.ended_at == event.at else None)
    if state is None:
        return  # the end was recorded before there were webhooks, and the job is gone or open again
    kind = messages.kind_of(state)
    named = row.webhook if row is not None else None
    wanted = [(ask.id, named if ask.url is None else None) for ask in asks if kind in ask.kinds and (ask.url or named)]
    if not wanted:
        return
    view = _view_of(session, event) if row is not None and row.ended_at == event.at else None
    payload = messages.of_end(kind, event.at, event.job_id, view, base)
    common = {"event_id": event.id, "kind": kind, "job_id": event.job_id, "payload": payload}
    rows = [
        {"endpoint_id": at, "url": url, "target": f"{at} {url}" if url else str(at), "message": _message(at, event)}
        | common
        for at, url in wanted
    ]
    session.execute(
        insert(WebhookDelivery).values(rows).on_conflict_do_nothing(index_elements=["endpoint_id", "event_id"])
    )


def _message(endpoint_id: int, event: OutboxEvent) -> str:
    """Return the id of an event's message to an endpoint: the same each time, and no other farm's."""
    return str(uuid5(_MESSAGES, f"{endpoint_id} {event.id} {event.at.timestamp()}"))


def _view_of(session: Session, event: OutboxEvent) -> JobView | None:
    try:
        return queries.job(session, EVERYBODYS, event.job_id, _READ)
    except NotFound:
        return None


def _pause(session: Session, delivery_id: int) -> None:
    """Pause the endpoint of a delivery if it has a URL of its own: a job's URL is used no more anyway."""
    of_it = select(WebhookDelivery.endpoint_id).where(WebhookDelivery.id == delivery_id).scalar_subquery()
    session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == of_it, WebhookEndpoint.url.is_not(None))
        .values(paused=True)
        .execution_options(synchronize_session=False)
    )


def _view(row: WebhookDelivery) -> DeliveryView:
    state = "dead" if row.dead_at else "delivered" if row.delivered_at else "waiting"
    return DeliveryView(
        id=row.id,
        endpoint_id=row.endpoint_id,
        message=row.message,
        kind=row.kind,
        job_id=row.job_id,
        url=row.url,
        state=cast("State", state),
        tries=row.tries,
        reason=row.reason,
        created_at=row.created_at,
        due_at=row.due_at if state == "waiting" else None,
        delivered_at=row.delivered_at,
        dead_at=row.dead_at,
    )
