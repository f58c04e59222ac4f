"""The caller of a use case: an owner in a role, and how far that lets them reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from shared.accounts.limits import NO_LIMITS, OwnerLimits
from shared.accounts.scope import EVERYBODYS, Scope
from shared.errors import Forbidden

EVERYBODY: Final = "*"
"""The name by which an admin asks for what everybody has; no owner can have it."""


class Role(StrEnum):
    """What a key is good for; each role may do what the ones before it may."""

    VIEWER = "viewer"
    """Looks at its owner's jobs and pictures, and changes nothing."""
    USER = "user"
    """Submits jobs, and does with them and their pictures what it likes."""
    OPERATOR = "operator"
    """Runs the farm: its workers, and everybody's place in the queue, without seeing what others render."""
    ADMIN = "admin"
    """Sees and changes everything, and hands out keys."""

    def includes(self, other: Role) -> bool:
        """True if who has this role may do what the other one may."""
        return _RANKS[self] >= _RANKS[other]


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True)
class Principal:
    """The caller of a use case."""

    owner: str
    role: Role
    key_id: int | None = None  # of a key in SQL
    limits: OwnerLimits = field(default=NO_LIMITS, compare=False)  # as they are set now
    is_unasked: bool = False  # the farm asks nobody who they are
    session: str | None = field(default=None, compare=False, repr=False)  # of a browser: its digest

    @property
    def own(self) -> Scope:
        """The owner's jobs and pictures alone: what lists show that name nobody."""
        return Scope(self.owner)

    def names(self, owner: str | None) -> Scope:
        """Return whose things a list shows that names an owner, or everybody; of nobody: one's own. Raises Forbidden.

        Only an admin names others.
        """
        if owner is None or owner == self.owner:
            return self.own
        if self.role != Role.ADMIN:
            raise Forbidden("Only an admin sees what others have.")
        return EVERYBODYS if owner == EVERYBODY else Scope(owner)

    @property
    def scope(self) -> Scope:
        """The jobs and pictures that this principal may name."""
        return EVERYBODYS if self.role == Role.ADMIN else self.own


LOCAL: Final = Principal("local", Role.ADMIN, is_unasked=True)
"""The one person of a farm without keys. Where it asks for keys, somebody else may be called so."""
