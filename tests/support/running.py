"""How the tests are run: who shares a process, who runs alone, what may take how long, and what a test is called.

A plugin of pytest that imports nothing of the farm.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import re
import signal
from collections.abc import Generator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

IS_XDIST_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # asked now: tests put others in the place of os.environ

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


class _Loggers(dict[str, "logging.Logger | logging.PlaceHolder"]):
    """Loggers by name, which pytest walks over before and after each test while threads of others may add some.

    A thread adds some when it is the first to need a module, as the one does that wakes Celery's workers.
    """

    def values(self) -> list[logging.Logger | logging.PlaceHolder]:  # type: ignore[override] - a copy, not a view
        return list(super().values())


def pytest_configure() -> None:
    """Share this machine's cores out among the processes of the run, before any of them imports torch.

    A run that was started in the background ignores Ctrl-C and hang-ups; what the tests start is to know them.
    """
    for number, handler in {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    logging.Logger.manager.loggerDict = _Loggers(logging.Logger.manager.loggerDict)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))


def pytest_collection(session: pytest.Session) -> None:
    """Import the test files of a whole run beginning elsewhere in each of its processes.

    In a fresh clone pytest rewrites each file, which takes twice the time of all else: it finds what another one wrote.
    """
    tests = session.config.rootpath / "tests"
    if not IS_XDIST_WORKER or [Path(given).resolve() for given in session.config.args] != [tests]:
        return
    files = sorted(tests.rglob("test_*.py"))
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    first = len(files) * number // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for file in files[first:] + files[:first]:
        with suppress(Exception, pytest.skip.Exception):  # the collection reports it
            import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares servers: a file, all tests of the pages; and at the end those that run alone."""
    items.sort(key=is_alone)
    for item in items:
        shared = "pages" if item.get_closest_marker("browser") else item.path.stem
        item.add_marker(pytest.mark.xdist_group("alone" if is_alone(item) else shared))


def pytest_collection_finish() -> None:
    """Leave what has been imported and collected out of garbage collections: each would take half a second for it."""
    gc.collect()
    gc.freeze()


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
            "as this. Make it smaller and mark the whole proof nightly, or name it in MAY_TAKE_LONGER of "
            "tests/support/running.py."
        )
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Call a test by the name that one can type: xdist writes its group behind it."""
    if not IS_XDIST_WORKER:  # whose reports go by the long name
        report.nodeid = re.sub(r"@[^]@]+$", "", report.nodeid)
