"""What costs one as much as many, done once for all the threads that ask for it at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(eq=False)
class _Asked(Generic[Q, A]):
    """What one thread waits for."""

    question: Q
    answers: list[A] = field(default_factory=list)  # one, unless there is an error
    error: BaseException | None = None
    woken: Event = field(default_factory=Event)  # it is answered, or it is the next to lead

    @property
    def is_done(self) -> bool:
        return bool(self.answers or self.error)


class Coalesce(Generic[Q, A]):
    """Calls `answer` for many threads, one call at a time: who asks while it runs waits, and is answered together with
    all others who do. One of those who ask makes the call for all; nobody waits for company.

    `answer` gets the questions in their order and returns an answer to each. What it raises is everybody's answer,
    unless `is_of_one` says that a single question may be to blame: then each is asked again by itself.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        *,
        is_of_one: Callable[[BaseException], bool] = lambda _: False,
    ) -> None:
        self._answer = answer
        self._is_of_one = is_of_one
        self._lock = Lock()
        self._waiting: list[_Asked[Q, A]] = []
        self._is_led = False

    def __call__(self, question: Q) -> A:
        """Return the answer to `question`, or raise what `answer` raised."""
        mine: _Asked[Q, A] = _Asked(question)
        with self._lock:
            self._waiting.append(mine)
            leads, self._is_led = not self._is_led, True
        if not leads:
            mine.woken.wait()
        if not mine.is_done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.answers[0]

    def _lead(self) -> None:
        with self._lock:
            asked, self._waiting = self._waiting, []
        self._settle(asked)
        for one in asked:
            one.woken.set()
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].woken.set()

    def _settle(self, asked: Sequence[_Asked[Q, A]]) -> None:
        try:
            answers = self._answer([one.question for one in asked])
            for one, answer in zip(asked, answers, strict=True):
                one.answers.append(answer)
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            if len(asked) > 1 and self._is_of_one(error):
                for one in asked:
                    self._settle([one])
            for one in asked:
                one.error = None if one.answers else one.error or error
