"""The page of lessons in a browser: an experiment runs at one press, and its sheet grows in its card."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.mark.nightly
def test_an_experiment_runs_at_one_press_and_its_sheet_grows_in_its_card(visit):
    page = visit("/lessons")
    loads = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))
    card = page.locator("#seeds")
    card.get_by_role("button", name="Run").click()
    expect(page.locator(".notices")).to_contain_text("is in the queue as job")
    expect(card.locator("td.is-succeeded img")).to_have_count(4)
    expect(
        card.get_by_text("The contact sheet is being drawn…").or_(card.get_by_text("Contact sheet (PNG)"))
    ).to_be_visible()
    assert loads == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.querySelector('main').scrollWidth <= innerWidth"), "it scrolls inside its frame"
    card.get_by_role("button", name="Open in the form").click()
    expect(page.get_by_label("Values").first).to_have_value("-1, -1, 7, 7")
