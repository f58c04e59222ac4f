"""What all tests share: real PostgreSQL and Redis, an empty database for each test, and factories."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings as hypothesis_settings
from redis import Redis
from sqlalchemy.orm import Session

from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.db import farm
from shared.db import sessions as database
from shared.db.farm import FarmId
from shared.db.tables import Job, ModelFile
from shared.models.model_set import ModelSet
from shared.params.render import RenderParams
from shared.queue.submit import submit as submit_job
from shared.settings import Settings
from tests.support.admissions import admission
from tests.support.databases import drop_databases, empty_database
from tests.support.servers import clean_environment, folder_in_memory, make_template
from tests.support.standing_engines import standing_engines

if TYPE_CHECKING:
    from tests.support.card_ledger import Ledger
    from tests.support.small_checkpoints import Small

pytest_plugins = ["tests.support.running"]
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


@pytest.fixture(autouse=True, scope="session")
def _plain_logs() -> None:
    """Tracebacks in logs show no local values: to print those of a render takes half a minute."""
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, console])


@pytest.fixture(autouse=True, scope="session")
def _broken_calls_raise() -> None:
    """A call for many rows that fails is made again in smaller ones for people; tests are to hear of it.

    Workers in processes of their own do as for people: a test that renders with them looks at what they counted.
    """
    if "worker.engine.loop.engine" in sys.modules:
        from worker.engine.loop.engine import Engine  # noqa: PLC0415 - torch, where the tests have it already

        Engine.__init__.__kwdefaults__["halves"] = False


@pytest.fixture(autouse=True, scope="session")
def _statements_are_compiled_once() -> Iterator[None]:
    """A test has database engines of its own, and to compile a statement takes longer than to run it."""
    with standing_engines():
        yield


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of the servers that this run's tests share, with the template of their databases."""
    with folder_in_memory(tmp_path_factory.mktemp("home")) as folder, Servers(folder, durable=False):
        make_template(folder)
        yield folder
        drop_databases(folder)


@pytest.fixture
def database_url(home: Path) -> Iterator[str]:
    """The SQLAlchemy URL of a migrated, empty database of this test's own."""
    with empty_database(home) as url:
        yield url


@pytest.fixture
def sessions(database_url: str) -> Iterator[database.Sessions]:
    """The factory of sessions on this test's database."""
    engine = database.connect(database_url)
    yield database.sessions(engine)
    engine.dispose()


@pytest.fixture
def farm_id(sessions: database.Sessions) -> FarmId:
    """The id of the farm of this test's database; all databases of a run are copies of one, and so is the id."""
    return farm.farm_id(sessions)


@pytest.fixture
def redis_url(home: Path) -> str:
    """The URL of an empty Redis."""
    url = embedded_addresses.redis_url(home)
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
    given = {f"FARM_{name.upper()}": str(getattr(settings, name)) for name in settings.model_fields_set}
    return clean_environment() | given


@pytest.fixture(scope="module")
def pretended() -> Iterator[Ledger]:
    """A pretended CUDA card for the tests of one module: its ledger."""
    from tests.support import pretended_card  # noqa: PLC0415 - torch takes seconds, and most modules need none

    if reason := pretended_card.reason_not_to():
        pytest.skip(reason)
    with pretended_card.installed() as ledger:
        yield ledger


@pytest.fixture(scope="session")
def built_small() -> Callable[[str], Small]:
    """Returns the networks of a small checkpoint, only to be written: both of its forms are built once."""

    def build(kind: str) -> Small:
        from tests.support import small_checkpoints  # noqa: PLC0415 - diffusers takes seconds

        return small_checkpoints.built(kind)

    return build


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory, built_small: Callable[[str], Small]) -> Callable[[str], Path]:
    """Writes a small checkpoint as a single file, once a run; for the kinds see tests.support.small_checkpoints."""
    folder = tmp_path_factory.mktemp("small-files")

    @cache
    def write(kind: str) -> Path:
        from tests.support import small_checkpoints  # noqa: PLC0415 - as above

        return small_checkpoints.write_file(built_small(kind), folder / f"{kind}.safetensors")

    return write


@pytest.fixture(scope="session")
def small_folder(
    tmp_path_factory: pytest.TempPathFactory, built_small: Callable[[str], Small]
) -> Callable[[str], Path]:
    """Writes the same small checkpoint as `small_file`, as a folder of diffusers, once a run."""
    folder = tmp_path_factory.mktemp("small-folders")

    @cache
    def write(kind: str) -> Path:
        from tests.support import small_checkpoints  # noqa: PLC0415 - as above

        return small_checkpoints.write_folder(built_small(kind), folder / kind)

    return write


@pytest.fixture
def checkpoint_factory(sessions: database.Sessions) -> CheckpointFactory:
    """Makes a row of the catalogue; every argument has a default."""
    return checkpoints_of(sessions)


@contextmanager
def catalogue_of_its_own(
    home: Path, database_of: Callable[[Path], AbstractContextManager[str]] = empty_database
) -> Iterator[tuple[database.Sessions, CheckpointFactory]]:
    """Yield a database that no other test uses, and the factory of rows in its catalogue."""
    with database_of(home) as url:
        engine = database.connect(url)
        sessions = database.sessions(engine)
        yield sessions, checkpoints_of(sessions)
        engine.dispose()


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
    """Submits a job; `params` override the defaults, `scheduling` holds fields of `Scheduling`."""

    def make(
        *,
        owner: str = "local",
        checkpoint: str = "c" * 64,
        models: ModelSet | None = None,
        scheduling: dict[str, object] | None = None,
        **params,
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
            files = models or ModelSet(checkpoint=checkpoint)
            return submit_job(session, admission(owner, complete, models=files, **(scheduling or {}))).job

        return database.transact(sessions, submit)

    return make
