"""Running one plan: the farm starts, trouble comes as planned, all is mended, the farm settles, and is looked at."""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path

from sqlalchemy import func, select

from shared.db.states import ImageState
from shared.db.tables import History, Image
from shared.queue.history import Event
from tests.chaos import invariants, messages
from tests.chaos.farm import Farm, Killed, calm_job, farm, wait
from tests.chaos.ground import Ground
from tests.chaos.plans import OWNERS, Action, Plan

SETTLE_SECONDS = 240  # on a machine that does much else
_TURN_SECONDS = 0.05


@dataclass
class Report:
    """What a plan did to a farm, and what was wrong afterwards."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    hits: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)  # of images
    restarts: dict[bool, list[float]] = field(default_factory=dict)  # supervised -> seconds without a worker
    messages: int = 0  # of webhooks
    arrivals: list[float] = field(default_factory=list)  # seconds from the receiver's return until each arrived
    calms: list[float] = field(default_factory=list)  # the longest calm, in seconds, before each message arrived
    seconds: float = 0.0

    def __str__(self) -> str:
        return "\n".join([str(self.plan), *(f"  PROBLEM: {problem}" for problem in self.problems)])


def run(plan: Plan, ground: Ground, fault: str = "") -> Report:
    """Run `plan`, whose processes may have a fault of `faults`, and return what came of it."""
    started = time.monotonic()
    report = Report(plan)
    folder = Path(tempfile.mkdtemp(prefix=f"plan-{plan.seed}-", dir=ground.folder))
    with farm(plan, ground, folder, fault) as troubled:
        _act(troubled, plan.actions)
        troubled.mend()
        troubled.people.submit(OWNERS[0], calm_job())
        settled = wait(lambda: _settled(troubled), SETTLE_SECONDS, every=0.3) and _passed(troubled)
        if not settled:
            report.problems += [f"not settled in {SETTLE_SECONDS} s: {what}" for what in invariants.unsettled(troubled)]
        troubled.people.wait()
        report.problems += troubled.people.troubles + (invariants.problems(troubled) if settled else [])
        report.hits = troubled.points.hits()
        report.restarts, report.states = _restarts(troubled), _states(troubled)
        _count_arrivals(troubled, report)
    if plan.point not in report.hits:
        report.problems.append(f"nobody passed the crash point {plan.point}")
    report.seconds = time.monotonic() - started
    return report


def _passed(troubled: Farm) -> bool:
    """Provoke the plan's crash point until a process passes it, and let the farm settle again; False if it does not."""
    for _ in range(3):
        if troubled.plan.point in troubled.points.hits():
            break
        wait(troubled.ready, SETTLE_SECONDS)
        troubled.provoke()
        if not wait(lambda: _settled(troubled), SETTLE_SECONDS, every=0.3):
            return False
    return True


def _act(troubled: Farm, actions: Sequence[Action]) -> None:
    """Do all actions at their times, and end each after its own."""
    start, order = time.monotonic(), count()
    due: list[tuple[float, int, Callable[[], object]]] = []

    def begin(action: Action) -> None:
        end = troubled.do(action)
        if end is not None:
            heapq.heappush(due, (time.monotonic() - start + action.seconds, next(order), end))

    for action in actions:
        heapq.heappush(due, (action.at, next(order), lambda action=action: begin(action)))
    while due:
        while due and due[0][0] <= time.monotonic() - start:
            heapq.heappop(due)[2]()
        troubled.tend()
        time.sleep(_TURN_SECONDS)


def _settled(troubled: Farm) -> bool:
    troubled.tend()
    return not invariants.unsettled(troubled)


def _restarts(troubled: Farm) -> dict[bool, list[float]]:
    """Return for each image of a worker that we killed how long it was until another claim had it."""
    found: dict[bool, list[float]] = {True: [], False: []}
    with troubled.sessions() as session:
        lines = list(session.scalars(select(History).where(History.image_id.is_not(None)).order_by(History.id)))
    for killed in troubled.killed:
        given = [line for line in lines if line.event == Event.GIVEN_BACK and line.worker == killed.name]
        for line in given:
            claims = [other for other in lines if other.image_id == line.image_id and other.event == Event.CLAIMED]
            held = [claim for claim in claims if claim.attempt == line.attempt]
            again = [claim for claim in claims if claim.attempt == (line.attempt or 0) + 1]
            if again and held and held[0].at < killed.at <= line.at and not _killed_between(troubled, killed, line.at):
                found[killed.is_supervised].append((again[0].at - killed.at).total_seconds())
    return found


def _killed_between(troubled: Farm, killed: Killed, until: datetime) -> bool:
    """True if the same worker was killed once more before `until`: that kill is the one to count."""
    return any(other.name == killed.name and killed.at < other.at < until for other in troubled.killed)


def _count_arrivals(troubled: Farm, report: Report) -> None:
    """Note how many messages arrived, after how much calm, and how long after its return those that were held up."""
    with troubled.sessions() as session:
        found = [(one.event.at, one.at) for one in messages.arrivals(session, troubled.receiver.receiver) if one.at]
    back_at = troubled.receiver.back_at
    report.messages = len(found)
    report.arrivals = [(at - back_at).total_seconds() for ended_at, at in found if ended_at < back_at < at]
    report.calms = [troubled.troubles.longest_calm(ended_at, at) for ended_at, at in found]


def _states(troubled: Farm) -> dict[str, int]:
    with troubled.sessions() as session, suppress(ValueError):
        return {
            str(ImageState(state)): number
            for state, number in session.execute(select(Image.state, func.count()).group_by(Image.state))
        }
    return {}
