"""Keys of owners, as a test sends them."""

from __future__ import annotations

from collections.abc import Mapping

from shared.accounts import keys
from shared.accounts.principal import LOCAL, Role
from shared.db.sessions import Sessions, transact


def headers_of(sessions: Sessions, roles: Mapping[str, Role]) -> dict[str, dict[str, str]]:
    """Make a key of its role for each owner; return owner -> the headers of a request with it."""
    made = {}
    for owner, role in roles.items():
        wanted = keys.NewKey(owner, role, "of a test")
        key = transact(sessions, lambda session, wanted=wanted: keys.create(session, wanted, LOCAL, others=True)).key
        made[owner] = {"Authorization": f"Bearer {key}"}
    return made
