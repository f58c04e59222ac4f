"""Sweeps in a browser: made in the form; their cells come as they are rendered, open, and are rendered again."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from shared.sheets.contact_sheet import SPEC
from tests.e2e.conftest import KEY

pytestmark = pytest.mark.browser
WITH_KEY = {"Authorization": f"Bearer {KEY}"}
AXES = {"采样方法 (Sampler)": "Euler, Heun", "迭代步数 (Steps)": "3-4", "提示词引导系数 (CFG)": "7, 15"}


def contact_sheet(page: Page, link: str) -> Image.Image:
    """The file behind a link that appears when the sheet is drawn."""
    address = page.get_by_role("link", name=link).get_attribute("href")
    return Image.open(BytesIO(page.request.get(address).body()))


def test_a_sweep_grows_cell_by_cell_and_a_cell_is_rendered_again(visit, tmp_path):
    gate = tmp_path / "gate"
    page = visit("/jobs", color_scheme="dark")
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
    sheet = contact_sheet(page, "Contact sheet (PNG)")
    assert (sheet.format, sheet.width > 2 * 64, sheet.height > 2 * 64) == ("PNG", True, True)
    assert '"Heun"' in sheet.text[SPEC]

    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.querySelector('main').scrollWidth <= innerWidth"), "it scrolls inside its frame"


def test_a_sweep_over_three_axes_is_made_in_the_form_on_a_phone_in_chinese(visit):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = visit(**phone, color_scheme="dark", locale="zh-CN")
    page.get_by_label("提示词 (Prompt)", exact=True).fill("a mill")
    page.get_by_label("图片数量", exact=True).fill("3")
    for field, values in AXES.items():
        page.get_by_role("button", name=f"变化 {field}").tap()
        page.keyboard.insert_text(values)
    told = page.locator('[data-shows="sweep-says"]')
    expect(told).to_contain_text("8 张图片")
    expect(told).to_contain_text("图片数量 3 不起作用")
    page.get_by_role("button", name="生成", exact=True).tap()
    strip = page.get_by_role("article").filter(has_text="a mill").first
    strip.get_by_role("heading").get_by_role("link").tap()
    expect(page.locator("td.is-succeeded img")).to_have_count(8)
    expect(page.locator("tr.block th")).to_have_text(["采样方法 (Sampler) Euler", "采样方法 (Sampler) Heun"])
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert contact_sheet(page, "图表（PNG）").format == "PNG"
