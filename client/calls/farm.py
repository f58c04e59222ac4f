"""The farm itself: its models, its workers, its queue."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from client.declared import call, listing
from client.effects import API, Item, Items, Json, Steps, answered, done

MOST_FILES: Final = 1000  # on a page of model files


class Farm:
    """Calls about what the farm has, and for those who run it."""

    @call
    def catalogue(self, kind: str, /, **filters: str | None) -> Steps[Json]:
        """Return what the farm knows of `kind`: checkpoints, vaes, decoders, samplers, schedules, workers or chores.

        Checkpoints can be filtered by `architecture` and `prediction`; `models` yields files of all kinds.
        """
        return _catalogue(kind, filters)

    @listing
    def models(self, /, **filters: str | None) -> Items[Json]:
        """Yield the model files of the farm, page by page; by `kind`, `architecture`, `prediction` and `search`."""
        cursor = None
        while True:
            page = yield from _catalogue("models", {"cursor": cursor, "limit": str(MOST_FILES), **filters})
            for file in page["models"]:
                yield Item(file)
            if page["next"] is None:
                return
            cursor = str(page["next"])

    @call
    def rescan(self) -> Steps[None]:
        """Have the workers look into the models folder now; the catalogue follows within seconds."""
        return done("POST", f"{API}/checkpoints/rescan", repeats=True)

    @call
    def queue(self, cursor: int | None = None, limit: int = 50) -> Steps[Json]:
        """Return a page of everybody's jobs that have not ended, without what they render; for operators."""
        which = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        return answered("GET", f"{API}/queue", params=which)

    @call
    def drain(self, wanted: str, reason: str) -> Steps[Json]:
        """Have the workers of a name or pattern take nothing new; an empty reason says nothing."""
        said = {"reason": reason} if reason else {}
        return answered("POST", f"{API}/workers/{quote(wanted)}/drain", repeats=True, params=said)

    @call
    def resume(self, wanted: str) -> Steps[Json]:
        """Let the workers of a name or pattern take images again."""
        return answered("POST", f"{API}/workers/{quote(wanted)}/resume", repeats=True)


def _catalogue(kind: str, filters: dict[str, str | None]) -> Steps[Json]:
    wanted = {name: value for name, value in filters.items() if value}
    return answered("GET", f"{API}/{kind}", params=wanted)
