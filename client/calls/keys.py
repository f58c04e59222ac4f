"""Keys: what opens the farm to a person or a program."""

from __future__ import annotations

from client.declared import call
from client.effects import API, Json, Steps, answered


class Keys:
    """Calls about keys."""

    @call
    def keys(self, *, everybodys: bool = False) -> Steps[list[Json]]:
        """Return your keys, or, for an admin, everybody's."""
        which = {"all": "true"} if everybodys else {}
        found: list[Json] = (yield from answered("GET", f"{API}/keys", params=which))["keys"]
        return found

    @call
    def create_key(self, /, **wanted: object) -> Steps[Json]:
        """Make a key; the answer alone holds it. See docs/accounts.md for `name`, `owner`, `role` and `days`."""
        return answered("POST", f"{API}/keys", json={name: one for name, one in wanted.items() if one is not None})

    @call
    def revoke_key(self, key_id: int) -> Steps[Json]:
        """Revoke a key, and return it as it is now."""
        return answered("DELETE", f"{API}/keys/{key_id}")
