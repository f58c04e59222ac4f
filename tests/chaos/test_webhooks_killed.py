"""The process that sends webhooks is killed by kill -9, and the receiver is away: every end arrives, signed."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from ipaddress import ip_network

import pytest
from sqlalchemy import func, select
from standardwebhooks.webhooks import Webhook

from shared.accounts.scope import EVERYBODYS
from shared.db.tables import Job, WebhookDelivery
from shared.queue import transitions
from shared.webhooks import endpoints
from tests.support.queueing import Farmhand
from tests.support.receivers import Receiver, listening
from tests.support.waiting import until
from tests.support.workers import kill, started

JOBS = 150
KILLS = 6
WITHIN_SECONDS = 150  # a message whose sender was killed is held for a minute


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_every_end_is_told_at_least_once_and_signed(environ, sessions, job_factory):
    farm, receiver, dice = Farmhand(sessions), Receiver(), random.Random(7)
    inside = environ | {"FARM_WEBHOOK_NETWORKS": "127.0.0.0/8"}
    with listening(receiver) as port:
        pass
    given = {"url": receiver.url}
    secret = farm.run(endpoints.make, "ann", given, [ip_network("127.0.0.0/8")]).secret
    for kills in range(KILLS):
        with ExitStack() as stack:
            if kills % 3 != 1:  # else nobody listens
                stack.enter_context(listening(receiver, port))
            process = stack.enter_context(started(inside, module="worker.maintenance.process"))
            for _ in range(JOBS // KILLS):
                farm.run(transitions.cancel, EVERYBODYS, job_factory(owner="ann").id)
                time.sleep(dice.uniform(0, 0.1))
            kill(process.pid)
    with listening(receiver, port), started(inside, module="worker.maintenance.process"):
        unsent = select(func.count()).where(WebhookDelivery.delivered_at.is_(None))
        ended = select(func.count()).select_from(Job)
        told = select(func.count()).select_from(WebhookDelivery)
        until(lambda: farm.run(lambda rows: rows.scalar(told) == rows.scalar(ended)), WITHIN_SECONDS, "all recorded")
        until(lambda: farm.run(lambda rows: rows.scalar(unsent) == 0), WITHIN_SECONDS, "all sent")
    told_of = {body["data"]["id"] for body in receiver.bodies}
    assert told_of == set(farm.run(lambda rows: rows.scalars(select(Job.id)).all()))
    for headers, body in receiver.got:
        Webhook(secret).verify(body, headers)
