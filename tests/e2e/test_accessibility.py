"""What axe finds on the pages: labels, roles, headings, contrast, in the light and in the dark, wide and narrow."""

from __future__ import annotations

from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from api.app import create_app
from shared.settings import load
from tests.e2e.conftest import KEY
from tests.support.servers import clean_environment

pytestmark = pytest.mark.browser
WITH_KEY: Final = {"Authorization": f"Bearer {KEY}"}
PHONE: Final = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP: Final = {"viewport": {"width": 1280, "height": 860}}
PAIRWISE: Final = [
    pytest.param(PHONE | {"color_scheme": "light", "locale": "en"}, id="phone-light-en"),
    pytest.param(PHONE | {"color_scheme": "dark", "locale": "zh-CN"}, id="phone-dark-zh"),
    pytest.param(DESKTOP | {"color_scheme": "light", "locale": "zh-CN"}, id="desktop-light-zh"),
    pytest.param(DESKTOP | {"color_scheme": "dark", "locale": "en"}, id="desktop-dark-en"),
]
SWEEP: Final = {
    "axes": [
        {"field": "sampler", "values": ["Euler", "Heun"]},
        {"field": "steps", "values": "3, 4"},
        {"field": "cfg_scale", "values": "7, 15"},
    ]
}
PAGES: Final = {
    "/": ("/", "/?from={plain}&image=0&to=img2img"),
    "/inpaint": ("/inpaint", "/inpaint?from={plain}&image=0"),
    "/jobs": ("/jobs", "/jobs?state=held"),
    "/jobs/<id:job_id>": ("/jobs/{plain}", "/jobs/{sweep}?image=1", "/jobs/{failed}", "/jobs/{waiting}"),
    "/jobs/<id:job_id>/delete": ("/jobs/{plain}/delete",),
    "/pictures": ("/pictures", "/pictures?words=unheard"),
    "/pictures/<id:job_id>/<id:index>": ("/pictures/{plain}/0",),
    "/compare": ("/compare?of={plain}.0,{plain}.1",),
    "/lessons": ("/lessons",),
    "/models": ("/models", "/models?search=nothing"),
    "/workers": ("/workers",),
    "/keys": ("/keys",),
    "/audit": ("/audit", "/audit?owner=nobody"),
    "/usage": ("/usage", "/usage?owner=*"),
    "/limits": ("/limits", "/limits?owner=ann"),
    "/queue": ("/queue",),
    "/reference": ("/reference",),
    "/strips": ("/strips",),
    "/webhooks": ("/webhooks",),
    "/webhooks/<id:webhook_id>": ("/webhooks/{webhook}",),
    "/shares": ("/shares",),
    "/s/<token>": ("{share}",),
    "an error": ("/nowhere",),
}
"""Addresses of every page, by its route; the numbers of jobs and others are filled in."""
ELSEWHERE: Final = {
    *(
        "/sign-in",
        "/sign-in/provider",
        "/sign-in/callback",
        "/from-picture",
        "/typed",
        "/presets/<any(fill,keep,delete):way>",
    ),  # ways to the form
    *("/adapters", "/choices", "/size", "/inpaint/painting"),  # parts of pages
    *("/static/<path:filename>", "/static/<version>/<path:name>"),
    "/jobs/<id:job_id>/images/<id:index>/made",  # of pictures that a real card has made
    *("/s/<token>/<id:index>.<any(png,jpg,webp):extension>", "/s/<token>/<id:index>/thumbnail.webp"),  # pictures
    *("/livez", "/readyz", "/metrics"),  # no pages
}
PROGRAMS: Final = ("/api/", "/openapi", "/v1/", "/replicate/", "/sdapi/", "/internal/", "/controlnet/")
"""Beginnings of what only programs ask for."""
UNFOLD: Final = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"


def violations(page: Page) -> list[str]:
    """What axe finds wrong with what the page shows."""
    found = Axe().run(page).response["violations"]
    return [f"{page.url}: {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def post(page: Page, path: str, **body: object) -> dict[str, Any]:
    """Ask the API for something new and return it; a job has ended in a second, or waits for something."""
    answer = page.request.post(f"/api/v1/{path}", headers=WITH_KEY | {"Prefer": "wait=1"}, data=body)
    assert answer.ok, answer.text()
    return answer.json()


def make(page: Page, **wanted: object) -> int:
    """Render pictures and return their job."""
    return post(page, "jobs", **{"prompt": "a windmill", "checkpoint": "demo", "steps": 4, "seed": 7} | wanted)["id"]


def test_studio_has_nothing_that_axe_finds_wrong(visit):
    assert violations(visit()) == []


@pytest.mark.nightly
def test_every_page_is_among_those_that_are_looked_at():
    rules = create_app(load(clean_environment())).url_map.iter_rules()
    pages = {one.rule for one in rules if "GET" in one.methods and not one.rule.startswith(PROGRAMS)}
    assert pages - ELSEWHERE == PAGES.keys() - {"an error"}


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seen", PAIRWISE)
def test_no_page_has_anything_that_axe_finds_wrong(visit, seen: dict[str, Any]):
    page = visit(**seen)
    jobs = {
        "plain": make(page, count=2),
        "sweep": make(page, sweep=SWEEP),
        "failed": make(page, prompt="fail: out of paint"),
        "waiting": make(page, hold=True),
    }
    made = jobs | {
        "webhook": post(page, "webhooks", url="https://example.com/hook")["id"],
        "share": post(page, "shares", job=jobs["plain"])["link"],
    }
    wrong = []
    for address in (one.format(**made) for addresses in PAGES.values() for one in addresses):
        page.goto(address)
        if "/inpaint?" in address:  # the page comes again, with the picture
            expect(page.get_by_role("application")).to_be_visible()
        page.wait_for_load_state()
        page.evaluate(UNFOLD)
        wrong += violations(page)
    page.context.clear_cookies()
    page.goto("/sign-in")
    wrong += violations(page)
    assert wrong == []
