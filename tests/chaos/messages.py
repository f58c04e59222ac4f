"""Whether each end of a job has reached the webhooks that asked for it: signed, at least once, and in time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import Webhook

from shared.db.tables import Job, Outbox, WebhookDelivery, WebhookEndpoint
from tests.chaos.calm import CALM_SECONDS, Troubles
from tests.chaos.ground import QUICK
from tests.support.receivers import Receiver

_LEASE_SECONDS = float(QUICK["FARM_LEASE_SECONDS"])


@dataclass(frozen=True)
class Arrival:
    """The end of a job that a webhook asks for, and what became of it."""

    event: Outbox
    webhook: WebhookEndpoint
    message: WebhookDelivery | None
    at: datetime | None  # when its receiver took it for the first time

    def __str__(self) -> str:
        return f"event {self.event.id} of job {self.event.job_id} for webhook {self.webhook.id}"


def arrivals(session: Session, receiver: Receiver) -> Iterator[Arrival]:
    """Yield each end of a job with each webhook that asks for it."""
    webhooks = session.scalars(select(WebhookEndpoint)).all()
    made = {(row.endpoint_id, row.event_id): row for row in session.scalars(select(WebhookDelivery))}
    for event in session.scalars(select(Outbox).order_by(Outbox.id)):
        named = session.get_one(Job, event.job_id).webhook
        for webhook in [one for one in webhooks if one.owner == event.owner and (one.url or named)]:
            message = made.get((webhook.id, event.id))
            yield Arrival(event, webhook, message, receiver.arrived_at.get(message.message) if message else None)


def problems(session: Session, receiver: Receiver, troubles: Troubles) -> Iterator[str]:
    """Yield the ends of jobs that a webhook did not get, or too late, and messages that nobody should have sent."""
    for arrival in arrivals(session, receiver):
        if arrival.at is None or arrival.message is None:
            yield f"{arrival} is lost"
        elif (calm := troubles.longest_calm(arrival.event.at, arrival.at)) > _bound(arrival.event):
            taken = f"taken {arrival.event.tries} times, sent {arrival.message.tries} times"
            yield f"{arrival} is late: {calm:.1f} s went by at a time in which nothing kept it; {taken}"
    by_id = {one.message.message: one for one in arrivals(session, receiver) if one.message}
    for headers, body in receiver.got:
        meant = by_id.get(headers.get("webhook-id", ""))
        if meant is None:
            yield f"a message came that is of no event: {headers} {body[:500]}"
        elif not _is_signed(headers, body, meant.webhook.secret, meant.event.at):
            yield f"the message of {meant} is wrongly signed: {headers} {body[:500]}"
        elif (told := json.loads(body)) and (told["type"], told["data"]["id"]) != _said(meant.event):
            yield f"the message of {meant} says {told}"


def _bound(event: Outbox) -> float:
    """Return within how much calm the message of an event arrives; one that failed is tried again after a pause."""
    return CALM_SECONDS + (_LEASE_SECONDS * 2 ** (event.tries - 2) if event.tries > 1 else 0.0)


def _said(event: Outbox) -> tuple[str, int]:
    return f"job.{event.state}", event.job_id


def _is_signed(headers: dict[str, str], body: str, secret: str, ended_at: datetime) -> bool:
    """True where the webhook's secret signs this id, this body, and a time since the job's end.

    The package would verify the same, but only within five minutes.
    """
    at = datetime.fromtimestamp(int(headers.get("webhook-timestamp", "0")), UTC)
    signature = Webhook(secret).sign(headers["webhook-id"], at, body)
    is_of_now = ended_at - timedelta(seconds=1) < at <= datetime.now(UTC)  # it has whole seconds
    return is_of_now and signature in headers.get("webhook-signature", "").split()
