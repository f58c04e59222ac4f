"""The pages in a real browser, on a real farm whose worker paints plain pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.browsers import WITHIN, fill

pytestmark = pytest.mark.browser


def test_person_signs_in_fills_submits_watches_and_sees_the_picture(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit(cookies=None)
    fill(page, f"wait for {gate}", Seed="7")
    page.keyboard.press("Control+Enter")

    expect(page).to_have_url(re.compile(r"/jobs/\d+$"))
    card = page.get_by_role("article", name="Image 1")
    expect(card.get_by_text("decoding")).to_be_visible()
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
    first = page.get_by_role("article", name="Image 1")
    first.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("1 image cancelled")).to_be_visible()
    first.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("1 image back in the queue")).to_be_visible()
    gate.touch()
    expect(page.locator('[data-shows="news"]')).to_have_text("2 of 2 done")


def test_form_helps_and_keeps_what_was_wrong(visit):
    page = visit()
    page.get_by_label("Sampler", exact=True).select_option("DDIM")
    expect(page.locator("#schedule option[value=karras]")).to_be_disabled()
    fill(page, "<b>bold</b>", Seed="many")
    page.get_by_role("button", name="Render").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("many")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("<b>bold</b>")
    expect(page.locator("#seed-error")).to_be_visible()


def test_pages_work_without_scripts(visit):
    page = visit(cookies=None, java_script_enabled=False)
    fill(page, "a plain page", Seed="9")
    page.get_by_role("button", name="Render").click()
    picture = page.get_by_role("article", name="Image 1").get_by_role("img")
    expect(picture).to_have_attribute(
        "src", re.compile(r"picture\.png$"), timeout=WITHIN
    )  # the page comes again by itself
