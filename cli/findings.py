"""What a check of `farm doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One check's outcome: `fine`, `note` (nothing is wrong, but worth knowing) or `bad`, and what to do about it."""

    level: Literal["fine", "note", "bad"]
    text: str
    advice: str = ""


def fine(text: str) -> Finding:
    """Return a finding of level `fine`."""
    return Finding("fine", text)


def remark(text: str, advice: str = "") -> Finding:
    """Return a finding of level `note`."""
    return Finding("note", text, advice)


def bad(text: str, advice: str) -> Finding:
    """Return a finding of level `bad`, with what to do about it."""
    return Finding("bad", text, advice)
