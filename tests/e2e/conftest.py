"""A real browser at a real farm whose worker paints plain pictures; all tests of the pages share them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect
from sqlalchemy import func, select

from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.db import sessions as database
from shared.db.tables import ModelFile
from tests.e2e import browsers
from tests.support.servers import clean_environment, fresh_database
from tests.support.waiting import until
from tests.support.workers import ready, started

KEY = "ann-long-secret"
CHORES = "worker.maintenance.process"
STYLES = """name,prompt,negative_prompt
Oil,"{prompt}, oil on canvas",photo
Night,moonlight,
"""


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A Chromium for all pages; its driver keeps an event loop running, which other tests have no use for."""
    executable = browsers.find_chromium()
    if executable is None:
        message = f"no Chromium on PATH nor in FARM_TEST_BROWSER: {browsers.INSTALL}"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    expect.set_options(timeout=browsers.WITHIN)
    with browsers.opened(executable) as browser:
        yield browser


@pytest.fixture(scope="package")
def farm(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a farm with one key, one checkpoint, one ControlNet, one ready worker, and who does its chores.

    The tests share it.

    It lives beside farms of single tests, so it has a Redis of its own: theirs is emptied, and tickets name no farm.
    """
    folder = tmp_path_factory.mktemp("farm")
    redis = tmp_path_factory.mktemp("redis")
    (folder / "models").mkdir()
    (folder / "models" / "broken.safetensors").touch()  # a scan that finds nothing at all changes nothing
    (folder / "styles.csv").write_text(STYLES)
    with Servers(redis, postgres=False), fresh_database(home) as url:
        environ = clean_environment() | {
            "FARM_HOME": str(folder),
            "FARM_MODELS": str(folder / "models"),
            "FARM_DATABASE_URL": url.replace("+psycopg", "", 1),
            "FARM_REDIS_URL": embedded_addresses.redis_url(redis),
            "FARM_PORT": "0",
            "FARM_STYLES": str(folder / "styles.csv"),
            "FARM_API_KEYS": f"ann:{KEY}",
            "FARM_ADMINS": "ann",
            "FARM_RESCAN_SECONDS": "3600",
        }
        with browsers.served(environ) as address, started(environ, "--card", "cpu:0"), started(environ, module=CHORES):
            _await_worker(url)
            yield address


def _await_worker(url: str) -> None:
    """Wait for a worker that has scanned the models folder, then give it a checkpoint: its card needs no file."""
    engine = database.connect(url)
    sessions = database.sessions(engine)
    _catalogue(sessions, "gone")
    until(lambda: ready(sessions) and not _usable(sessions), 120, "a ready worker that has scanned its models")
    _catalogue(sessions, "demo")
    _catalogue(sessions, "edges", "controlnet")
    engine.dispose()


def _catalogue(sessions: database.Sessions, name: str, kind: str = "checkpoint") -> None:
    known = {"kind": kind, "architecture": "sd1", "native_size": 64, "size": 1, "mtime_ns": 1, "usable": True}
    with sessions.begin() as session:
        session.add(ModelFile(path=f"{name}.safetensors", name=name, sha256=name.encode().hex().zfill(64), **known))


def _usable(sessions: database.Sessions) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(ModelFile).where(ModelFile.usable))


def _sign_in(page: Page) -> None:
    page.get_by_label("Key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture(scope="package")
def signed_in(chromium: Browser, farm: str) -> StorageState:
    """The cookies of a person who has signed in."""
    with chromium.new_context(base_url=farm) as context:
        page = context.new_page()
        page.goto("/")
        _sign_in(page)
        expect(page).to_have_url(f"{farm}/")
        return context.storage_state()


@pytest.fixture
def visit(chromium: Browser, farm: str, signed_in: StorageState) -> Iterator[Callable[..., Page]]:
    """Opens a page of the farm in a browser of its own, signed in, or if that has no cookies by signing in.

    Any complaint in its console fails the test.
    """
    contexts, complaints = [], []

    def open_page(
        path: str = "/", *, cookies: StorageState | None = signed_in, told_of_ends: bool = False, **options: object
    ) -> Page:
        contexts.append(chromium.new_context(base_url=farm, storage_state=cookies, **options))
        if not told_of_ends:  # of jobs of other tests, over what is pressed
            contexts[-1].add_init_script("try { localStorage.setItem('stepfarm.ends', 'off'); } catch {}")
        page = contexts[-1].new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(path)
        if cookies is None:
            _sign_in(page)
        expect(page).to_have_url(f"{farm}{path}")
        page.wait_for_load_state()  # its scripts run
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [one for one in complaints if not one.startswith("Failed to load resource")] == []
