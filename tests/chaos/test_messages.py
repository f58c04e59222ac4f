"""What the plans say about webhooks can fail: a message that is lost, late or wrongly signed is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import delete, select, update

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import Job, Outbox, WebhookDelivery, WebhookEndpoint
from shared.maintenance import outbox
from shared.queue import transitions
from shared.webhooks import deliveries, endpoints, messages
from shared.webhooks.sending import signed
from tests.chaos.calm import CALM_SECONDS, START_SECONDS, Span, Troubles
from tests.chaos.faults import FAULTS
from tests.chaos.ground import ground
from tests.chaos.messages import problems, unasked
from tests.chaos.people import Asked
from tests.chaos.plans import Kind, make
from tests.chaos.run import run
from tests.support.receivers import Received, Receiver

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("spans", "calm"),
    [
        ([], 10),
        ([(2, 4)], 6),
        ([(0, 3), (7, 12)], 4),
        ([(-5, 6)], 4),
        ([(1, 8), (2, 4)], 2),
        ([(3, 3)], 7),
        ([(4, None)], 4),
        ([(12, 15)], 10),
    ],
)
def test_calm_is_the_longest_time_without_any_trouble(spans, calm):
    troubles = Troubles()
    troubles.spans = [Span("", at(since), None if until is None else at(until)) for since, until in spans]
    assert troubles.longest_calm(NOON, at(10)) == calm


def test_trouble_is_over_at_the_earliest_end_that_was_noted():
    troubles = Troubles()
    end = troubles.begin("a sender is dead")
    end(START_SECONDS)
    [span] = troubles.spans
    at_the_latest = span.until
    assert at_the_latest - span.since >= timedelta(seconds=START_SECONDS)
    end(2 * START_SECONDS)
    assert span.until == at_the_latest, "one that takes longer to start is not away any more"
    end()
    assert span.until < at_the_latest


@pytest.fixture
def ended(sessions, job_factory):
    """The end of a job for which an owner has a webhook, whose message has been made."""
    given = {"url": "https://there.example/hook"}
    transact(sessions, lambda session: endpoints.make(session, "ann", given, ()))
    job = job_factory(owner="ann")
    transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, job.id))
    outbox.deliver(sessions, [partial(deliveries.record, sessions=sessions, base="")], 2)
    with sessions() as session:
        yield session.scalars(select(Outbox)).one()


@pytest.fixture
def receiver(sessions, ended):
    """A receiver that got that message a second later."""
    made = Receiver()
    with sessions() as session:
        message = session.scalars(select(WebhookDelivery)).one()
        secret = session.scalars(select(WebhookEndpoint.secret)).one()
    body = messages.body(message.payload, "standard")
    made.got = [Received(signed(message.message, body, [secret], ended.at), body, ended.at + timedelta(seconds=1))]
    made.arrived_at = {message.message: made.got[0].at}
    return made


@pytest.fixture
def told(sessions, receiver):
    """The problems with the receiver, after these spans of trouble."""

    def tell(*spans):
        troubles = Troubles()
        troubles.spans = [Span("", *span) for span in spans]
        with sessions() as session:
            return list(problems(session, receiver, troubles))

    return tell


def test_a_message_that_arrived_signed_and_soon_is_no_problem(told):
    assert told() == []


def test_a_message_that_never_arrived_is_lost(receiver, told):
    receiver.arrived_at.clear()
    [problem] = told()
    assert problem.endswith("is lost")


def test_an_end_of_which_no_message_was_made_is_lost(sessions, receiver, told):
    receiver.got.clear()
    transact(sessions, lambda session: session.execute(delete(WebhookDelivery)))
    [problem] = told()
    assert problem.endswith("is lost")


def test_a_message_is_late_only_if_nothing_kept_it(ended, receiver, told):
    much = timedelta(seconds=CALM_SECONDS + 1)
    receiver.arrived_at = dict.fromkeys(receiver.arrived_at, ended.at + much)
    [problem] = told()
    assert "is late" in problem
    soon = timedelta(seconds=2)
    assert told((ended.at, ended.at + much - soon)) == []
    assert told((ended.at - soon, ended.at)), "trouble that was over by then does not count"


@pytest.fixture
def arrived_after(sessions, ended, receiver, told):
    """The problems with an event that was taken `tries` times, and whose message took so many seconds."""

    def tell(seconds, tries, trouble):
        transact(sessions, lambda session: session.execute(update(Outbox).values(tries=tries)))
        receiver.arrived_at = dict.fromkeys(receiver.arrived_at, ended.at + timedelta(seconds=seconds))
        return told([ended.at + timedelta(seconds=at) for at in trouble])

    return tell


@pytest.mark.parametrize(
    ("tries", "trouble", "calm"),
    [
        (7, (-2, 0), CALM_SECONDS),  # a farm that fails without any trouble
        (7, (0, 1), CALM_SECONDS + 3),  # only the first try can have been then
        (7, (1, 1), CALM_SECONDS + 3),
        (2, (0, 5), CALM_SECONDS + 2),
        (3, (0, 5), CALM_SECONDS + 4),
        (1, (0, 5), CALM_SECONDS),
    ],
)
def test_an_event_has_longer_only_for_the_tries_that_trouble_can_have_ended(tries, trouble, calm, arrived_after):
    in_time = trouble[1] + calm
    assert arrived_after(in_time, tries, trouble) == []
    [problem] = arrived_after(in_time + 0.1, tries, trouble)
    assert f"is late: {calm + 0.1:.1f} s" in problem
    assert f"taken {tries} times" in problem


@pytest.fixture
def submitted(sessions, job_factory):
    """A job that was submitted with an address, as its owner and the farm know it."""
    url = "https://there.example/of-this-job"
    job = job_factory(owner="bob", scheduling={"webhook": url})
    transact(sessions, lambda session: endpoints.of_jobs(session, "bob"))
    return Asked("key", "bob", {"webhook": url}, id=job.id)


@pytest.mark.parametrize("planted", ["", "no address", "another address", "no endpoint"])
def test_an_address_that_a_job_was_submitted_with_is_known_or_found_lost(sessions, submitted, planted):
    match planted:
        case "no address":
            transact(sessions, lambda session: session.execute(update(Job).values(webhook=None)))
        case "another address":
            transact(sessions, lambda session: session.execute(update(Job).values(webhook="https://other.example/")))
        case "no endpoint":
            transact(sessions, lambda session: session.execute(delete(WebhookEndpoint)))
    jobs = [Asked("other", "bob", {}, id=submitted.id + 1), submitted, Asked("lost", "bob", submitted.body)]
    with sessions() as session:
        assert len(list(unasked(session, jobs))) == bool(planted)


def test_a_message_that_is_older_or_younger_than_its_receipt_is_wrongly_signed(receiver, told):
    [message] = receiver.got
    for seconds in (-2, 30):
        receiver.got = [message._replace(at=message.at + timedelta(seconds=seconds))]
        [problem] = told()
        assert "wrongly signed" in problem


@pytest.mark.parametrize("planted", ["none", "another secret's", "of another body", "of long ago", "of another id"])
def test_a_message_without_the_right_signature_is_found(sessions, ended, receiver, told, planted):
    [(headers, body, received_at)] = receiver.got
    with sessions() as session:
        secret = session.scalars(select(WebhookEndpoint.secret)).one()
    match planted:
        case "none":
            del headers["webhook-signature"]
        case "another secret's":
            headers = signed(headers["webhook-id"], body, [endpoints.new_secret()], ended.at)
        case "of another body":
            body = body.replace("cancelled", "succeeded")
        case "of long ago":
            headers = signed(headers["webhook-id"], body, [secret], ended.at - timedelta(minutes=10))
        case _:
            headers |= {"webhook-signature": signed("another", body, [secret], ended.at)["webhook-signature"]}
    receiver.got = [Received(headers, body, received_at)]
    [problem] = told()
    assert "wrongly signed" in problem


def test_a_message_of_no_event_is_found(receiver, told):
    [message] = receiver.got
    receiver.got.append(message._replace(headers=message.headers | {"webhook-id": "invented"}))
    [problem] = told()
    assert "of no event" in problem


@pytest.mark.nightly
@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_plan_finds_a_fault_that_is_planted_into_its_processes(fault, tmp_path):
    plan = make(1)
    calm = replace(plan, actions=tuple(one for one in plan.actions if one.kind in {Kind.SUBMIT, Kind.CRASH}))
    with ground(tmp_path) as here:
        found = run(calm, here, fault).problems
    assert found
    assert all(fault in problem for problem in found), found
