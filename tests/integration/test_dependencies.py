"""Jobs that wait for others: held until these have ended or succeeded, released once, cancelled if that cannot be."""

from __future__ import annotations

from collections import Counter
from functools import partial
from threading import Event, Thread

import pytest
from sqlalchemy import select, text

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import History
from shared.errors import Refused
from shared.maintenance import outbox
from shared.maintenance.dependencies import settle, settle_overdue
from shared.params.scheduling import Scheduling
from shared.queue import dependencies, holds, rescheduling, transitions
from shared.queue.rescheduling import Change
from tests.support.browsing import look
from tests.support.queueing import Farmhand


class Told:
    """All that was published: tickets by pool, and jobs with their states."""

    def __init__(self):
        self.tickets, self.jobs = Counter(), []

    def publish(self, *said):
        if len(said) == 2:
            self.tickets[said[0]] += said[1]
        else:
            self.jobs.append((said[0].job, said[0].state))


@pytest.fixture
def farm(sessions):
    return Farmhand(sessions)


@pytest.fixture
def job(job_factory):
    """Submits a job of ann's that waits for others."""

    def make(*after, on="success", **options):
        scheduling = {"after": tuple(one.id for one in after), "on": on} if after else {}
        return job_factory(owner="ann", scheduling=scheduling, **options)

    return make


@pytest.fixture
def told():
    return Told()


def hand_out(farm, told=None, consumers=None):
    told = told or Told()
    consumer = partial(settle, sessions=farm.sessions, tickets=told, events=told)
    return outbox.deliver(farm.sessions, consumers or [consumer], 20)


def states(farm, job):
    return [image.state for image in farm.images(job.id)]


def finish(farm, job):
    worker = farm.worker()
    while "queued" in states(farm, job):
        farm.finish(worker.claim())


def fail(farm, job):
    farm.run(transitions.fail, farm.worker().claim(), "broken")


def reasons(farm, job):
    return {image.reason for image in farm.images(job.id)}


def test_job_is_held_until_all_others_have_succeeded_and_gets_its_tickets_then(farm, job, told):
    first, second = job(), job()
    last = job(first, second, count=2)
    assert states(farm, last) == ["held", "held"]
    assert reasons(farm, last) == {f"held until these jobs succeed: {first.id}, {second.id}"}
    finish(farm, first)
    hand_out(farm, told)
    assert states(farm, last) == ["held", "held"]
    finish(farm, second)
    hand_out(farm, told)
    assert states(farm, last) == ["queued", "queued"]
    assert (told.tickets, told.jobs) == ({"default": 2}, [(last.id, "queued")])


@pytest.mark.parametrize("end", [fail, lambda farm, job: farm.run(transitions.cancel, EVERYBODYS, job.id)])
def test_job_that_needs_a_success_is_cancelled_when_that_is_over_and_so_are_those_behind_it(farm, job, told, end):
    first = job()
    second = job(first)
    third = job(second)
    end(farm, first)
    hand_out(farm, told)
    hand_out(farm, told)
    how = {"failed": "has failed", "cancelled": "was cancelled"}[farm.job(first.id).state]
    assert reasons(farm, second) == {f"job {first.id} {how}, and it waited for that"}
    assert [farm.job(one.id).state for one in (second, third)] == ["cancelled", "cancelled"]
    farm.run(transitions.retry, EVERYBODYS, second.id)
    assert states(farm, second) == ["queued"]


def test_job_that_was_cancelled_while_it_waited_waits_again_when_it_is_retried(farm, job):
    first = job()
    second = job(first, count=2)
    farm.run(transitions.cancel, EVERYBODYS, second.id)
    assert farm.run(dependencies.retry, EVERYBODYS, second.id) == 2
    assert reasons(farm, second) == {f"held until these jobs succeed: {first.id}"}
    farm.run(transitions.cancel, EVERYBODYS, second.id, 1)
    farm.run(dependencies.retry, EVERYBODYS, second.id, 1)
    assert states(farm, second) == ["held", "held"]
    finish(farm, first)
    hand_out(farm)
    assert states(farm, second) == ["queued", "queued"]


@pytest.mark.parametrize("end", [finish, fail])
def test_job_that_is_retried_when_what_it_waited_for_has_ended_is_queued(farm, job, end):
    first = job()
    second = job(first)
    farm.run(transitions.cancel, EVERYBODYS, second.id)
    end(farm, first)
    farm.run(dependencies.retry, EVERYBODYS, second.id)
    assert farm.run(dependencies.overdue, 10) == []
    assert states(farm, second) == ["queued"]


def test_retry_closes_no_circle(farm, job):
    first, other = job(), job()
    second = job(first)
    farm.run(transitions.cancel, EVERYBODYS, second.id)
    changed(farm, first, second, other, on="end")
    farm.run(dependencies.retry, EVERYBODYS, second.id)
    assert (states(farm, first), states(farm, second)) == (["held"], ["queued"])


@pytest.mark.parametrize("end", [finish, fail, lambda farm, job: farm.run(transitions.delete, EVERYBODYS, job.id)])
def test_job_that_waits_for_an_end_is_queued_however_that_was(farm, job, end):
    first = job()
    second = job(first, on="end")
    end(farm, first)
    hand_out(farm)
    assert states(farm, second) == ["queued"]


def test_job_that_needs_the_success_of_one_that_is_deleted_is_cancelled(farm, job):
    first = job()
    second = job(first)
    farm.run(transitions.delete, EVERYBODYS, first.id)
    hand_out(farm)
    assert reasons(farm, second) == {f"job {first.id} was deleted, and it waited for that"}


def test_event_that_is_handed_out_twice_releases_once(farm, job, told):
    first = job()
    second = job(first)
    finish(farm, first)
    settled = partial(settle, sessions=farm.sessions, tickets=told, events=told)

    def killed(event):
        settled(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hand_out(farm, consumers=[killed])
    farm.run(holds.hold, EVERYBODYS, second.id, by="ann")  # by hand: no late event may undo it
    farm.run(lambda session: session.execute(text("UPDATE outbox SET due_at = now()")))
    assert hand_out(farm, told).events == 1
    assert states(farm, second) == ["held"]
    assert told.tickets == {"default": 1}
    released = select(History.event).where(History.job_id == second.id, History.event == "released")
    assert farm.run(lambda session: session.scalars(released).all()) == ["released"]


def test_job_that_is_released_by_hand_waits_no_more(farm, job):
    first = job()
    second = job(first)
    farm.run(holds.release, EVERYBODYS, second.id, by="ann")
    farm.run(holds.hold, EVERYBODYS, second.id, by="ann")
    finish(farm, first)
    hand_out(farm)
    assert states(farm, second) == ["held"]


def test_job_that_is_submitted_while_another_ends_does_not_wait_for_ever(farm, job, sessions):
    """The end waits for the submission, and so its event finds the new job."""
    first, done = job(), Event()

    def end():
        farm.run(transitions.cancel, EVERYBODYS, first.id)
        done.set()

    ending = Thread(target=end)

    def submit_and_look(session):
        found = dependencies.open_ones(session, "ann", [first.id], "end")
        ending.start()
        assert not done.wait(0.2)
        return found

    assert transact(sessions, submit_and_look) == [first.id]
    ending.join()
    assert dependencies_of(farm, first) == []


def test_delete_that_meets_a_change_tells_the_job_that_waits_from_then_on(farm, job, sessions):
    first, second = job(), job()
    deleting = Thread(target=partial(farm.run, transitions.delete, EVERYBODYS, first.id))

    def change_and_look(session):
        dependencies.change(session, second.id, (first.id,), "success")
        deleting.start()
        deleting.join(0.2)
        assert deleting.is_alive()

    transact(sessions, change_and_look)
    deleting.join()
    hand_out(farm)
    assert reasons(farm, second) == {f"job {first.id} was deleted, and it waited for that"}


def test_success_counts_although_its_job_is_deleted_before_the_others_have_ended(farm, job, told):
    first, second = job(), job()
    last, alone = job(first, second), job(first)
    farm.finish(farm.worker().claim())
    farm.run(transitions.delete, EVERYBODYS, first.id)
    hand_out(farm, told)
    assert (states(farm, last), states(farm, alone)) == (["held"], ["queued"])
    finish(farm, second)
    hand_out(farm, told)
    assert states(farm, last) == ["queued"]
    assert told.tickets == {"default": 2}


def test_hopeless_job_of_which_nothing_waits_goes_on_and_keeps_no_other_from_its_end(farm, job):
    first = job()
    waiter, behind = job(first, count=2), job(first)
    farm.run(transitions.cancel, EVERYBODYS, waiter.id, 0)
    farm.run(transitions.retry, EVERYBODYS, waiter.id, 0)
    worker = farm.worker()
    assert [worker.claim().job_id, worker.claim().job_id] == [first.id, waiter.id]
    farm.run(transitions.cancel, EVERYBODYS, waiter.id, 1)
    farm.run(transitions.cancel, EVERYBODYS, first.id)
    assert hand_out(farm).failed == 0
    assert states(farm, waiter) == ["running", "cancelled"]
    assert states(farm, behind) == ["cancelled"]
    assert farm.run(dependencies.overdue, 10) == []


def test_jobs_that_an_older_process_told_nothing_are_settled_once(farm, job, told):
    first, second = job(), job()
    free, hopeless, patient = job(first), job(second), job(job())
    finish(farm, first)
    farm.run(transitions.cancel, EVERYBODYS, second.id)
    farm.run(lambda session: session.execute(text("UPDATE outbox SET delivered_at = now()")))
    repair = partial(settle_overdue, sessions=farm.sessions, tickets=told, events=told)
    assert [repair(), repair()] == [2, 0]
    assert [states(farm, one) for one in (free, hopeless, patient)] == [["queued"], ["cancelled"], ["held"]]
    assert told.tickets == {"default": 1}
    assert told.jobs == [(free.id, "queued"), (hopeless.id, "cancelled")]


def test_job_that_is_held_by_hand_while_it_waits_stays_so(farm, job):
    first = job()
    second = job(first)
    farm.run(partial(rescheduling.change, by="ann"), EVERYBODYS, second.id, Change(hold=True))
    assert reasons(farm, second) == {"held by ann"}
    finish(farm, first)
    hand_out(farm)
    assert states(farm, second) == ["held"]


def dependencies_of(farm, job):
    return farm.run(dependencies.open_ones, "ann", [job.id], "end")


def test_job_behind_what_has_ended_is_queued_at_once(farm, job):
    first = job()
    finish(farm, first)
    assert states(farm, job(first)) == ["queued"]


def refused(call, *given):
    with pytest.raises(Refused) as caught:
        call(*given)
    [field] = caught.value.fields
    return field.field, field.message


def test_unknown_jobs_those_of_others_and_hopeless_ones_are_refused(farm, job, job_factory):
    failed, bobs = job(), job_factory(owner="bob")
    farm.run(transitions.cancel, EVERYBODYS, failed.id)
    assert refused(job, bobs) == ("after", f"there is no job {bobs.id}")
    assert refused(job, failed) == ("after", f"job {failed.id} was cancelled, so this one would never start")
    assert states(farm, job(failed, on="end")) == ["queued"]


def changed(farm, job, *after, on=None):
    wanted = Change(after=tuple(one.id for one in after), on=on)
    return farm.run(partial(rescheduling.change, by="ann"), EVERYBODYS, job.id, wanted)


def test_change_holds_releases_and_refuses_circles(farm, job):
    first, second = job(), job()
    third = job(second)
    assert changed(farm, second, first) == 1
    assert states(farm, second) == ["held"]
    assert refused(changed, farm, first, third) == ("after", f"job {third.id} waits for this one")
    assert refused(changed, farm, first, first) == ("after", "a job cannot wait for itself")
    assert states(farm, first) == ["queued"]
    changed(farm, second)
    assert states(farm, second) == ["queued"]
    assert changed(farm, third, first, on="end") == 1
    farm.run(transitions.cancel, EVERYBODYS, first.id)
    hand_out(farm)
    assert states(farm, third) == ["queued"]


def test_circle_over_a_hold_behind_a_job_is_refused(farm, job, job_factory):
    first = job()
    behind = job_factory(owner="ann", scheduling={"hold_behind": first.id})
    assert refused(changed, farm, first, behind) == ("after", f"job {behind.id} waits for this one")


@pytest.mark.parametrize("given", ["12, 13", ["12", 13], ["12, 13", "12"], (12, 13)])
def test_ids_are_read_as_people_and_programs_write_them(given):
    assert Scheduling(after=given).after == (12, 13)


def test_api_and_page_show_what_a_job_waits_for_and_what_waits_for_it(client, checkpoint_factory):
    checkpoint_factory("demo")
    url = "/api/v1/jobs"
    first = client.post(url, json={"prompt": "sea"}).get_json()["id"]
    made = client.post(url, json={"prompt": "moon", "after": [first], "on": "end"}).get_json()
    assert (made["state"], made["after"], made["on"]) == ("held", [first], "end")
    assert "It waits for job 1." in (shown := look(client, f"/jobs/{made['id']}")).text.replace(f"job {first}", "job 1")
    assert shown.all("a", href=f"/jobs/{first}")
    assert look(client, f"/jobs/{first}").all("a", href=f"/jobs/{made['id']}")
    wrong = client.post(url, json={"prompt": "sun", "after": [first, 999], "hold": True}).get_json()["errors"]
    assert [problem["field"] for problem in wrong] == ["after"]
    circle = client.patch(f"{url}/{first}", json={"after": [made["id"]]})
    assert (circle.status_code, circle.get_json()["errors"][0]["field"]) == (422, "after")
    free = client.patch(f"{url}/{made['id']}", json={"after": []}).get_json()
    assert (free["images"], free["job"]["state"], free["job"]["after"]) == (1, "queued", [])
