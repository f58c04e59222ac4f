"""The pages in a real browser, on a real farm whose worker paints plain pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.browsers import WITHIN, fill, submit

pytestmark = pytest.mark.browser


def test_person_signs_in_fills_submits_watches_and_sees_the_picture(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit(cookies=None)
    fill(page, f"wait for {gate}", Seed="7")
    page.keyboard.press("Control+Enter")

    page.get_by_role("article").first.get_by_role("link", name="wait for").click()
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


def test_other_tabs_say_once_that_a_job_has_ended(visit, tmp_path: Path):
    gate = tmp_path / "open"
    first = visit("/workers", told_of_ends=True)
    expect(first.locator("[data-follows]")).to_have_count(1)
    second, own = first.context.new_page(), first.context.new_page()
    second.goto("/models")
    own.goto("/")
    fill(own, f"wait for {gate}")
    own.keyboard.press("Control+Enter")
    expect(own.get_by_role("article").first.get_by_role("link", name="wait for")).to_be_visible()
    gate.touch()
    for tab in (first, second):
        expect(tab.locator(".ended")).to_have_count(1)
        expect(tab.get_by_role("status").get_by_role("link", name="is done")).to_be_visible()
        expect(tab.locator(".ended img")).to_have_js_property("complete", True)
    assert second.locator("[data-follows]").count() == 0, "one tab follows the stream"
    expect(own.locator(".ended")).to_have_count(0)
    second.get_by_role("button", name="Dismiss").click()
    expect(second.locator(".ended")).to_have_count(0)
    first.get_by_label("Say when jobs have ended").uncheck()
    expect(second.get_by_label("Say when jobs have ended")).not_to_be_checked()


def test_list_and_form_come_alive_as_jobs_end(visit, tmp_path: Path):
    gate = tmp_path / "open"
    page = visit()
    fill(page, f"wait for {gate}", Images="2")
    submit(page)
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
    page.goto(f"/jobs/{submit(page)}")
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


def test_one_changes_a_number_and_renders_again_without_leaving_the_page(visit):
    page = visit()
    loads = []
    page.on("load", lambda where: loads.append(where.url))
    fill(page, "a plain tower", Seed="7")
    first, cfg = submit(page), page.get_by_label("CFG scale", exact=True)
    expect(page.locator(f"#job-{first} img[width]")).to_have_js_property("naturalWidth", 64)
    cfg.fill("15")
    page.get_by_role("button", name="Render").click()
    second = page.locator(".job-strip").first
    expect(second).to_contain_text("CFG scale 15, was 7")
    expect(second.locator("img[width]")).to_be_visible()
    cfg.fill("many")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#notice")).to_be_focused()
    expect(page.locator("#cfg_scale-error")).to_be_visible()
    assert loads == []

    page.reload()  # what was typed is kept
    expect(cfg).to_have_value("many")
    page.get_by_role("button", name="Clear form").click()
    expect(cfg).to_have_value("7")
    page.get_by_role("button", name="Undo").click()
    expect(cfg).to_have_value("many")
    second.locator(".remix summary").click()
    second.get_by_role("link", name="Use all").click()
    expect(cfg).to_have_value("15")
    second.locator(".remix summary").click()
    second.get_by_role("button", name="4 more like this").click()
    expect(second.locator("img[width]")).to_have_count(4)
    page.get_by_label("Prompt", exact=True).fill("a tower nobody has seen")
    keys = []
    page.route("**/jobs", lambda route: (keys.append(route.request.headers["idempotency-key"]), route.abort()))
    page.get_by_role("button", name="Render").click()
    expect(page.get_by_text("nothing is rendered twice")).to_be_visible()
    page.unroute("**/jobs")
    page.on("request", lambda one: keys.append(one.headers["idempotency-key"]) if one.url.endswith("/jobs") else None)
    submit(page)
    assert len(set(keys)) == 1
