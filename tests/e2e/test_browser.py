"""The pages in a real browser, on a real farm whose worker paints plain pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import func, select

from shared import addresses, database
from shared.tables import ModelFile
from tests.e2e import browsers
from tests.servers import clean_environment, fresh_database
from tests.waiting import until
from tests.workers import ready, started

pytestmark = pytest.mark.browser
KEY = "ann-long-secret"
WITHIN = 30_000  # milliseconds that anything may take on a busy machine


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = browsers.find_chromium()
    if executable is None:
        message = f"no Chromium on PATH nor in FARM_TEST_BROWSER: {browsers.INSTALL}"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    expect.set_options(timeout=WITHIN)
    with browsers.opened(executable) as browser:
        yield browser


@pytest.fixture(scope="module")
def farm(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a farm with one key, one checkpoint and one ready worker; the tests of this file share it."""
    folder = tmp_path_factory.mktemp("farm")
    (folder / "models").mkdir()
    (folder / "models" / "broken.safetensors").touch()  # a scan that finds nothing at all changes nothing
    with fresh_database(home) as url:
        environ = clean_environment() | {
            "FARM_HOME": str(folder),
            "FARM_MODELS": str(folder / "models"),
            "FARM_DATABASE_URL": url.replace("+psycopg", "", 1),
            "FARM_REDIS_URL": addresses.redis_url(home),
            "FARM_PORT": "0",
            "FARM_API_KEYS": f"ann:{KEY}",
            "FARM_RESCAN_SECONDS": "3600",
        }
        with browsers.served(environ) as address, started(environ, "--card", "cpu:0"):
            _await_worker(url)
            yield address


def _await_worker(url: str) -> None:
    """Wait for a worker that has scanned the models folder, then give it a checkpoint: its card needs no file."""
    engine = database.connect(url)
    sessions = database.sessions(engine)
    _catalogue(sessions, "gone")
    until(lambda: ready(sessions) and not _usable(sessions), 60, "a ready worker that has scanned its models")
    _catalogue(sessions, "demo")
    engine.dispose()


def _catalogue(sessions: database.Sessions, name: str) -> None:
    known = {"kind": "checkpoint", "architecture": "sd1", "native_size": 64, "size": 1, "mtime_ns": 1, "usable": True}
    with sessions.begin() as session:
        session.add(ModelFile(path=f"{name}.safetensors", name=name, sha256=name.encode().hex().zfill(64), **known))


def _usable(sessions: database.Sessions) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(ModelFile).where(ModelFile.usable))


@pytest.fixture
def visit(chromium: Browser, farm: str) -> Iterator[Callable[..., Page]]:
    """Opens a page of the farm signed in, in a browser of its own; any complaint in its console fails the test."""
    contexts, complaints = [], []

    def open_page(path: str = "/", **options: object) -> Page:
        contexts.append(chromium.new_context(base_url=farm, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(WITHIN)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(path)
        page.get_by_label("Key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{farm}{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [one for one in complaints if not one.startswith("Failed to load resource")] == []


def fill(page: Page, prompt: str, **fields: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for label, value in {"Steps": "4", **fields}.items():
        page.get_by_label(label, exact=True).fill(value)


def test_person_signs_in_fills_submits_watches_and_sees_the_picture(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit()
    fill(page, f"wait for {gate}", Seed="7")
    page.keyboard.press("Control+Enter")

    expect(page).to_have_url(re.compile(r"/jobs/\d+$"))
    card = page.get_by_role("article", name="Image 0")
    expect(card.get_by_text("all steps done")).to_be_visible()
    expect(card.get_by_role("progressbar")).to_have_js_property("value", 1)
    expect(page.get_by_role("heading", name="wait for")).to_be_visible()

    gate.touch()
    picture = card.get_by_role("img")
    expect(picture).to_have_attribute("src", re.compile(r"/images/0/picture\.png$"))
    expect(picture).to_have_js_property("naturalWidth", 64)
    expect(card.get_by_text("succeeded")).to_be_visible()

    page.get_by_role("link", name="Jobs").click()
    row = page.get_by_role("article").first
    expect(row.get_by_role("link", name="wait for")).to_be_visible()
    expect(row.locator("img")).to_have_js_property("complete", True)


def test_list_and_form_come_alive_as_jobs_end(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit()
    fill(page, f"wait for {gate}", Images="2")
    page.get_by_role("button", name="Render").click()
    expect(page).to_have_url(re.compile(r"/jobs/\d+$"))
    page.goto("/jobs")
    row = page.get_by_role("article").first
    expect(row.get_by_text("0 of 2 done, 2 running")).to_be_visible()
    gate.touch()
    expect(row.get_by_text("2 of 2 done")).to_be_visible()


def test_images_are_cancelled_and_retried_while_one_watches(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit()
    page.route("**/events", lambda route: route.abort())  # past the most streams, or behind a proxy: the page polls
    fill(page, f"wait for {gate}", Images="2")
    page.get_by_role("button", name="Render").click()
    first = page.get_by_role("article", name="Image 0")
    first.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("1 image cancelled")).to_be_visible()
    first.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("1 image back in the queue")).to_be_visible()
    gate.touch()
    expect(page.locator('[data-shows="news"]')).to_have_text("2 of 2 done")


def test_form_helps_and_keeps_what_was_wrong(visit):
    page = visit()
    page.get_by_label("Sampler").select_option("DDIM")
    expect(page.locator("#schedule option[value=karras]")).to_be_disabled()
    fill(page, "<b>bold</b>", Seed="many")
    page.get_by_role("button", name="Render").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("many")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("<b>bold</b>")
    expect(page.locator("#seed-error")).to_be_visible()


def test_pages_work_without_scripts(visit):
    page = visit(java_script_enabled=False)
    fill(page, "a plain page", Seed="9")
    page.get_by_role("button", name="Render").click()
    picture = page.get_by_role("article", name="Image 0").get_by_role("img")
    expect(picture).to_have_attribute(
        "src", re.compile(r"picture\.png$"), timeout=WITHIN
    )  # the page comes again by itself
