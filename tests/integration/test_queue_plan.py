"""The plans of claim and snapshot on a queue of 50,000 images whose head is blocked: what they cost is bounded.

The statements are those that the queue really sends, caught on their way and explained with what they touched. Each is
explained for its parameters and as the generic plan that a connection comes to use after some claims.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from shared.db import sessions as database
from shared.params.render import RenderParams
from shared.queue import policy, snapshot, transitions
from shared.queue.claim import claim
from shared.queue.policy import Lane
from tests.support.queueing import Farmhand, Workhand
from tests.support.servers import fresh_database

QUEUED = 50_000
BLOCKED = 45_000  # the oldest of them, whose checkpoints are not on this machine
LANE = 20_000  # of these in one lane
JOBS = 2000
CLAIMERS = 8
PARAMS = RenderParams(prompt="sea", checkpoint="demo [cccccccccc]", width=64, height=64, seed=7).model_dump_json()
PROBE = "FOR UPDATE SKIP LOCKED"


@dataclass(frozen=True)
class Crowd:
    """A farm with a long queue of so many owners, and one worker that could claim."""

    owners: int
    sessions: database.Sessions
    worker: Workhand

    @property
    def me(self) -> policy.Worker:
        return policy.Worker(self.worker.id, ("default",))

    def lanes_here(self) -> list[Lane]:
        """The lanes that are not blocked, the longest first."""
        with self.sessions() as session:
            lanes = [lane for lane in snapshot.take(session).lanes if lane.checkpoint[:4] == "here"]
        return sorted(lanes, key=lambda lane: -lane.queued)


def fill(session: Session, owners: int) -> None:
    """Queue the images, in jobs of some images, beside some that have ended."""
    jobs = text("""
        INSERT INTO jobs (owner, state, params, checkpoint, count, unfinished)
        SELECT 'owner-' || n % :owners, 'open', CAST(:params AS jsonb), 'c', 1000, 1000
        FROM generate_series(1, :jobs) AS n
    """)
    images = text("""
        INSERT INTO images (
            job_id, index, state, owner, checkpoint, pool, memory_class, urgent, priority, cost, attempt, strikes,
            started_at
        )
        SELECT 1 + n % :jobs, n / :jobs, CASE WHEN n < :queued THEN 'queued' ELSE 'succeeded' END,
               'owner-' || CASE WHEN n < :lane OR n BETWEEN :blocked AND :blocked + 999 THEN 0 ELSE n % :owners END,
               CASE WHEN n < :blocked THEN 'away-' ELSE 'here-' END
                   || CASE WHEN n < :lane THEN 0 ELSE n / :jobs % 3 END,
               'default', 6, false, 0, 1000, 0, 0,
               CASE WHEN n >= :queued THEN now() - make_interval(secs => n) END
        FROM generate_series(0, :queued + 9999) AS n
    """)
    session.execute(jobs, {"owners": owners, "jobs": JOBS, "params": PARAMS})
    session.execute(images, {"owners": owners, "jobs": JOBS, "queued": QUEUED, "blocked": BLOCKED, "lane": LANE})
    session.execute(text("ANALYZE jobs, images"))


@pytest.fixture(scope="module", params=[20, 2000], ids="{} owners".format)
def crowd(request, home) -> Iterator[Crowd]:
    with fresh_database(home) as url:
        engine = database.connect(url)
        sessions = database.sessions(engine)
        with sessions.begin() as session:
            fill(session, request.param)
        yield Crowd(request.param, sessions, Farmhand(sessions).worker())
        engine.dispose()


@contextmanager
def heads_claimed(crowd: Crowd, lane: Lane) -> Iterator[None]:
    """Other claimers hold the first images of `lane` and have not committed."""
    others = [Farmhand(crowd.sessions).worker() for _ in range(CLAIMERS - 1)]
    opened = [crowd.sessions() for _ in others]
    try:
        for session, other in zip(opened, others, strict=True):
            assert len(claim(session, policy.Worker(other.id, ("default",)), [lane])) == 1
        yield
    finally:
        for session in opened:
            session.rollback()
            session.close()


@dataclass(frozen=True)
class Explained:
    """A statement and the plan that it ran by."""

    statement: str
    plan: dict[str, Any]

    def nodes(self) -> list[dict[str, Any]]:
        found, waiting = [], [self.plan]
        while waiting:
            found.append(waiting.pop())
            waiting += found[-1].get("Plans", [])
        return found

    def scans(self) -> list[dict[str, Any]]:
        """The nodes that find rows of images, not those that change them."""
        found = [(node, node.get("Relation Name", node.get("Index Name", ""))) for node in self.nodes()]
        return [node for node, where in found if "images" in where and "Scan" in node["Node Type"]]


def explain(crowd: Crowd, work: Callable[[Session], Any], mode: str) -> list[Explained]:
    """Return the plans of all that `work` sends, each run in its turn and undone."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def catch(connection, cursor, statement, parameters, *others):
        sent.append((statement, parameters))

    engine = crowd.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", catch)
    try:
        with crowd.sessions() as session:
            work(session)
            session.rollback()
    finally:
        event.remove(engine, "before_cursor_execute", catch)
    raw = engine.raw_connection()
    try:
        with raw.cursor() as cursor:
            cursor.execute(f"SET LOCAL plan_cache_mode = {mode}")
            explained = [_explained(cursor, statement, parameters) for statement, parameters in sent]
            return [plan for plan in explained if plan]
    finally:
        raw.rollback()
        raw.close()


def _explained(cursor, statement: str, parameters: dict[str, Any]) -> Explained | None:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement).replace("%%", "%")
    values = sql.SQL(", ").join(sql.Literal(parameters[name]) for name in names)
    if statement.startswith("SET"):
        cursor.execute(statement)
        return None
    cursor.execute("DEALLOCATE ALL")
    cursor.execute(f"PREPARE asked AS {numbered}", prepare=False)
    call = sql.SQL("({})").format(values) if names else sql.SQL("")
    cursor.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked") + call, prepare=False)
    [[plans]] = cursor.fetchall()
    return Explained(statement, plans[0]["Plan"])


def pages(node: dict[str, Any]) -> int:
    return node["Shared Hit Blocks"] + node["Shared Read Blocks"]


def rows_read(node: dict[str, Any]) -> float:
    """What a scan looked at, whether or not it passed the filter."""
    return (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]


modes = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])


@modes
def test_claim_probes_the_head_of_its_lane_by_index_beside_seven_other_claimers(crowd, mode):
    lane = crowd.lanes_here()[0]

    with heads_claimed(crowd, lane):
        plans = explain(crowd, lambda session: claim(session, crowd.me, [lane]), mode)

    [probe] = [plan for plan in plans if PROBE in plan.statement]
    [head] = [scan for scan in probe.scans() if scan["Index Name"] == "ix_images_lane_companions"]
    assert head["Node Type"] == "Index Scan"
    assert head["Actual Loops"] == 1
    assert rows_read(head) == CLAIMERS
    assert pages(head) <= 2 * CLAIMERS + 4
    assert sum(rows_read(scan) for scan in probe.scans()) <= CLAIMERS + 1  # and the row that is changed


@modes
def test_claim_as_a_whole_touches_a_few_pages_and_neither_sorts_nor_walks(crowd, mode):
    lane = crowd.lanes_here()[-1]

    plans = explain(crowd, lambda session: claim(session, crowd.me, [lane]), mode)

    kinds = {node["Node Type"] for plan in plans for node in plan.nodes()}
    assert not kinds & {"Seq Scan", "Sort", "Incremental Sort", "Bitmap Heap Scan"}
    assert sum(pages(plan.plan) for plan in plans) <= 60
    assert len(plans) == 1


@modes
def test_snapshot_hops_from_lane_to_lane_and_reads_a_bounded_part_of_each(crowd, mode):
    plans = explain(crowd, snapshot.take, mode)

    [lanes] = [plan for plan in plans if "RECURSIVE" in plan.statement]
    count = lanes.plan["Actual Rows"]
    read = sum(rows_read(scan) for scan in lanes.scans())
    assert count > 3 * crowd.owners
    assert {scan["Index Name"] for scan in lanes.scans()} == {"ix_images_lane_companions"}
    assert not {"Sort", "Incremental Sort"} & {node["Node Type"] for node in lanes.nodes()}
    assert read <= min((snapshot.COUNTED + 1) * count, QUEUED - LANE + snapshot.COUNTED + count)
    assert pages(lanes.plan) <= read + 12 * count
    assert all("Index" in scan["Node Type"] for plan in plans for scan in plan.scans())
    assert len(plans) <= 6  # however many lanes


@modes
def test_claims_of_several_lanes_are_one_statement_and_a_probe_each(crowd, mode):
    lanes = crowd.lanes_here()[:3]

    plans = explain(crowd, lambda session: claim(session, crowd.me, lanes * 2), mode)

    [probe] = [plan for plan in plans if PROBE in plan.statement]
    [head] = [scan for scan in probe.scans() if scan["Index Name"] == "ix_images_lane_companions"]
    assert head["Actual Loops"] == len(lanes)
    assert round(rows_read(head)) == sum(min(2, lane.queued) for lane in lanes)
    assert not {"Seq Scan", "Sort", "Bitmap Heap Scan"} & {node["Node Type"] for node in probe.nodes()}


@modes
def test_the_ends_of_several_images_are_found_by_their_ids(crowd, mode):
    lanes = crowd.lanes_here()[:3]

    def claim_and_finish(session: Session) -> None:
        claims = claim(session, crowd.me, lanes * 2)
        transitions.finish_all(session, [transitions.Stored(ours, 1, gpu_seconds=0.5) for ours in claims])

    [ends] = [plan for plan in explain(crowd, claim_and_finish, mode) if "counted" in plan.statement]
    ended = sum(min(2, lane.queued) for lane in lanes)
    assert round(ends.plan["Actual Rows"]) == ended
    assert {scan["Index Name"] for scan in ends.scans() if scan["Actual Loops"]} == {"pk_images"}
    assert "Seq Scan" not in {scan["Node Type"] for scan in ends.scans()}  # nor as a job ends
    assert round(sum(rows_read(scan) for scan in ends.scans())) == 2 * ended  # to be locked, to be changed


def test_a_worker_that_planned_on_an_empty_farm_reads_no_table_whole(home):
    with fresh_database(home) as url:
        engine = database.connect(url, plans_once=True)
        nobody = Crowd(0, database.sessions(engine), Farmhand(database.sessions(engine)).worker())
        lane = Lane("ann", "c", "default", 6, urgent=False, priority=0, head=1, queued_at=0.0, companions="")

        def claim_and_finish(session: Session) -> None:
            claim(session, nobody.me, [lane])
            transitions.finish_all(session, [])

        plans = explain(nobody, claim_and_finish, "force_generic_plan")
        engine.dispose()
    assert len(plans) == 2
    assert {scan["Node Type"] for plan in plans for scan in plan.scans()} == {"Index Scan", "Index Only Scan"}
    assert "Sort" not in {node["Node Type"] for node in plans[0].nodes()}  # the claim: not the lane, then its first
