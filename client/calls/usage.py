"""Usage, and the audit log."""

from __future__ import annotations

from client.declared import call
from client.effects import API, Json, Steps, answered, sent


class Usage:
    """Calls about what was taken and done."""

    @call
    def usage(self, /, **asked: str | None) -> Steps[Json]:
        """Return what images took of the farm; `from` and `to` are days, `owner` is for admins."""
        return answered("GET", f"{API}/usage", params={name: one for name, one in asked.items() if one})

    @call
    def audit(self, /, **asked: str | None) -> Steps[Json]:
        """Return the latest page of who did what, for an admin; by `owner` and `action`, `cursor` and `limit`."""
        return answered("GET", f"{API}/audit", params={name: one for name, one in asked.items() if one})

    @call
    def usage_csv(self, /, **asked: str | None) -> Steps[str]:
        """Return the same as comma-separated values."""
        given = {name: one for name, one in asked.items() if one}
        return (yield from sent("GET", f"{API}/usage.csv", params=given)).content.decode("utf-8-sig")
