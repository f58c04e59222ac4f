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
    return Principal(owner, role_of(settings, owner, role))


def role_of(settings: Configured, owner: str, role: Role | None) -> Role:
    """Return the role of an owner: FARM_ADMINS goes before a role that was given, FARM_SIGN_IN_ROLE stands for none."""
    return Role.ADMIN if owner in settings.admin_names else role or Role(settings.sign_in_role)
