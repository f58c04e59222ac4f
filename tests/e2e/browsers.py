"""A headless Chromium, as Playwright drives it; and a farm for it to look at."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

from api.socket import address, command, listen
from shared.settings import load
from tests.support import preloaded
from tests.support.servers import await_answer

INSTALL: Final = "apt-get install chromium"
_WITHOUT: Final = (
    *("WebUIOmniboxPopup", "WebUIOmniboxAimPopup"),  # pages behind the address bar: most of what a window costs
    # Playwright's own, because Chromium takes one list only
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades", "LensOverlay"),
    *("HttpsFirstBalancedModeAutoEnable", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning"),
    *("AvoidCorsURLLoaderRestartOnRedirect", "TcpPortRandomizationWin", "OptimizationHints", "AimEnabled"),
    *("NetworkTimeServiceQuerying", "PreconnectToSearch"),
)
FLAGS: Final = (
    "--no-sandbox",  # it is root in a container, and sees this machine's pages only
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(_WITHOUT)}",
    "--force-prefers-reduced-motion",  # without a card each frame of an animation is drawn by the tests' processors
)
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_GIVEN: Final = os.environ.get("FARM_TEST_BROWSER")  # read now: tests run without any FARM_* variable
ROOT: Final = Path(__file__).parents[2]
WITHIN: Final = 30_000  # milliseconds that anything may take on a busy machine


def find_chromium() -> str | None:
    """Return where a Chromium is: FARM_TEST_BROWSER, or one on PATH."""
    return _GIVEN or next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def opened(executable: str) -> Iterator[Browser]:
    """Yield a headless Chromium, gone at the end of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the address of an API process with the settings of `environ`."""
    with listen(load(environ)) as listener:
        files = {number: number for number in (0, 1, 2, listener.fileno())}
        process = preloaded.parent("-W", "error").start(command(listener)[2:], environ, files)
        try:
            await_answer(f"{address(listener)}/livez", process)
            yield address(listener)
        finally:
            process.terminate()
            process.wait(20)


def submit(page: Page) -> int:
    """Press Render and return the job that it makes; with scripts the form stays in sight."""
    with page.expect_response(lambda answer: answer.request.method == "POST" and answer.url.endswith("/jobs")) as made:
        page.get_by_role("button", name="Render").click()
    return int(re.search(r"\d+$", made.value.headers["location"])[0])


def fill(page: Page, prompt: str, **fields: str) -> None:
    """Fill in the everyday fields, by their labels."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for label, value in {"Steps": "4", **fields}.items():
        page.get_by_label(label, exact=True).fill(value)
