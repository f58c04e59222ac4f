"""The people of a farm in trouble: they submit, cancel and retry over HTTP, and ask again until they are answered."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from tests.chaos.ground import key_of

PATIENCE_SECONDS = 240  # on a machine that does much else
_AGAIN_SECONDS = 0.1
_AGAIN = {500, 502, 503, 504}


@dataclass
class Asked:
    """A job as it was asked for, and what its owner did with it later."""

    key: str
    owner: str
    body: dict[str, object]
    after: Asked | None = None  # the job that it waits for
    id: int | None = None
    is_refused: bool = False  # it could never start: the job that it was to wait for had not succeeded
    cancels: int = 0
    answers: list[str] = field(default_factory=list)


class People:
    """Everybody who uses the farm; each does one thing at a time, all of them at once."""

    def __init__(self, url: str) -> None:
        self.jobs: list[Asked] = []
        self.troubles: list[str] = []
        self._url = url
        self._pool = ThreadPoolExecutor(12, "people")
        self._doing: list[Future[None]] = []
        self._lock = threading.Lock()

    def submit(self, owner: str, body: dict[str, object], after: Asked | None = None) -> Asked:
        """Submit a job, which waits for the job `after`, once that is known; return what there is to know of it."""
        with self._lock:
            asked = Asked(f"key-{len(self.jobs)}", owner, body, after)
            self.jobs.append(asked)
        self._do(self._submit, asked)
        return asked

    def move(self, verb: str, number: int) -> None:
        """Cancel or retry the job that came as `number`, or one image of it, once it is known."""
        if not self.jobs:
            return
        asked = self.jobs[number % len(self.jobs)]
        index = number % 3 if number % 2 else None
        if verb == "cancel":
            asked.cancels += 1
        self._do(self._move, asked, verb, index)

    def wait(self) -> None:
        """Wait until everybody has an answer; an unexpected answer is a trouble."""
        for doing in self._doing:
            doing.result(2 * PATIENCE_SECONDS)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _do(self, what, *arguments) -> None:
        self._doing.append(self._pool.submit(what, *arguments))

    def _submit(self, asked: Asked) -> None:
        body = asked.body
        if asked.after:
            _until_answered(asked.after)
            body = body | {"after": [asked.after.id]}
        answer = self._ask(asked, "/api/v1/jobs", body, {"Idempotency-Key": asked.key})
        if answer is None:
            return
        if answer.status_code in {200, 202}:
            asked.id = answer.json()["id"]
        elif answer.status_code == 422 and body.get("on") == "success" and "would never start" in answer.text:
            asked.is_refused = True
        else:
            self.troubles.append(f"submission {asked.key}: {answer.status_code} {answer.text}")

    def _move(self, asked: Asked, verb: str, index: int | None) -> None:
        _until_answered(asked)
        if asked.is_refused:
            return
        path = f"/api/v1/jobs/{asked.id}" + ("" if index is None else f"/images/{index}")
        answer = self._ask(asked, f"{path}/{verb}")
        if answer is not None and answer.status_code not in {200, 404, 409}:
            self.troubles.append(f"{verb} of {path}: {answer.status_code} {answer.text}")

    def _ask(self, asked: Asked, path: str, body: object = None, headers: dict[str, str] | None = None):
        """Return the farm's answer, asked for again while it is away."""
        headers = {"Authorization": f"Bearer {key_of(asked.owner)}", **(headers or {})}
        end = time.monotonic() + PATIENCE_SECONDS
        told = "nothing"
        while time.monotonic() < end:
            try:
                answer = httpx.post(f"{self._url}{path}", json=body, headers=headers, timeout=60, trust_env=False)
            except httpx.TransportError as error:
                told = repr(error)
            else:
                told = f"{answer.status_code} {answer.text}"
                if answer.status_code == 500:
                    self.troubles.append(f"POST {path}: {told}")
                if answer.status_code not in _AGAIN:
                    asked.answers.append(told[:200])
                    return answer
            time.sleep(_AGAIN_SECONDS)
        self.troubles.append(f"POST {path}: no answer in {PATIENCE_SECONDS} s; the last: {told}")
        return None


def _until_answered(asked: Asked) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while asked.id is None and not asked.is_refused and time.monotonic() < end:
        time.sleep(_AGAIN_SECONDS)
