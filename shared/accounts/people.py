"""People without a key, who have signed in elsewhere: at a proxy that is trusted, or an OpenID provider."""

from __future__ import annotations

from shared.accounts import keys
from shared.accounts.configured import Configured
from shared.accounts.principal import Principal, Role
from shared.errors import Forbidden


def person(settings: Configured, name: str, role: Role | None = None) -> Principal:
    """Return who asks; without a role theirs is an admin's if FARM_ADMINS names them, else FARM_SIGN_IN_ROLE.

    Raises Forbidden if the name cannot be an owner's.
    """
    owner = name.strip()
    if not keys.is_owner(owner):
        raise Forbidden(f"{name[: keys.LONGEST]!r} cannot be an owner: {keys.OWNERS} are accepted.")
    if owner in settings.admin_names:
        return Principal(owner, Role.ADMIN)
    return Principal(owner, role or Role(settings.sign_in_role))
