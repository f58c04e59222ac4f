"""What all tests share: real PostgreSQL and Redis, a database of its own for each test, and factories."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from redis import Redis
from sqlalchemy.orm import Session

from shared import addresses, database
from shared.launcher.servers import Servers
from shared.params import RenderParams
from shared.queue import moves
from shared.settings import Settings
from shared.tables import Job, ModelFile
from tests.servers import clean_environment, fresh_database, make_template

hypothesis_settings.register_profile("night", max_examples=2000, deadline=None, print_blob=True)

CheckpointFactory = Callable[..., ModelFile]
JobFactory = Callable[..., Job]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles",
        type=Path,
        default=Path(__file__).parent / "data" / "oracles",
        metavar="FOLDER",
        help="folder of figures that tests/unit/test_oracles.py holds the farm to",
    )


@pytest.fixture(autouse=True, scope="session")
def _own_environment() -> None:
    """Nothing that a person has set for their own farm reaches a test."""
    for name in os.environ.keys() - clean_environment().keys():
        del os.environ[name]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of the servers that this run's tests share, with the template of their databases."""
    folder = tmp_path_factory.mktemp("home")
    with Servers(folder, durable=False):
        make_template(folder)
        yield folder


@pytest.fixture
def database_url(home: Path) -> Iterator[str]:
    """The SQLAlchemy URL of a migrated, empty database of this test's own."""
    with fresh_database(home) as url:
        yield url


@pytest.fixture
def sessions(database_url: str) -> Iterator[database.Sessions]:
    """The factory of sessions on this test's database."""
    engine = database.connect(database_url)
    yield database.sessions(engine)
    engine.dispose()


@pytest.fixture
def redis_url(home: Path) -> str:
    """The URL of an empty Redis."""
    url = addresses.redis_url(home)
    with Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def settings(tmp_path: Path, database_url: str, redis_url: str) -> Settings:
    """Settings of a farm in this test's own folder, on its own database."""
    models = tmp_path / "models"
    models.mkdir()
    return Settings(
        home=tmp_path / "farm",
        models=models,
        database_url=database_url.replace("+psycopg", "", 1),
        redis_url=redis_url,
        port=0,
    )


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    """The environment that gives another process the same settings."""
    given = settings.model_dump(include=settings.model_fields_set)
    return clean_environment() | {f"FARM_{name.upper()}": str(value) for name, value in given.items()}


@pytest.fixture
def checkpoint_factory(sessions: database.Sessions) -> CheckpointFactory:
    """Makes a row of the catalogue; every argument has a default."""
    return checkpoints_of(sessions)


def checkpoints_of(sessions: database.Sessions) -> CheckpointFactory:
    """Return the factory of rows in the catalogue of one database."""
    numbers = count(1)

    def make(name: str = "", **columns: object) -> ModelFile:
        number = next(numbers)
        name = name or f"checkpoint-{number}"
        defaults = {
            "path": f"{name}.safetensors",
            "name": name,
            "kind": "checkpoint",
            "architecture": "sd1",
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
            "size": 1000 + number,
            "mtime_ns": 1,
            "native_size": 512,
            "usable": True,
        }
        row = ModelFile(**(defaults | columns))
        with sessions.begin() as session:
            session.add(row)
        return row

    return make


@pytest.fixture
def job_factory(sessions: database.Sessions) -> JobFactory:
    """Submits a job; `params` override the defaults, `owner`, `checkpoint`, `pool` and the like go to the queue."""

    def make(
        *, owner: str = "local", checkpoint: str = "c" * 64, queue: dict[str, object] | None = None, **params
    ) -> Job:
        defaults = {
            "prompt": "a painting of the sea",
            "checkpoint": f"demo [{checkpoint[:10]}]",
            "width": 64,
            "height": 64,
            "seed": 7,
            "steps": 4,
        }
        complete = RenderParams(**(defaults | params))

        def submit(session: Session) -> Job:
            return moves.submit(session, owner, complete, checkpoint=checkpoint, **(queue or {})).job

        return database.transact(sessions, submit)

    return make
