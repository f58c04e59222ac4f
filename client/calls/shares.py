"""Share links: what people without a key may look at."""

from __future__ import annotations

from client.declared import call
from client.effects import API, Json, Steps, answered, done


class Shares:
    """Calls about your share links."""

    @call
    def shares(self) -> Steps[list[Json]]:
        """Return your share links that have not ended, the latest first."""
        found: list[Json] = (yield from answered("GET", f"{API}/shares"))["shares"]
        return found

    @call
    def share(self, job_id: int, index: int | None = None, *, days: int | None = None) -> Steps[Json]:
        """Make a link to all pictures of a job, or to one, for so many days; the answer has the `link`, this once."""
        wanted = {"job": job_id, "index": index, "days": days}
        return answered("POST", f"{API}/shares", json={name: one for name, one in wanted.items() if one is not None})

    @call
    def revoke_share(self, share_id: int) -> Steps[None]:
        """Revoke a link: it leads nowhere from now on."""
        return done("DELETE", f"{API}/shares/{share_id}")
