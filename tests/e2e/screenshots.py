"""Photographs the pages for the docs: submits a few jobs to a farm that is up, and keeps what a browser shows of them.

    farm up &
    python -m tests.e2e.screenshots http://127.0.0.1:8321

With `--key` where the farm asks for keys. The pictures go to docs/images, as WebP of less than 200 KB each.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e import browsers

MOST_BYTES: Final = 200_000
WITHIN: Final = 300_000  # milliseconds that a job may take
DESERT: Final = "a painting of the desert at sunset, pyramids, sun"
SEA: Final = "a photo of the sea at night, moon, red sailboat"
HILLS: Final = "a painting of green hills at noon, trees, clouds"
VARIED: Final = {"Sampler": "Euler a, LMS, Heun", "CFG scale": "2, 7, 25.5"}
PHONE: Final = {"width": 390, "height": 844}
DESKTOP: Final = {"width": 1280, "height": 860}
SKY: Final = ((0.2, 0.16), (0.8, 0.16), (0.8, 0.26), (0.2, 0.26))
"""Points of the stroke that masks the sky, as shares of the picture's sides."""


def main() -> None:
    """Take every picture."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    executable = browsers.find_chromium() or sys.exit(f"no Chromium: {browsers.INSTALL}")
    with browsers.opened(executable) as browser:
        Photographer(browser, options.url, options.key, options.out).take_all()


class Photographer:
    """A browser at a farm, and where its pictures go."""

    def __init__(self, browser: Browser, url: str, key: str, out: Path) -> None:
        self._browser = browser
        self._url = url
        self._key = key
        self._out = out

    def take_all(self) -> None:
        with self._page() as page:
            hills = self._render(page, HILLS, count=1, boxes=["Film"])
            desert = self._render(page, DESERT, count=4)
            sea = self._submit(page, SEA, count=6, steps=40)
            page.get_by_text(re.compile(r"step (2[5-9]|3\d) of 40")).first.wait_for(timeout=WITHIN)
            expect(page.locator("article.is-running .preview").first).to_have_js_property("complete", value=True)
            self._keep(page, "job-running")
            page.goto("/workers")
            self._keep(page, "workers")
            page.goto(sea)
            self._await_end(page)
            page.goto(desert)
            self._keep(page, "job")
            page.goto("/")
            self._keep(page, "form")
            self._sweep(page)
            self._inpaint(page, hills)
        for path, name in (("/", "form-dark"), ("/jobs", "jobs-dark"), ("/pictures", "pictures-dark")):
            with self._page(color_scheme="dark") as page:
                page.goto(path)
                self._keep(page, name)
        with self._page(viewport=PHONE, device_scale_factor=2) as page:
            page.goto(hills)
            page.get_by_text("Step by step").click()
            self._keep(page, "phone")
        with self._page(viewport=PHONE, device_scale_factor=2, color_scheme="dark", locale="zh-CN") as page:
            page.goto("/lessons")
            self._keep(page, "lessons-phone-dark")

    @contextmanager
    def _page(self, **options: object) -> Iterator[Page]:
        usual = {"viewport": DESKTOP, "device_scale_factor": 1.5, "reduced_motion": "reduce", "base_url": self._url}
        with self._browser.new_context(**(usual | options)) as context:
            page = context.new_page()
            page.set_default_timeout(WITHIN)
            page.goto("/")
            if page.url.partition("?")[0].endswith("/sign-in"):
                page.get_by_label("Key").fill(self._key)
                page.get_by_role("button", name="Sign in").click()
            yield page

    def _submit(self, page: Page, prompt: str, *, count: int, steps: int = 20, boxes: list[str] | None = None) -> str:
        """Submit a job and return the address of its page."""
        self._open_form(page)
        page.get_by_label("Prompt", exact=True).fill(prompt)
        for label, value in {"Images": count, "Steps": steps, "Seed": 7}.items():
            page.get_by_label(label, exact=True).fill(str(value))
        for label in boxes or []:
            page.locator("details.group").filter(has=page.get_by_label(label, exact=True)).locator("summary").click()
            page.get_by_label(label, exact=True).check()
        return self._press_render(page)

    def _open_form(self, page: Page) -> None:
        """Go to the form as it is before anything is typed: a browser keeps what was."""
        page.goto("/workers")  # the form keeps itself when it is left
        page.evaluate("localStorage.clear()")
        page.goto("/")

    def _press_render(self, page: Page) -> str:
        page.goto(f"{self._url}/jobs/{browsers.submit(page)}")
        return page.url

    def _render(self, page: Page, prompt: str, *, count: int, boxes: list[str] | None = None) -> str:
        address = self._submit(page, prompt, count=count, boxes=boxes)
        self._await_end(page)
        return address

    def _sweep(self, page: Page) -> None:
        """Vary two settings in the form, and keep what it then looks like and the sheet that comes of it."""
        self._open_form(page)
        for label, value in {"Prompt": DESERT, "Steps": 12, "Seed": 7}.items():
            page.get_by_label(label, exact=True).fill(str(value))
        for field, values in VARIED.items():
            page.get_by_role("button", name=f"vary {field}").click()
            page.keyboard.insert_text(values)
        expect(page.locator('[data-shows="sweep-says"]')).to_contain_text("9 pictures")
        page.locator("#group-vary").evaluate("group => group.scrollIntoView({block: 'center'})")
        self._keep(page, "vary")
        self._press_render(page)
        self._await_end(page)
        page.get_by_role("link", name="Contact sheet (PNG)").wait_for(timeout=WITHIN)
        self._keep(page, "sheet")

    def _inpaint(self, page: Page, job: str) -> None:
        """Mask the sky of a job's picture, and keep what the room for inpainting looks like, before and after."""
        page.goto(job)
        page.get_by_role("button", name="Inpaint").click()
        canvas = page.get_by_label("Mask over the picture")
        canvas.wait_for()
        page.get_by_label("Prompt", exact=True).fill("a painting of green hills at sunset, trees, sun")
        page.get_by_role("heading", name="Inpainting").evaluate("() => scrollTo(0, 0)")
        box = canvas.bounding_box() or {}
        for order, (x, y) in enumerate(SKY):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
            if order == 0:
                page.mouse.down()
        page.mouse.up()
        self._keep(page, "inpaint")
        browsers.submit(page)
        page.get_by_label("Before and after").wait_for(timeout=WITHIN)
        page.evaluate("scrollTo(0, 0)")
        self._keep(page, "inpainted")

    def _await_end(self, page: Page) -> None:
        page.locator('[data-part="head"][data-open="no"]').wait_for(timeout=WITHIN)

    def _keep(self, page: Page, name: str) -> None:
        """Keep what the window shows, as well as fits into `MOST_BYTES`."""
        page.wait_for_load_state("load")
        page.locator(".notices").evaluate("notices => notices.replaceChildren()")  # of the press before
        seen = [one for one in page.locator("img:visible").all() if _is_in_view(one)]
        for picture in seen:
            expect(picture).not_to_have_js_property("naturalWidth", 0)
        shot = Image.open(io.BytesIO(page.screenshot()))
        for quality in (90, 80, 60, 40):
            file = io.BytesIO()
            shot.save(file, "WEBP", quality=quality, method=6)
            if file.tell() < MOST_BYTES:
                break
        (self._out / f"{name}.webp").write_bytes(file.getvalue())


def _is_in_view(one: Locator) -> bool:
    return bool(one.evaluate("one => one.getBoundingClientRect().top < innerHeight"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where the farm's API listens")
    parser.add_argument("--key", default="", help="a key of the farm")
    parser.add_argument("--out", type=Path, default=browsers.ROOT / "docs" / "images", help="a folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
