"""What many plans came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.plans import Kind
from tests.chaos.points import POINTS
from tests.chaos.run import Report

_TROUBLE = [kind for kind in Kind if kind not in {Kind.SUBMIT, Kind.CANCEL, Kind.RETRY, Kind.CRASH}]


@dataclass
class Summary:
    """Counts over all plans that ran."""

    plans: int = 0
    failed: list[int] = field(default_factory=list)  # seeds
    images: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    restarts: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    messages: int = 0
    arrivals: list[float] = field(default_factory=list)
    calms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, report: Report) -> None:
        self.plans += 1
        self.failed += [report.plan.seed] if report.problems else []
        self.images.update(report.states)
        self.hits.update(report.hits.keys())
        self.troubles.update(str(action.kind) for action in report.plan.actions if action.kind in _TROUBLE)
        self.messages += report.messages
        self.arrivals += report.arrivals
        self.calms += report.calms
        self.seconds += report.seconds
        for is_supervised, seconds in report.restarts.items():
            self.restarts[is_supervised] += seconds

    def line(self) -> str:
        """Return the state of things, for a progress line."""
        return f"{self.images.total()} images, {self.hits.total()} crash points, {len(self.failed)} failed"

    def text(self) -> str:
        """Return everything, for the end."""
        lines = [
            f"{self.plans} plans in {self.seconds:.0f} s, {len(self.failed)} with problems",
            f"images: {_told(self.images)}",
            f"troubles: {_told(self.troubles)}",
            f"crash points: {_told(self.hits)}",
            f"never hit: {', '.join(sorted(POINTS - self.hits.keys())) or 'none'}",
            f"a killed worker's images run again, supervised: {_percentiles(self.restarts[True])}",
            f"a killed worker's images run again, alone: {_percentiles(self.restarts[False])}",
            f"webhooks: {self.messages} messages",
            f"those that waited for their receiver, after it was back: {_percentiles(self.arrivals, 'messages')}",
            f"the longest calm that any of them needed: {_percentiles(self.calms, 'messages')}",
        ]
        lines += [f"replay: make chaos PLANS=1 SEED={seed}" for seed in self.failed]
        return "\n".join(lines)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def _percentiles(seconds: Sequence[float], of: str = "images") -> str:
    if not seconds:
        return f"no {of}"
    ordered = sorted(seconds)
    at = {share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99)}
    return f"p50 {at[0.5]:.1f} s, p99 {at[0.99]:.1f} s, most {ordered[-1]:.1f} s, of {len(ordered)} {of}"
