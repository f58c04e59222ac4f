"""The gallery in a real browser: found, opened, marked, compared, deleted and brought back, by keys and by finger."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def render(page: Page, prompt: str) -> None:
    """Render two pictures, with the seeds 40 and 41."""
    headers = {"X-CSRF-Token": page.locator('input[name="csrf_token"]').first.input_value(), "Prefer": "wait=60"}
    params = {"prompt": prompt, "count": 2, "seed": 40, "steps": 4}
    job = page.request.post("/api/v1/jobs", headers=headers, data=params)
    assert job.json()["state"] == "succeeded", job.text()


def test_pictures_are_found_opened_compared_deleted_and_brought_back(visit):
    page = visit(locale="zh-CN", color_scheme="light")
    render(page, "a windmill at dusk")
    page.goto("/pictures")
    page.get_by_label("提示词中的词语").fill("windmills")
    page.keyboard.press("Enter")
    tiles = page.locator(".tile:not(.is-gone)")
    expect(tiles).to_have_count(2)

    tiles.first.get_by_role("link").click()
    viewer = page.get_by_role("dialog")
    expect(viewer.get_by_role("img")).to_have_js_property("naturalWidth", 64)
    page.keyboard.press("f")
    expect(viewer.get_by_role("button", name="收藏")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("i")
    expect(viewer.get_by_text(re.compile("种子 4[01]"))).to_be_visible()
    page.keyboard.press("d")
    expect(viewer.get_by_text("已删除 1 张图片。")).to_be_visible()
    expect(tiles).to_have_count(1)
    page.keyboard.press("z")
    expect(tiles).to_have_count(2)
    page.keyboard.press("Escape")
    expect(tiles.nth(1).get_by_role("link")).to_be_focused()

    tiles.first.get_by_role("checkbox").click()
    tiles.nth(1).get_by_role("checkbox").click(modifiers=["Shift"])
    page.get_by_role("button", name="对比").click()
    expect(page).to_have_url(re.compile(r"/compare\?of="))
    expect(page.get_by_role("row", name=re.compile(r"\(Seed\) 4[01] 4[01]"))).to_be_visible()
    page.get_by_text("滑块").click()
    expect(page.get_by_label("两张图片的分界位置")).to_be_visible()


def test_a_phone_opens_swipes_and_deletes(visit):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    render(page, "a lantern in rain")
    page.goto("/pictures?words=lantern")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator(".tile").first.get_by_role("link").tap()
    picture = page.get_by_role("dialog").get_by_role("img")
    expect(picture).to_have_attribute("src", re.compile("/images/"))
    first = picture.get_attribute("src")
    touch = page.context.new_cdp_session(page)
    for kind, points in (("touchStart", [300]), ("touchMove", [180]), ("touchMove", [60]), ("touchEnd", [])):
        given = {"type": kind, "touchPoints": [{"x": x, "y": 300} for x in points]}
        touch.send("Input.dispatchTouchEvent", given)
    expect(picture).not_to_have_attribute("src", first)
    # by mouse: a browser takes a tap this soon after a swipe for a finger that stops it, and presses nothing
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".tile:not(.is-gone)")).to_have_count(1)
