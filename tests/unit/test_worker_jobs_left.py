"""The jobs that a worker leaves to others."""

from __future__ import annotations

from types import SimpleNamespace

from worker import jobs_left
from worker.jobs_left import JobsLeft


def test_only_so_many_are_remembered_the_latest(monkeypatch):
    monkeypatch.setattr(jobs_left, "MOST", 2)
    known = JobsLeft()
    for job_id, owner in enumerate(["ann", "bob", "cem"]):
        known.add(SimpleNamespace(job_id=job_id, owner=owner, checkpoint="c"), f"mood {job_id}")
    assert known.reasons() == {1: "mood 1", 2: "mood 2"}
    assert known.places() == {("bob", "c"), ("cem", "c")}


def test_a_job_is_left_for_so_many_seconds(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(jobs_left, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    known = JobsLeft(seconds=30)
    known.add(SimpleNamespace(job_id=1, owner="ann", checkpoint="c"), "ink is not here")
    clock[0] += 29
    assert (known.reasons(), known.places()) == ({1: "ink is not here"}, {("ann", "c")})
    clock[0] += 1
    assert (known.reasons(), known.places()) == ({}, set())
