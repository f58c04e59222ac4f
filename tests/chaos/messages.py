"""Whether each end of a job has reached the webhooks that asked for it: signed, at least once, and in time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import Webhook

from shared.db.tables import Job, Outbox, WebhookDelivery, WebhookEndpoint
from tests.chaos.calm import CALM_SECONDS, Troubles
from tests.chaos.ground import QUICK
from tests.chaos.people import Asked
from tests.chaos.plans import STOP_SECONDS
from tests.chaos.points import ANSWER_SECONDS
from tests.support.receivers import Receiver

_LEASE_SECONDS = float(QUICK["FARM_LEASE_SECONDS"])
_WHOLE = timedelta(seconds=1)  # a message's own time has whole seconds
_ON_ITS_WAY = timedelta(seconds=ANSWER_SECONDS + STOP_SECONDS + 5)
"""From the time of a message until its receipt: its sender may be stopped meanwhile; 5 s are for a machine that does
much else."""


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


def unasked(session: Session, jobs: Sequence[Asked]) -> Iterator[str]:
    """Yield the jobs that were submitted with an address, for which the farm has no such address or no endpoint."""
    of_jobs = set(session.scalars(select(WebhookEndpoint.owner).where(WebhookEndpoint.url.is_(None))))
    for asked in jobs:
        job = session.get(Job, asked.id) if asked.id and "webhook" in asked.body else None
        if job and (job.webhook != asked.body["webhook"] or asked.owner not in of_jobs):
            yield f"the webhook of job {job.id} is lost: {job.webhook} is stored, for the endpoints of {of_jobs}"


def problems(session: Session, receiver: Receiver, troubles: Troubles) -> Iterator[str]:
    """Yield the ends of jobs that a webhook did not get, or too late, and messages that nobody should have sent."""
    for arrival in arrivals(session, receiver):
        if arrival.at is None or arrival.message is None:
            yield f"{arrival} is lost"
            continue
        calms = troubles.calms(arrival.event.at, arrival.at)
        if late := [calm for since, calm in calms if calm > _bound(arrival.event, since)]:
            taken = f"taken {arrival.event.tries} times, sent {arrival.message.tries} times"
            yield f"{arrival} is late: {max(late):.1f} s went by at a time in which nothing kept it; {taken}"
    by_id = {one.message.message: one for one in arrivals(session, receiver) if one.message}
    for headers, body, at in receiver.got:
        meant = by_id.get(headers.get("webhook-id", ""))
        if meant is None:
            yield f"a message came that is of no event: {headers} {body[:500]}"
        elif not _is_signed(headers, body, meant.webhook.secret, max(meant.event.at, at - _ON_ITS_WAY), at):
            yield f"the message of {meant} is wrongly signed: {headers} {body[:500]}"
        elif (told := json.loads(body)) and (told["type"], told["data"]["id"]) != _said(meant.event):
            yield f"the message of {meant} says {told}"


def _bound(event: Outbox, calm_since: datetime) -> float:
    """Return within how much of the calm that began then the message of an event arrives.

    A try that trouble ended is made again after a pause; one that failed in calm is the farm's own fault. The first
    pause is a lease, and each is twice as long as the one before: at most as long as the event was old, and a lease.
    """
    age = (calm_since - event.at).total_seconds()
    had_trouble = age > 0 and event.tries > 1
    return CALM_SECONDS + (min(age + _LEASE_SECONDS, _LEASE_SECONDS * 2 ** (event.tries - 2)) if had_trouble else 0.0)


def _said(event: Outbox) -> tuple[str, int]:
    return f"job.{event.state}", event.job_id


def _is_signed(headers: dict[str, str], body: str, secret: str, since: datetime, until: datetime) -> bool:
    """True where the webhook's secret signs this id, this body, and a time between the two.

    The package would verify the same, but only within five minutes of now.
    """
    at = datetime.fromtimestamp(int(headers.get("webhook-timestamp", "0")), UTC)
    signature = Webhook(secret).sign(headers["webhook-id"], at, body)
    return since - _WHOLE < at <= until and signature in headers.get("webhook-signature", "").split()
