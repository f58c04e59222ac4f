"""The queue against a model of it: random moves, one by one and two at once, and the same rows after each.

`pytest tests/chaos/test_queue_model.py --hypothesis-profile=night` looks for much longer. A failure prints the moves
that lead to it, and the blob that replays them.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from shared.accounts import limit_rows
from shared.accounts.principal import LOCAL
from shared.db import sessions as database
from shared.errors import Conflict, NotFound
from shared.params.render import RenderParams
from shared.queue import policy, snapshot
from shared.queue.claim import Claim
from shared.queue.submit import submit as submit_job
from tests.chaos.queue_acts import (
    Act,
    Delete,
    End,
    EndSome,
    HandBack,
    OfJob,
    Pulse,
    Reap,
    Remove,
    Seen,
    Take,
    TakeSome,
    Turn,
)
from tests.chaos.queue_model import HELD, QUEUED, SUCCEEDED, Model, Picture
from tests.support.admissions import admission
from tests.support.queueing import Farmhand

OWNERS = ("ann", "bob")
HOUR = timedelta(hours=1)
QUICK = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # to shrink a failure takes longer than a test may: it would report only a timeout
)
NIGHT = settings(QUICK, max_examples=3000, stateful_step_count=80, phases=list(Phase))

numbers = st.integers(0, 3)
acts = st.tuples(
    st.sampled_from(
        ["take", "take some"] * 3
        + ["finish", "finish some", "cancel", "retry", "crash", "turn"] * 2
        + ["fail", "hand back", "cancel one", "retry one", "hold", "release", "delete", "mark dead", "leave"]
        + ["reap", "pulse"]
    ),
    numbers,
    numbers,
)  # fmt: skip

IMAGES = text("""
    SELECT id, job_id, owner, priority, state, attempt, strikes, worker_id,
           coalesce(started_at >= queued_at, false) AS has_started,
           CASE WHEN expires_at < now() THEN 'past' WHEN expires_at > now() THEN 'future' END AS expires,
           CASE WHEN held_until < now() THEN 'past' WHEN held_until > now() THEN 'future' END AS held_until,
           held_behind,
           (
               SELECT count(*) FROM history
               WHERE job_id = images.job_id AND image_id = images.id AND event = 'finished'
           ) AS finished
    FROM images
    ORDER BY id
""")
JOBS = text("""
    SELECT id, state, unfinished, failed, cancelled, ended_at IS NOT NULL AS has_ended,
           (SELECT count(*) FROM outbox WHERE job_id = jobs.id AND at = ended_at) AS events
    FROM jobs
""")
WORKERS = text("SELECT id, lease_until < now() AS is_late FROM workers")
BLOCKED = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


class Queue(RuleBasedStateMachine):
    """The database, and the model beside it."""

    def __init__(self, sessions: database.Sessions, lanes: list[policy.Lane], pool: ThreadPoolExecutor) -> None:
        super().__init__()
        self.sessions, self.lanes, self.pool = sessions, lanes, pool
        self.hand = Farmhand(sessions)
        self.hand.run(
            lambda session: session.execute(
                text("TRUNCATE jobs, images, workers, history, outbox, owner_limits CASCADE")
            )
        )
        self.model = Model()
        self.claims: list[Claim] = []
        self.attempts: Counter[int] = Counter()
        self.known_jobs: list[int] = []
        self.known_workers: list[int] = []
        self._register()

    @rule(
        owner=st.sampled_from(OWNERS),
        count=st.integers(1, 3),
        priority=st.integers(0, 1),
        expires=st.sampled_from([None, None, "future", "past"]),
        hold=st.sampled_from([None, None, None, "hand", "future", "past", "behind"]),
        behind=numbers,
    )
    def submit(self, *, owner, count, priority, expires, hold, behind):
        instants = {None: None, "future": datetime.now(UTC) + HOUR, "past": datetime.now(UTC) - HOUR}
        until = hold if hold in {"future", "past"} else None
        first = pick(self.known_jobs, behind) if hold == "behind" else None
        scheduling = {
            "expires_at": instants[expires],
            "hold": hold == "hand",
            "hold_until": instants[until],
            "hold_behind": first,
        }
        params = RenderParams(prompt="sea", checkpoint="demo", width=64, height=64, seed=7, count=count)
        job = self.hand.run(submit_job, admission(owner, params, priority=priority, **scheduling)).job
        self.known_jobs.append(job.id)
        self.model.jobs.add(job.id)
        for image in self.hand.images(job.id):
            picture = Picture(job.id, owner, priority, HELD if hold == "hand" or until or first else QUEUED)
            picture.expires, picture.held_until, picture.held_behind = expires, until, first
            self.model.pictures[image.id] = picture

    @rule(what=st.sampled_from(["register", "lease", "hours"]), one=numbers)
    def meanwhile(self, what, one):
        if what == "register":
            self._register()
        elif what == "lease":
            self._lease_runs_out(pick(self.known_workers, one))
        else:
            self._hours_pass(pick(self.known_jobs, one))

    @rule(owner=st.sampled_from(OWNERS), most=st.none() | st.integers(0, 2))
    def limit(self, *, owner, most):
        self.hand.run(limit_rows.change, owner, {"running": most}, LOCAL)
        self.model.most[owner] = most

    @rule(one=numbers)
    def take_by_the_policy(self, *, one):
        """A worker takes what the policy gives it: never an image of an owner who has as many running as may run."""
        worker = pick(list(self.model.workers), one)
        if worker is not None:
            seen = self.hand.run(snapshot.take)
            ranked = list(policy.rank(seen.lanes, seen.farm, policy.Worker(worker, ("default",))))
            assert {lane.owner for lane in ranked} == self.model.served()
            if ranked:
                self._do(Take(worker, ranked[0]))

    @rule(act=acts)
    def alone(self, act):
        made = self._made(*act)
        if made is not None:
            self._do(made)

    def _do(self, act: Act) -> None:
        answer = self.hand.run(answered, act)
        assert act.play(self.model, Seen(answer)) == answer, act
        self._remember(answer)

    @rule(first=acts, second=acts)
    def two_at_once(self, first, second):
        pair = [self._made(*first), self._made(*second)]
        if None in pair:
            return
        answers = self._at_once(*pair)
        before, shown = self.model, self._shown()
        touched = [act.touches(before) for act in pair]
        orders = []
        for order in permutations(range(2)):
            after = before.copy()
            seen = [Seen(answers[number], *touched[1 - number]) for number in range(2)]
            played = {number: pair[number].play(after, seen[number]) for number in order}
            orders.append((after, [played[0], played[1]] == answers and rows(after) == shown))
        fitting = [after for after, fits in orders if fits]
        if not fitting and all(act.is_bulk for act in pair):
            event("images moved in either order")
            fitting = [mixed([*(after for after, _ in orders), *self._once(before, pair, answers)], shown)]
        assert fitting, f"{pair} answered {answers} and left {shown}, which neither order does"
        self.model = fitting[0]
        for answer in answers:
            self._remember(answer)

    def _once(self, before: Model, pair: list[Act], answers: list[Any]) -> list[Model]:
        """Return what one turn leaves, where both acts are: neither sees what the other ends, the next one does."""
        if not all(isinstance(act, Turn) for act in pair):
            return []
        after = before.copy()
        pair[0].play(after, Seen(answers[0], *pair[1].touches(before)))
        return [after]

    @rule(first=acts, second=acts)
    def two_more_at_once(self, first, second):
        """So that half of what happens is this."""
        self.two_at_once(first, second)

    @invariant()
    def rows_are_the_models_and_keep_the_rules(self):
        found = self._rows()
        assert {part: found[part] for part in ("images", "jobs", "workers")} == rows(self.model)
        for number, picture in self.model.pictures.items():
            assert picture.attempt >= self.attempts[number], "an attempt fell"
            assert found["finished"][number] == (picture.state == SUCCEEDED), "not one result for each success"
            self.attempts[number] = picture.attempt

    def _register(self) -> None:
        worker = self.hand.worker(lease_seconds=3600)
        self.known_workers.append(worker.id)
        self.model.workers[worker.id] = False

    def _lease_runs_out(self, worker: int) -> None:
        self._say("UPDATE workers SET lease_until = now() - interval '1 second' WHERE id = :id", worker)
        if worker in self.model.workers:
            self.model.workers[worker] = True

    def _hours_pass(self, job: int | None) -> None:
        self._say(
            "UPDATE images SET expires_at = expires_at - interval '2 h', held_until = held_until - interval '2 h'"
            " WHERE job_id = :id",
            job,
        )
        for picture in self.model.of_job(job or 0).values():
            picture.expires = picture.expires and "past"
            picture.held_until = picture.held_until and "past"

    def _made(self, kind: str, first: int, second: int) -> Act | None:
        """Return the act that is meant; None if there is nothing yet to do it to."""
        if not self.model.workers:
            self._register()
        hands = self.known_workers if second == 0 else list(self.model.workers)  # the dead have less to do
        worker, job, claim = (pick(known, first) for known in (hands, self.known_jobs, self.claims))
        given = [one for one in self.claims if one.worker_id == worker][-second:]
        move, _, one = kind.partition(" ")
        makers = {
            "take": lambda: Take(worker, self.lanes[second % len(self.lanes)]),
            "take some": lambda: TakeSome(worker, tuple(self.lanes), 1 + first + second),
            "finish some": lambda: claim and EndSome(tuple(self.claims[-1 - second :])),
            "finish": lambda: claim and End(claim, fails=False),
            "fail": lambda: claim and End(claim, fails=True),
            "hand back": lambda: claim and HandBack(claim),
            "mark dead": lambda: Remove(worker),
            "crash": lambda: Remove(worker, strike=True),
            "leave": lambda: Remove(worker, leaves=True),
            "reap": lambda: Reap(me_on_time=second > 0),
            "pulse": lambda: Pulse(worker, {one.image_id: one.attempt for one in given}),
            "turn": Turn,
            "delete": lambda: job and Delete(job),
        }
        return makers.get(kind, lambda: job and OfJob(move, job, second % 4 if one else None))()

    def _at_once(self, first: Act, second: Act) -> list[Any]:
        """Do the second while the first has done all but commit: it waits for it, or goes past it."""
        session = self.sessions()
        try:
            answer = answered(session, first)
            other = self.pool.submit(self.hand.run, answered, second)
            self._wait(other)
            session.rollback() if is_refusal(answer) else session.commit()
            return [answer, other.result(20)]
        finally:
            session.close()

    def _wait(self, other: Future[Any]) -> None:
        with self.sessions() as session:
            while not other.done() and not session.scalar(BLOCKED):
                session.rollback()
        event("waited for the other" if not other.done() else "went past the other")

    def _remember(self, answer: Any) -> None:
        answers = answer if isinstance(answer, list) else [answer]
        self.claims += [one for one in answers if isinstance(one, Claim)]

    def _shown(self) -> dict[str, Any]:
        """What the model knows as well."""
        found = self._rows()
        return {part: found[part] for part in ("images", "jobs", "workers")}

    def _rows(self) -> dict[str, Any]:
        with self.sessions() as session:
            images = session.execute(IMAGES).all()
            return {
                "images": {row.id: tuple(row)[1:-1] for row in images},
                "finished": {row.id: row.finished for row in images},
                "jobs": {row.id: tuple(row)[1:] for row in session.execute(JOBS)},
                "workers": {row.id: row.is_late for row in session.execute(WORKERS)},
            }

    def _say(self, statement: str, number: int | None) -> None:
        self.hand.run(lambda session: session.execute(text(statement), {"id": number}))


def pick(known: list[Any], number: int) -> Any:
    """Return one of the latest two: what is done there meets what was done before. None if there is none."""
    return known[-1 - number % min(len(known), 2)] if known else None


def is_refusal(answer: Any) -> bool:
    return answer in {Conflict, NotFound} if isinstance(answer, type) else False


def answered(session: database.Session, act: Act) -> Any:
    """Return what an act answers, a refusal by its class."""
    try:
        return act.run(session)
    except (Conflict, NotFound) as refusal:
        return type(refusal)


def rows(model: Model) -> dict[str, Any]:
    """Return what the database should hold."""
    ended = {job: not model.unfinished(job) for job in model.jobs}
    return {
        "images": {number: as_row(picture) for number, picture in model.pictures.items()},
        "jobs": {job: (model.state(job), *model.counts(job), ended[job], int(ended[job])) for job in model.jobs},
        "workers": model.workers,
    }


def as_row(one: Picture) -> tuple[Any, ...]:
    known = (one.job, one.owner, one.priority, one.state, one.attempt, one.strikes, one.worker, one.has_started)
    return (*known, one.expires, one.held_until, one.held_behind)


def mixed(models: list[Model], found: dict[str, Any]) -> Model:
    """Return the model that has of each image what one of `models` has and the database shows."""
    chosen = next(model for model in models if set(model.pictures) == set(found["images"])).copy()
    for number, row in found["images"].items():
        fitting = [model.pictures[number] for model in models if as_row(model.pictures[number]) == row]
        assert fitting, f"image {number} is {row}, which neither order makes of it"
        chosen.pictures[number] = fitting[0]
    assert rows(chosen) == found
    return chosen


@pytest.fixture
def lanes(sessions, job_factory) -> list[policy.Lane]:
    """The lane of each owner, as a snapshot tells it."""
    for owner in OWNERS:
        job_factory(owner=owner)
    return list(database.transact(sessions, snapshot.take).lanes)


def test_queue_does_what_its_model_does_one_by_one_and_two_at_once(sessions, lanes):
    is_night = settings.get_current_profile_name() == "night"
    with ThreadPoolExecutor(1) as pool:
        run_state_machine_as_test(lambda: Queue(sessions, lanes, pool), settings=NIGHT if is_night else QUICK)
