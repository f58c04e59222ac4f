"""The room for inpainting in a real browser: draw, render, look at before and after, and again at the same place."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e import browsers
from tests.e2e.test_browser_form import file, png, scribble

pytestmark = pytest.mark.browser


def render(page: Page) -> dict[str, Any]:
    job = browsers.submit(page)
    return page.request.get(f"/api/v1/jobs/{job}").json()["params"]


def covered(page: Page, params: dict[str, Any]) -> bytes:
    """The part that is repainted, with the soft edge that a brush draws."""
    mask = page.request.get(f"/api/v1/uploads/{params['img2img']['mask']['picture']}").body()
    return Image.open(BytesIO(mask)).convert("L").tobytes()


def test_a_part_is_painted_anew_compared_and_painted_again_under_the_same_mask(visit):
    page = visit("/inpaint")
    asked = page.locator('[data-shows="asked"]')
    page.get_by_role("button", name="Render").click()
    expect(asked).to_have_text("Choose a picture first.")
    page.get_by_label("Source picture").set_input_files(file(png()))
    canvas = page.get_by_label("Mask over the picture")
    expect(canvas).to_be_visible()
    page.get_by_role("button", name="Render").click()
    expect(asked).to_have_text("Paint over what is to change, or extend a side.")
    scribble(page)
    page.get_by_label("Prompt", exact=True).fill("a red boat")
    first = render(page)
    assert (first["width"], first["height"]) == (96, 64)

    divider = page.get_by_label("Before and after")
    expect(divider).to_be_visible()
    divider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator('[data-shows="before"]')).to_have_css("clip-path", "inset(0px 51% 0px 0px)")
    page.reload()
    expect(divider).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red boat")

    page.get_by_role("button", name="Again here").click()
    expect(asked).to_contain_text("The same mask again")
    second = render(page)
    assert covered(page, second) == covered(page, first)
    assert second["img2img"]["picture"] != first["img2img"]["picture"]
    expect(page.get_by_role("button", name=re.compile("^Picture 3$"))).to_have_attribute("aria-current", "true")
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_role("button", name="Picture 2")).to_have_attribute("aria-current", "true")
