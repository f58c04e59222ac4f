"""The form's terms: who renders the job, what it goes before, by when it must start, and what it waits for.

Browsers type instants without a zone: in UTC. A script shows them in the person's own time, and sends them with their
zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

from api.pages.fields import number
from shared.params.scheduling import NO_SCHEDULING, Scheduling

QUEUE: Final = {
    "pool": "Only workers of this pool render it.",
    "priority": "From -100 to 100: higher goes first among your own.",
    "urgent": "It goes before all that is not urgent, whoever that belongs to.",
}
WHEN: Final = {
    "expires_at": "What has not started by then is cancelled (UTC).",
    "hold": "It waits until it is released on its page.",
    "hold_until": "It waits until then, and is queued by itself (UTC).",
    "hold_behind": "Number of a job of yours: it waits until that has ended.",
}
HELP: Final = QUEUE | WHEN
INSTANTS: Final = ("expires_at", "hold_until")
_FLAGS: Final = tuple(name for name in HELP if Scheduling.model_fields[name].annotation is bool)
_NUMBERS: Final = ("priority", "hold_behind")


def widget(name: str) -> Literal["instant", "number", "flag", "text"]:
    """Return how a field of the terms is filled in."""
    if name in INSTANTS:
        return "instant"
    if name in _FLAGS:
        return "flag"
    return "number" if name in _NUMBERS else "text"


def default(name: str) -> str:
    """Return what an empty box of the terms means, as a person would have typed it."""
    return str(getattr(NO_SCHEDULING, name)) if name in ("pool", "priority") else ""


def shown(name: str, given: Mapping[str, str]) -> str:
    """Return what the form shows in a field of the terms: an instant as browsers want it, in UTC."""
    text = given.get(name, "")
    instant = _instant(text) if name in INSTANTS else None
    return f"{instant:%Y-%m-%dT%H:%M}" if instant else text


def read(given: Mapping[str, str]) -> dict[str, object]:
    """Return the terms that were typed as the door takes them; what cannot be read stays, for the door to refuse."""
    typed = {name: given.get(name, "").strip() for name in HELP}
    return {name: _value(name, text) for name, text in typed.items() if text}


def _value(name: str, text: str) -> object:
    if name in _NUMBERS:
        return number(text)
    if name in _FLAGS:
        return text == "on"
    instant = _instant(text) if name in INSTANTS else None
    return instant.isoformat() if instant else text


def _instant(text: str) -> datetime | None:
    """Return the instant that was typed, meant in UTC where it has no zone; None where it is none."""
    try:
        instant = datetime.fromisoformat(text.strip())
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
