"""What the farm is asked about owners: how much of it they may use, and that everything of one goes."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from client.declared import call
from client.effects import API, Json, Steps, answered


class Owners:
    """Calls about owners."""

    @call
    def limits(self) -> Steps[Json]:
        """Return your limits, with what is used of each and left."""
        return answered("GET", f"{API}/limits")

    @call
    def owners_limits(self) -> Steps[list[Json]]:
        """Return what is set for owners, as an admin."""
        found: list[Json] = (yield from answered("GET", f"{API}/limits/owners"))["owners"]
        return found

    @call
    def set_limits(self, owner: str, limits: Mapping[str, object]) -> Steps[Json]:
        """Set limits of an owner, as an admin, and return what is set now; see docs/accounts.md for their names."""
        return answered("PATCH", f"{API}/limits/owners/{quote(owner, safe='')}", json=dict(limits))

    @call
    def clear_limits(self, owner: str) -> Steps[Json]:
        """Give an owner the limits of the role alone, as an admin."""
        return answered("DELETE", f"{API}/limits/owners/{quote(owner, safe='')}")

    @call
    def wipe_owner(self, owner: str) -> Steps[Json]:
        """Delete everything of an owner, or some of it, as an admin; `left` says how many jobs are left."""
        return answered("DELETE", f"{API}/owners/{quote(owner, safe='')}")
