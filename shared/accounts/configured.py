"""The part of the settings that accounts read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from shared.accounts.limits import OwnerLimits


class Configured(Protocol):
    """How a farm is set up for accounts; `shared.settings.Settings` is one. It reads limits, so it stands above."""

    @property
    def api_keys(self) -> Mapping[str, str]:
        """Key -> owner."""

    @property
    def admin_names(self) -> Collection[str]:
        """Owners who are admins wherever no key says what they are."""

    @property
    def sign_in_role(self) -> str:
        """The role of people who sign in elsewhere."""

    @property
    def signs_in(self) -> bool:
        """Whether somebody else than the farm signs people in."""

    @property
    def is_loopback(self) -> bool:
        """Whether the farm listens on loopback alone."""

    def limits_of(self, role: str) -> OwnerLimits:
        """Return the limits of each owner in a role."""
