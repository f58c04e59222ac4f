"""What the queue should be: a model without SQL, of which each move takes a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from shared.db.states import ImageState, JobState

When = Literal["past", "future"]
POISON = 3
HELD, QUEUED, RUNNING = ImageState.HELD, ImageState.QUEUED, ImageState.RUNNING
SUCCEEDED, FAILED, CANCELLED = ImageState.SUCCEEDED, ImageState.FAILED, ImageState.CANCELLED


@dataclass
class Picture:
    """One image, with what decides over it."""

    job: int
    owner: str
    priority: int
    state: ImageState
    attempt: int = 0
    strikes: int = 0
    worker: int | None = None
    has_started: bool = False  # since it was queued
    expires: When | None = None
    held_until: When | None = None
    held_behind: int | None = None

    def end(self, state: ImageState) -> None:
        self.state, self.worker = state, None
        if state == CANCELLED:
            self.held_until = self.held_behind = None

    def queue(self) -> None:
        """As one that has not waited yet."""
        self.state, self.worker, self.has_started = QUEUED, None, False
        self.held_until = self.held_behind = None

    def give_back(self, strike: int = 0) -> None:
        self.state, self.worker, self.strikes = QUEUED, None, self.strikes + strike
        if self.strikes >= POISON:
            self.end(FAILED)

    @property
    def missed_its_deadline(self) -> bool:
        return self.expires == "past" and not self.has_started


@dataclass
class Model:
    """All images by id, the jobs that there are, and the workers by id with whether their lease has run out."""

    pictures: dict[int, Picture] = field(default_factory=dict)
    jobs: set[int] = field(default_factory=set)
    workers: dict[int, bool] = field(default_factory=dict)

    most: dict[str, int | None] = field(default_factory=dict)  # by owner: images that may run at once

    def copy(self) -> Model:
        return deepcopy(self)

    def of_job(self, job: int, index: int | None = None) -> dict[int, Picture]:
        found = {number: picture for number, picture in sorted(self.pictures.items()) if picture.job == job}
        return found if index is None else dict(list(found.items())[index : index + 1])

    def of_worker(self, worker: int) -> dict[int, Picture]:
        return {number: picture for number, picture in self.pictures.items() if picture.worker == worker}

    def unfinished(self, job: int) -> int:
        return sum(not picture.state.is_final for picture in self.of_job(job).values())

    def counts(self, job: int) -> tuple[int, int, int]:
        """Return how many images of a job have not ended, how many have failed and how many were cancelled."""
        ended = Counter(picture.state for picture in self.of_job(job).values())
        return self.unfinished(job), ended[FAILED], ended[CANCELLED]

    def state(self, job: int) -> JobState:
        states = {picture.state for picture in self.of_job(job).values()}
        if any(not state.is_final for state in states):
            return JobState.OPEN
        return next((JobState(state) for state in (FAILED, CANCELLED) if state in states), JobState.SUCCEEDED)

    def claimable(self, owner: str, worker: int) -> list[int]:
        """Return what the worker may claim for an owner, the best first."""
        if worker not in self.workers:
            return []
        has_a_struck_one = any(picture.strikes for picture in self.of_worker(worker).values())
        able = {
            number: picture
            for number, picture in self.pictures.items()
            if picture.owner == owner
            and picture.state == QUEUED
            and not picture.missed_its_deadline
            and not (picture.strikes and has_a_struck_one)
        }
        return sorted(able, key=lambda number: (-able[number].priority, number))

    def served(self) -> set[str]:
        """Return the owners who wait and may have one more image running."""
        running = Counter(picture.owner for picture in self.pictures.values() if picture.state == RUNNING)
        waiting = {picture.owner for picture in self.pictures.values() if picture.state == QUEUED}
        most = {owner: self.most.get(owner) for owner in waiting}
        return {owner for owner in waiting if most[owner] is None or running[owner] < most[owner]}

    def give_back(self, workers: Iterable[int], strike: int = 0) -> int:
        """Remove workers; return how many of their images are queued again."""
        queued = 0
        for worker in workers:
            for picture in self.of_worker(worker).values():
                picture.give_back(strike)
                queued += picture.state == QUEUED
            del self.workers[worker]
        return queued

    def settle(self) -> tuple[int, int]:
        """Cancel what missed its deadline, queue what is due; return how many of each."""
        open_jobs = {job for job in self.jobs if self.unfinished(job)}
        missed = self._each(lambda one: one.state in {HELD, QUEUED} and one.missed_its_deadline)
        for picture in missed:
            picture.end(CANCELLED)
        due = self._each(lambda one: one.state == HELD and one.held_until == "past")
        due += self._each(
            lambda one: one.state == HELD and one.held_behind is not None and one.held_behind not in open_jobs
        )
        for picture in due:
            picture.queue()
        return len(missed), len(due)

    def _each(self, is_meant: Callable[[Picture], bool]) -> list[Picture]:
        return [picture for picture in self.pictures.values() if is_meant(picture)]
