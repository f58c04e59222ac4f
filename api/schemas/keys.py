"""Bodies of keys."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field

from shared.accounts.keys import LONGEST, MOST_DAYS, KeyView, Made
from shared.accounts.principal import Role


class NewKeyBody(BaseModel):
    """A key to be made."""

    name: Annotated[str, Field(min_length=1, max_length=LONGEST, description="What it is for, such as `laptop`.")]
    owner: Annotated[str, Field(min_length=1, max_length=LONGEST)] | None = Field(
        None, description="Whose it is to be; only an admin names somebody else."
    )
    role: Role | None = Field(None, description="What it may do; at most what your own key may. Without it: user.")
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] | None = Field(
        None, description="For how long it opens the farm; without it until it is revoked."
    )


class KeyBody(BaseModel):
    """A key as it can be seen again."""

    id: int
    owner: str
    role: str = Field(description="viewer, user, operator or admin.")
    name: str
    created_at: datetime
    created_by: str = Field(description="The owner who made it, or `farm keys`.")
    used_at: datetime | None = Field(description="When it was used last, to some minutes.")
    expires_at: datetime | None
    revoked_at: datetime | None
    opens: bool = Field(description="Whether it opens the farm now.")

    @classmethod
    def of(cls, view: KeyView) -> Self:
        """Return the body of a key."""
        return cls(**asdict(view))


class KeysBody(BaseModel):
    """Keys, those that open the farm first."""

    keys: list[KeyBody]


class MadeKeyBody(KeyBody):
    """A key that was just made."""

    key: str = Field(description="The key itself. Nobody can show it again.")

    @classmethod
    def made(cls, made: Made) -> Self:
        """Return the body of a key with the key itself."""
        return cls(**asdict(made.view), key=made.key)
