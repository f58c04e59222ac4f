"""One call for all threads that ask at the same time, because many questions cost no more than one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(eq=False)
class _Question(Generic[Q, A]):
    """The question of one thread, with its answer."""

    question: Q
    answers: list[A] = field(default_factory=list)  # one, unless there is an error
    error: BaseException | None = None
    woken: Event = field(default_factory=Event)  # it is answered, or it is the next to lead

    @property
    def is_done(self) -> bool:
        return bool(self.answers or self.error)


class Coalescer(Generic[Q, A]):
    """Calls `answer` for many threads, one call at a time. Threads that ask while it runs wait, and are answered by the
    next call, which one of them makes for all. No thread waits so that others can join it.

    `answer` gets the questions in their order and returns an answer to each. An error that it raises is raised in every
    thread, unless `is_of_one` says that a single question may be to blame: then each is asked again by itself.
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
        self._waiting: list[_Question[Q, A]] = []
        self._is_led = False

    def __call__(self, question: Q) -> A:
        """Return the answer to `question`, or raise what `answer` raised."""
        mine: _Question[Q, A] = _Question(question)
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
            questions, self._waiting = self._waiting, []
        self._answer_all(questions)
        for one in questions:
            one.woken.set()
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].woken.set()

    def _answer_all(self, questions: Sequence[_Question[Q, A]]) -> None:
        try:
            answers = self._answer([one.question for one in questions])
            for one, answer in zip(questions, answers, strict=True):
                one.answers.append(answer)
        except BaseException as error:  # noqa: BLE001 - it is raised in the threads that asked
            if len(questions) > 1 and self._is_of_one(error):
                for one in questions:
                    self._answer_all([one])
            for one in questions:
                one.error = None if one.answers else one.error or error
