"""A farm that renders at once, and the clients that ask it through a recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.environments import Client
from tests.support.painting import painting
from tests.support.recorder import Recorded, recorder
from tests.support.serving import serving

KEY = "anns-long-key"


@pytest.fixture
def farm(settings, environ, sessions, checkpoint_factory) -> Iterator[Recorded]:
    """A served farm with the key KEY, the checkpoint `demo` and a worker."""
    checkpoint_factory("demo", native_size=64)
    with serving(settings, environ | {"FARM_API_KEYS": f"ann:{KEY}"}) as one, painting(settings, sessions):
        httpx.get(f"{one.url}/livez", timeout=30)
        with recorder(one.url) as recorded:
            yield recorded


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Client]:
    """Returns the newest version of a client by its package."""
    folder: Path = tmp_path_factory.mktemp("clients")
    return lambda package: Client(package, folder)
