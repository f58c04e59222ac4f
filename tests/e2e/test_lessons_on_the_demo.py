"""The six experiments on a real farm with the demo's checkpoints, from the page of lessons to their finished sheets."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from shared.jobs.lessons import LESSONS
from tests.e2e import browsers, farms
from tests.support.servers import clean_environment

pytestmark = [pytest.mark.browser, pytest.mark.nightly, pytest.mark.timeout(1800)]
MOST_CLICKS = 15
SHEET_MILLISECONDS = 600_000  # in which twenty pictures of up to a hundred steps are rendered on a busy machine
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
LOOKS: tuple[tuple[str, Literal["dark", "light"], str], ...] = (  # the first four hold every pair
    ("phone", "dark", "zh-CN"),
    ("phone", "light", "en-US"),
    ("desktop", "light", "zh-CN"),
    ("desktop", "dark", "en-US"),
    ("phone", "light", "zh-CN"),
    ("desktop", "dark", "zh-CN"),
)
COUNT_CLICKS = """
    globalThis.clicks = 0;
    addEventListener("click", (event) => { if (event.isTrusted) clicks += 1; }, true);
"""


def test_each_experiment_comes_to_its_sheet_without_a_page_load(chromium: Browser, tmp_path: Path):
    environ = clean_environment() | {"FARM_HOME": str(tmp_path), "FARM_PORT": "0", "FARM_GPUS": "cpu"}
    with farms.up(environ) as farm, ExitStack() as contexts:
        pages, loads = [], list[str]()
        for lesson, (size, scheme, locale) in zip(LESSONS, LOOKS, strict=True):
            context = chromium.new_context(
                base_url=farm.url, viewport=SIZES[size], color_scheme=scheme, locale=locale, has_touch=size == "phone"
            )
            contexts.enter_context(context)
            page = context.new_page()
            page.add_init_script(COUNT_CLICKS)
            page.goto("/lessons")
            while page.locator(run("checkpoints")).is_disabled():  # until both are found
                page.wait_for_timeout(1000)
                page.reload()
            page.on("framenavigated", lambda frame: loads.append(frame.url))
            page.locator(run(lesson.name)).click()
            expect(page.locator(f"#{lesson.name} table")).to_be_visible(timeout=browsers.WITHIN)
            assert page.locator("html").get_attribute("lang") == locale[:2]
            pages.append(page)
        for lesson, page in zip(LESSONS, pages, strict=True):
            sheet = page.locator(f"#{lesson.name} a[href$='/sheet.png']")
            expect(sheet).to_be_visible(timeout=SHEET_MILLISECONDS)
            cells = page.locator(f"#{lesson.name} td.cell")
            expect(page.locator(f"#{lesson.name} td.is-succeeded img")).to_have_count(cells.count())
            answer = page.request.get(str(sheet.get_attribute("href")))
            assert (answer.status, answer.body()[:4]) == (200, b"\x89PNG")
        assert loads == []
        assert sum(page.evaluate("clicks") for page in pages) == len(LESSONS) <= MOST_CLICKS
        farm.stop()


def run(lesson: str) -> str:
    """The button of an experiment, whatever the language."""
    return f"#{lesson} button[name=lesson]"
