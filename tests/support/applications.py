"""The API's application on a database of its own, for tests that ask it over HTTP without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask

from api.app import create_app
from api.services import EXTENSION
from shared import embedded_addresses
from shared.settings import Settings
from tests.conftest import checkpoints_of
from tests.support.databases import empty_database


@contextmanager
def application(home: Path, folder: Path, *, native_size: int = 64, **settings: Any) -> Iterator[Flask]:
    """Yield an application on the servers of `home` whose files lie in `folder`. It has the checkpoint `demo`."""
    with empty_database(home) as database_url:
        made = create_app(
            Settings(
                home=folder / "farm",
                models=folder,
                database_url=database_url.replace("+psycopg", "", 1),
                redis_url=embedded_addresses.redis_url(home),
                **settings,
            )
        )
        checkpoints_of(made.extensions[EXTENSION].sessions)("demo", native_size=native_size)
        yield made
        made.extensions[EXTENSION].close()
