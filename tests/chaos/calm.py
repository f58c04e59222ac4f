"""When trouble kept webhooks from being made, sent or taken, and how much calm there was between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

CALM_SECONDS = 30.0
"""Within this much calm a message arrives, besides the pause of its event. About 5 s are what pauses, the hold of a
killed sender, a restart and the two chores take; the rest is for a machine that does much else."""


@dataclass
class Span:
    """One disturbance, from just before it began until just after it had ended."""

    what: str
    since: datetime
    until: datetime | None = None  # it lasts


class Troubles:
    """The spans in which a receiver, or what the farm needs to reach it, was away."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def begin(self, what: str) -> Callable[[], None]:
        """Note that a disturbance begins; return what notes its end."""
        span = Span(what, datetime.now(UTC))
        self.spans.append(span)

        def end() -> None:
            span.until = span.until or datetime.now(UTC)

        return end

    def longest_calm(self, since: datetime, until: datetime) -> float:
        """Return for how many seconds at a time, from `since` to `until`, nothing was in trouble."""
        longest = 0.0
        for span in sorted(self.spans, key=lambda span: span.since):
            longest = max(longest, (min(span.since, until) - since).total_seconds())
            since = max(since, span.until or until)
        return max(longest, (until - since).total_seconds())
