"""A first visit: a cold farm, its form opened at once, a prompt; the page is photographed each second to the picture.

    python -m tests.e2e.first_visit /tmp/strip

It says what the page said meanwhile, and ends with status 1 where something was refused or is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from playwright.sync_api import Page

from tests.e2e import browsers, farms
from tests.support.servers import clean_environment

PROMPT: Final = "a painting of the desert at sunset, pyramids, sun"
SECONDS: Final = 300  # in which there is a picture, on a machine that does much else
SAYS: Final = ("#checkpoint option:checked", ".farm", '[data-shows="waits"]', ".notice", ".error", ".job-strip")
"""What of the pages says how the farm is."""


def main() -> int:
    """Visit; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.first_visit", description="Photograph a first visit.")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    executable = browsers.find_chromium() or sys.exit(f"no Chromium: {browsers.INSTALL}")
    with tempfile.TemporaryDirectory() as home, browsers.opened(executable) as browser:
        environ = clean_environment() | {"FARM_HOME": home, "FARM_PORT": "0", "FARM_GPUS": "cpu"}
        with farms.up(environ) as farm, browser.new_context(base_url=farm.url) as context:
            page = context.new_page()
            wrong: list[str] = []
            page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            for said in visit(page, out):
                print(said, flush=True)  # noqa: T201 - it is a command
            is_there = page.locator(".job-strip a.strip-picture > img[width]").count() == 1
            page.locator(".job-strip h3 a").click()
            wrong += [] if "scenes-v1" in page.locator(".parameters").inner_text() else ["not the first checkpoint"]
            farm.stop()
    print("wrong:", wrong or "nothing")  # noqa: T201 - as above
    return 0 if is_there and not wrong else 1


def visit(page: Page, out: Path) -> Iterator[str]:
    """Ask for a picture as soon as there is a form; keep the page each second, and yield each new message."""
    began = time.monotonic()
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    before = ""
    for number in range(SECONDS):
        page.screenshot(path=out / f"{number:03}.png")
        if number == 1:
            page.keyboard.press("Control+Enter")
        said = " | ".join(re.sub(r"\s+", " ", words) for words in _said(page))
        if said != before:
            yield f"{time.monotonic() - began:5.1f} s  {said}"
        before = said
        if page.locator(".job-strip a.strip-picture > img[width]").count():
            return
        page.wait_for_timeout(1000)


def _said(page: Page) -> list[str]:
    return [words for place in SAYS for words in page.locator(place).all_inner_texts() if words.strip()]


if __name__ == "__main__":
    sys.exit(main())
