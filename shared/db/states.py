"""The states of images, jobs and workers. Only `shared/queue/` changes them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self

UNKNOWN: Final = "unknown"


class _State(StrEnum):
    """A state in a row. A state that only a newer version knows reads as `UNKNOWN`, which is not a member: it is never
    stored, counted by name or offered.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        strange = str.__new__(cls, UNKNOWN)
        strange._name_, strange._value_ = "UNKNOWN", UNKNOWN
        return strange


class ImageState(_State):
    """The state of an image."""

    HELD = "held"  # not claimable yet: by hand, until a time, or behind another job
    QUEUED = "queued"  # claimable now
    RUNNING = "running"  # a worker renders it
    SUCCEEDED = "succeeded"  # its picture is committed
    FAILED = "failed"  # ended with a reason
    CANCELLED = "cancelled"  # ended on request, or not started by its deadline

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({ImageState.SUCCEEDED, ImageState.FAILED, ImageState.CANCELLED})


class JobState(_State):
    """The state of a job: open until its last image ends."""

    OPEN = "open"
    SUCCEEDED = "succeeded"  # every image succeeded
    FAILED = "failed"  # at least one image failed
    CANCELLED = "cancelled"  # none failed, at least one was cancelled


class WorkerState(_State):
    """The state that a worker reports with each heartbeat."""

    STARTING = "starting"  # registered; torch and the card are not up yet
    READY = "ready"  # takes tickets
    DRAINED = "drained"  # finishes what it has, takes nothing new until it is resumed
    DRAINING = "draining"  # finishes what it has, takes nothing new, and ends
