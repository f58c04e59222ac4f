"""The jobs that a worker leaves to newer ones."""

from __future__ import annotations

from types import SimpleNamespace

from worker.dispatch import unread
from worker.dispatch.unread import Unread


def test_only_so_many_are_remembered_the_latest(monkeypatch):
    monkeypatch.setattr(unread, "MOST", 2)
    known = Unread()
    for job_id, owner in enumerate(["ann", "bob", "cem"]):
        known.note(SimpleNamespace(job_id=job_id, owner=owner, checkpoint="c"), f"mood {job_id}")
    assert known.jobs() == {1: "mood 1", 2: "mood 2"}
    lanes = [SimpleNamespace(owner=owner, checkpoint="c") for owner in ("ann", "cem")]
    assert [known.has_some_of(lane) for lane in lanes] == [False, True]
