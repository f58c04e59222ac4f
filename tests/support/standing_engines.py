"""What the database engines of a run share: the statements that were compiled, and what a database answers first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.util import LRUCache

_STATEMENTS = 500  # as many as one engine keeps: with more, a garbage collection would hold up tests that measure time


@contextmanager
def standing_engines() -> Iterator[None]:
    """Have each engine of the farm find what others have compiled, and asked of its database.

    A statement is compiled for a dialect, and those of all engines are set up alike: they count as one.
    """
    compiled: LRUCache[Any, Any] = LRUCache(_STATEMENTS)
    initialize = PGDialect_psycopg.initialize
    answers: dict[URL, dict[str, object]] = {}

    def create(*given: Any, **options: Any) -> Engine:
        engine = create_engine(*given, **options)
        engine._compiled_cache = compiled
        return engine

    def ask_once(dialect: PGDialect_psycopg, connection: Connection) -> None:
        url = connection.engine.url
        if url not in answers:
            before = dict(vars(dialect))
            initialize(dialect, connection)
            answers[url] = {name: value for name, value in vars(dialect).items() if before.get(name) is not value}
        vars(dialect).update(answers[url])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.db.sessions.create_engine", create)
        patch.setattr(PGDialect_psycopg, "initialize", ask_once)
        patch.setattr(PGDialect_psycopg, "__eq__", lambda one, other: type(one) is type(other))
        patch.setattr(PGDialect_psycopg, "__hash__", lambda dialect: hash(type(dialect)))
        yield
