"""The statements that a database is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from shared.db.sessions import Sessions


@contextmanager
def statements(sessions: Sessions) -> Iterator[list[str]]:
    """Collect the statements that are sent within the block."""
    sent: list[str] = []
    engine = sessions.kw["bind"]

    def note(connection, cursor, statement, *_):
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)
