"""When trouble kept webhooks from being made, sent or taken, and how much calm there was between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

CALM_SECONDS = 30.0
"""Within this much calm a message arrives, besides the pause of its event. About 5 s are what pauses, the hold of a
killed sender, a restart and the two chores take; the rest is for a machine that does much else."""

START_SECONDS = 10.0
"""For so long after its process was started again a sender counts as away, unless it sends sooner. About one second
is what a start takes on a busy machine. For one that takes longer than this the farm itself is to blame."""


@dataclass
class Span:
    """One disturbance, from just before it began until just after it had ended."""

    what: str
    since: datetime
    until: datetime | None = None  # it lasts


class End(Protocol):
    """Notes the end of a disturbance: at the latest so many seconds from now. The earliest end that is noted counts."""

    def __call__(self, seconds: float = 0.0) -> None: ...


class Troubles:
    """The spans in which a receiver, or what the farm needs to reach it, was away."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def begin(self, what: str) -> End:
        """Note that a disturbance begins; return what notes its end."""
        span = Span(what, datetime.now(UTC))
        self.spans.append(span)

        def end(seconds: float = 0.0) -> None:
            at = datetime.now(UTC) + timedelta(seconds=seconds)
            span.until = min(span.until or at, at)

        return end

    def calms(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, float]]:
        """Yield each time from `since` to `until` in which nothing was in trouble: its begin, and its seconds."""
        for span in sorted(self.spans, key=lambda span: span.since):
            if since < (begun := min(span.since, until)):
                yield since, (begun - since).total_seconds()
            since = max(since, span.until or until)
        if since < until:
            yield since, (until - since).total_seconds()

    def longest_calm(self, since: datetime, until: datetime) -> float:
        """Return for how many seconds at a time, from `since` to `until`, nothing was in trouble."""
        return max((seconds for _, seconds in self.calms(since, until)), default=0.0)
