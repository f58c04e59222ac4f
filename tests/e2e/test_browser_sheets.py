"""The page of a sweep in a browser: cells come as they are rendered, open, and are rendered again."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import KEY

pytestmark = pytest.mark.browser
WITH_KEY = {"Authorization": f"Bearer {KEY}"}


def test_a_sweep_grows_cell_by_cell_and_a_cell_is_rendered_again(visit, tmp_path):
    gate = tmp_path / "gate"
    page = visit("/jobs")
    axes = [{"field": "sampler", "values": ["Euler", "Heun"]}, {"field": "cfg_scale", "values": "7, 15"}]
    body = {"prompt": f"wait for {gate}", "checkpoint": "demo", "steps": 4, "seed": 7, "sweep": {"axes": axes}}
    job = page.request.post("/api/v1/jobs", headers=WITH_KEY, data=body).json()
    page.goto(job["links"]["page"])
    cells = page.locator("td[data-index]")
    expect(page.locator("td.is-running")).to_have_count(4)
    expect(page.get_by_role("rowheader")).to_have_text(["Euler", "Heun"])
    page.request.post(f"{job['links']['self']}/images/3/cancel", headers=WITH_KEY)
    expect(cells.nth(3)).to_contain_text("cancelled")

    gate.touch()
    expect(page.locator("td.is-succeeded img")).to_have_count(3)
    cells.nth(2).get_by_role("link").click()
    opened = page.locator("#opened")
    expect(opened.get_by_role("heading", name="Heun · 7")).to_be_visible()
    expect(opened.get_by_role("link", name="Save")).to_be_visible()
    page.get_by_role("button", name="Render again").click()
    expect(page.locator("td.is-succeeded img")).to_have_count(4)
    expect(opened.get_by_role("link", name="Save")).to_be_visible()

    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.querySelector('main').scrollWidth <= innerWidth"), "it scrolls inside its frame"
