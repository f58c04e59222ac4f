"""The form's terms: by when the job must start, and what it waits for. Browsers type instants without a zone: in UTC.

A script shows them in the person's own time, and sends them with their zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

from shared.terms import Terms

HELP: Final = {
    "expires_at": "What has not started by then is cancelled (UTC).",
    "hold": "It waits until it is released on its page.",
    "hold_until": "It waits until then, and is queued by itself (UTC).",
    "hold_behind": "Number of a job of yours: it waits until that has ended.",
}
INSTANTS: Final = ("expires_at", "hold_until")


def widget(name: str) -> Literal["instant", "number", "flag"]:
    """Return how a field of the terms is filled in."""
    if name in INSTANTS:
        return "instant"
    return "flag" if Terms.model_fields[name].annotation is bool else "number"


def shown(name: str, given: Mapping[str, str]) -> str:
    """Return what the form shows in a field of the terms: an instant as browsers want it, in UTC."""
    text = given.get(name, "")
    instant = _instant(text) if name in INSTANTS else None
    return f"{instant:%Y-%m-%dT%H:%M}" if instant else text


def read(given: Mapping[str, str]) -> dict[str, object]:
    """Return the terms that were typed as the door takes them; what cannot be read stays, for the door to refuse."""
    asked: dict[str, object] = {"hold": True} if given.get("hold") == "on" else {}
    for name in INSTANTS:
        if text := given.get(name, "").strip():
            instant = _instant(text)
            asked[name] = instant.isoformat() if instant else text
    if behind := given.get("hold_behind", "").strip():
        asked["hold_behind"] = int(behind) if behind.isascii() and behind.isdigit() and len(behind) < 20 else behind
    return asked


def _instant(text: str) -> datetime | None:
    """Return the instant that was typed, meant in UTC where it has no zone; None where it is none."""
    try:
        instant = datetime.fromisoformat(text.strip())
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
