"""The six experiments on a real farm with the demo's checkpoints, from the page of lessons to their finished sheets."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from shared.jobs.lessons import LESSONS
from tests.e2e import browsers, farms
from tests.support.servers import clean_environment

pytestmark = [pytest.mark.browser, pytest.mark.nightly, pytest.mark.timeout(1800)]
MOST_CLICKS = 15
SHEET_MILLISECONDS = 600_000  # in which twenty pictures of up to a hundred steps are rendered on a busy machine
COUNT_CLICKS = """
    globalThis.clicks = 0;
    addEventListener("click", (event) => { if (event.isTrusted) clicks += 1; }, true);
"""


def test_each_experiment_comes_to_its_sheet_without_a_page_load(chromium: Browser, tmp_path: Path):
    environ = clean_environment() | {"FARM_HOME": str(tmp_path), "FARM_PORT": "0", "FARM_GPUS": "cpu"}
    with farms.up(environ) as farm, chromium.new_context(base_url=farm.url) as context:
        page = context.new_page()
        page.add_init_script(COUNT_CLICKS)
        page.goto("/lessons")
        while page.locator("#checkpoints").get_by_role("button", name="Run").is_disabled():  # until both are found
            page.wait_for_timeout(1000)
            page.reload()
        loads: list[str] = []
        page.on("framenavigated", lambda frame: loads.append(frame.url))
        for lesson in LESSONS:
            page.locator(f"#{lesson.name}").get_by_role("button", name="Run").click()
            expect(page.locator(f"#{lesson.name} table")).to_be_visible(timeout=browsers.WITHIN)
        for lesson in LESSONS:
            sheet = page.locator(f"#{lesson.name}").get_by_role("link", name="Contact sheet (PNG)")
            expect(sheet).to_be_visible(timeout=SHEET_MILLISECONDS)
            cells = page.locator(f"#{lesson.name} td.cell")
            expect(page.locator(f"#{lesson.name} td.is-succeeded img")).to_have_count(cells.count())
            answer = page.request.get(str(sheet.get_attribute("href")))
            assert (answer.status, answer.body()[:4]) == (200, b"\x89PNG")
        assert loads == []
        assert page.evaluate("clicks") == len(LESSONS) <= MOST_CLICKS
        farm.stop()
