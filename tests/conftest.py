"""What all tests share: real PostgreSQL and Redis, a database of its own for each test, and factories."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from functools import cache, lru_cache
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
from tests.support.servers import clean_environment, fresh_database, make_template

if TYPE_CHECKING:
    from tests.support.card_ledger import Ledger
    from tests.support.small_checkpoints import Small

IS_XDIST_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # asked now: tests put others in the place of os.environ
hypothesis_settings.register_profile("night", max_examples=2000, deadline=None, print_blob=True)

BUDGET_SECONDS = 15  # of an unmarked test, on a machine that does nothing else
MAY_TAKE_LONGER = (
    "tests/chaos/test_chaos.py",  # the first of twenty plans waits for its lane
    "tests/chaos/test_queue_killed.py",  # 900 images through processes that are killed
    "tests/chaos/test_queue_model.py",  # forty stories of the queue, each on a database
    "tests/chaos/test_recovery.py",  # a farm with the settings that it has in earnest
    "tests/e2e/test_bench_card.py",  # a dozen processes on a pretended card
    "tests/e2e/test_farm_up.py",  # a complete farm
    "tests/e2e/test_kill.py",
    "tests/integration/test_api_fuzzed.py",  # some 1,500 requests
    "tests/integration/test_worker_scanner.py",  # readers of model files that end, each of which imports PyTorch
)

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


def pytest_configure() -> None:
    """Share this machine's cores out among the processes of the run, before any of them imports torch.

    A run that was started in the background ignores Ctrl-C and hang-ups; what the tests start is to know them.
    """
    for number, handler in {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares servers: a file, all tests of the pages; and at the end those that run alone."""
    items.sort(key=is_alone)
    for item in items:
        shared = "pages" if item.get_closest_marker("browser") else item.path.stem
        item.add_marker(pytest.mark.xdist_group("alone" if is_alone(item) else shared))


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def load_per_core() -> float:
    """How many times as long as on an idle machine things take about now."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold the run's lock: shared by tests that bear company, held by one alone that does not."""
    if not hasattr(item.config, "workerinput"):
        return (yield)  # the only process of its run
    with (Path(item.config.option.basetemp).parent / "company").open("a") as company:
        fcntl.flock(company, fcntl.LOCK_EX if is_alone(item) else fcntl.LOCK_SH)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what passes but takes so long that it belongs to the night."""
    report = yield
    budget_seconds = BUDGET_SECONDS * max(1.0, load_per_core())
    is_free = item.get_closest_marker("nightly") or item.nodeid.startswith(MAY_TAKE_LONGER)
    if report.when == "call" and report.passed and call.duration > budget_seconds and not is_free:
        report.outcome = "failed"
        report.longrepr = (
            f"It took {call.duration:.1f} s, and {budget_seconds:.0f} s are what a test may take on a machine as busy "
            "as this. Make it smaller and mark the whole proof nightly, or name it in MAY_TAKE_LONGER in conftest.py."
        )
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Call a test by the name that one can type: xdist writes its group behind it."""
    if not IS_XDIST_WORKER:  # whose reports go by the long name
        report.nodeid = re.sub(r"@[^]@]+$", "", report.nodeid)


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
    given = settings.model_dump(include=settings.model_fields_set)
    return clean_environment() | {f"FARM_{name.upper()}": str(value) for name, value in given.items()}


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

    @lru_cache(2)  # of some 80 MB; a base model and its refiner
    def build(kind: str) -> Small:
        from tests.support import small_checkpoints  # noqa: PLC0415 - diffusers takes seconds

        return small_checkpoints.build(kind)

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
