"""The keys that open the farm: those of FARM_API_KEYS, and those in SQL as they were at most a second ago."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from threading import Lock
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.accounts import keys, limit_rows
from shared.accounts.configured import Configured
from shared.accounts.keys import Standing
from shared.accounts.limit_rows import LimitRow
from shared.accounts.people import role_of
from shared.accounts.principal import LOCAL, Principal, Role
from shared.db.sessions import Sessions, transact
from shared.db.tables import BrowserSession
from shared.errors import Unavailable

log = structlog.get_logger(__name__)

FRESH_SECONDS: Final = 0.9
"""How long a process keeps to the keys as it has read them: one that is revoked opens nothing a second later."""
_NOTE_SECONDS: Final = 60.0  # between two notes by one process that a key was used, also if the first was not taken


def _principal(settings: Configured, owner: str) -> Principal:
    """Return who asks with a key of FARM_API_KEYS."""
    return Principal(owner, Role.ADMIN if owner in settings.admin_names else Role.USER)


@dataclass(frozen=True)
class _Known:
    """The keys in SQL as they were at `read_at`."""

    read_at: float
    is_any: bool  # one was ever made
    by_digest: Mapping[str, Standing] = field(default_factory=dict)
    by_mark: Mapping[str, Standing] = field(default_factory=dict)
    limits: Mapping[str, LimitRow] = field(default_factory=dict)  # by owner

    @cached_property
    def principals(self) -> frozenset[Principal]:
        """Those whose keys these are."""
        return frozenset(one.who for one in self.by_digest.values())


class Keyring:
    """Says whose key it is. Safe for many threads, which together ask SQL once a second.

    While the database is away the keys stay as they were: nobody's jobs can be read then, whatever the key.
    """

    def __init__(
        self, settings: Configured, sessions: Sessions, secret: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._is_loopback = settings.is_loopback
        self._signs_in = settings.signs_in
        self._of_roles = {role: settings.limits_of(role) for role in Role}
        self._settings = settings
        self._secret = secret.encode()
        self._fixed = {keys.digest(key): _principal(settings, owner) for key, owner in settings.api_keys.items()}
        self._fixed_by_mark = {self.mark(digest): who for digest, who in self._fixed.items()}
        self._sessions = sessions
        self._clock = clock
        self._lock = Lock()
        self._known: _Known | None = None
        self._failed: tuple[float, Unavailable] | None = None
        self._noted: dict[int, float] = {}  # by the keys' ids

    def asks(self) -> bool:
        """True if the farm must know who asks: a key was made, other machines reach it, or people sign in elsewhere.

        Raises Unavailable.
        """
        return not self._is_loopback or self._signs_in or bool(self._fixed) or self._now().is_any

    def is_empty(self) -> bool:
        """True if no key was ever made, and nobody signs in elsewhere. Raises Unavailable."""
        return not self._signs_in and not self._fixed and not self._now().is_any

    @property
    def is_known(self) -> bool:
        """False where only the database could tell whether a key is needed, and it has not answered yet."""
        try:
            self.asks()
        except Unavailable:
            return False
        return True

    @property
    def is_shared(self) -> bool:
        """Whether there are several owners, as far as is known; asks nobody."""
        if self._signs_in:
            return True
        in_sql = self._known.principals if self._known else frozenset()
        return len({who.owner for who in (*self._fixed.values(), *in_sql)}) > 1

    def find(self, digest: str) -> Principal | None:
        """Return whose key has this digest. Raises Unavailable."""
        if who := self._fixed.get(digest):
            return who
        found = self._now().by_digest.get(digest)
        if found is None and self._is_new(digest):
            found = self._now(fresh_seconds=0).by_digest.get(digest)
        return self._used(found) if found else None

    def of_mark(self, mark: str) -> Principal | None:
        """Return whose key a session was begun with, as long as it opens the farm. Raises Unavailable."""
        if who := self._fixed_by_mark.get(mark):
            return who
        found = self._now().by_mark.get(mark)
        return self._used(found) if found else None

    def mark(self, digest: str) -> str:
        """Return what stands for a key in a session: nobody without the farm's secret can try keys against it."""
        return hmac.new(self._secret, f"session {digest}".encode(), sha256).hexdigest()

    def limited(self, who: Principal) -> Principal:
        """Return who asks with the limits that count now: what is known of them is as old as what is of keys."""
        self.refresh()
        row = (self._known.limits if self._known else {}).get(who.owner) or LimitRow(who.owner, {})
        return replace(who, limits=row.over(self._of_roles[who.role]))

    def person(self, session: Session, owner: str) -> Principal:
        """Return an owner who does not ask, in the highest role that keys, a provider or the settings give them.

        Keys and limits are as old as what is known of them, which each request looks at.
        """
        known = self._known
        every = (*self._fixed.values(), *(known.principals if known else ()))
        of_provider = select(BrowserSession.role).where(BrowserSession.owner == owner)
        roles = {*(who.role for who in every if who.owner == owner), *session.scalars(of_provider)}
        role = role_of(self._settings, owner, next((role for role in reversed(Role) if role in roles), None))
        row = (known.limits if known else {}).get(owner) or LimitRow(owner, {})
        limits = replace(row.over(self._of_roles[role]), is_told=True)  # workers hear it from the owner's own requests
        return Principal(owner, role, limits=limits)

    def forget(self) -> None:
        """Read everything again when it is needed next: this process has just changed it."""
        if known := self._known:
            self._known = replace(known, read_at=float("-inf"))

    def still_knows(self, who: Principal) -> bool:
        """False once it is known that the key of `who` opens nothing any more, or that the farm asks for one.

        It asks nobody: see `refresh`.
        """
        known = self._known
        if known is None or (who.key_id is None and who != LOCAL):
            return True
        return not known.is_any if who == LOCAL else who in known.principals

    def refresh(self) -> None:
        """Read the keys again if what is known is too old, as far as the database answers."""
        with suppress(Unavailable):
            self._now()

    def _now(self, fresh_seconds: float = FRESH_SECONDS) -> _Known:
        """Return the keys in SQL, read again if what is known is too old. Raises Unavailable."""
        asked_at = self._clock()
        if (known := self._known) and known.read_at > asked_at - fresh_seconds:
            return known
        with self._lock:
            known = self._known
            if known and known.read_at > asked_at - fresh_seconds:
                return known  # another thread has read it meanwhile
            if known is None and self._failed and self._failed[0] > asked_at - FRESH_SECONDS:
                raise self._failed[1]
            try:
                self._known = transact(self._sessions, partial(self._read, read_at=self._clock(), before=known))
            except Unavailable as error:
                self._failed = (self._clock(), error)
                if known is None:
                    raise
                self._known = replace(known, read_at=self._clock())
            return self._known

    def _read(self, session: Session, read_at: float, before: _Known | None) -> _Known:
        standing = {one.digest: one for one in keys.standing(session)}
        marks = {one.digest: mark for mark, one in before.by_mark.items()} if before else {}
        return _Known(
            read_at,
            bool(standing) or keys.is_any(session),
            standing,
            {marks.get(digest) or self.mark(digest): one for digest, one in standing.items()},
            {row.owner: row for row in limit_rows.every(session)},
        )

    def _is_new(self, digest: str) -> bool:
        """True if a key was made since the keys were read: it opens the farm at once."""
        return transact(self._sessions, partial(keys.opens, digest=digest))

    def _used(self, found: Standing) -> Principal:
        """Write down now and then that a key was used."""
        key_id, now = found.who.key_id, self._clock()
        if key_id is not None and not found.is_noted and self._noted.get(key_id, -_NOTE_SECONDS) <= now - _NOTE_SECONDS:
            self._noted[key_id] = now
            with suppress(Unavailable):
                transact(self._sessions, partial(keys.note_use, key_id=key_id))
        return found.who
