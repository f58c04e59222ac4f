"""Instants of the form in the person's own time, and a held job let go by its button, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e import browsers

pytestmark = pytest.mark.browser


def test_instants_are_typed_in_the_person_s_own_time_and_a_held_job_is_let_go(chromium, environ, checkpoint_factory):
    checkpoint_factory("demo", native_size=64)
    with browsers.served(environ) as address:
        page = chromium.new_context(base_url=address, timezone_id="Asia/Tokyo").new_page()
        page.set_default_timeout(browsers.WITHIN)
        page.goto("/")
        page.get_by_label("Prompt", exact=True).fill("the sea")
        page.locator("#group-when summary").click()
        expect(page.locator("#expires_at-hint")).to_contain_text("(your own time)")
        deadline = page.get_by_label("Start by", exact=True)

        deadline.fill("2020-01-31T12:00")
        page.get_by_role("button", name="Render").click()
        expect(page.locator("#expires_at-error")).to_contain_text("2020-01-31 03:00 UTC has passed")
        expect(deadline).to_have_value("2020-01-31T12:00")

        deadline.fill("2100-01-31T12:00")
        page.get_by_label("Hold until released").check()
        page.goto(f"/jobs/{browsers.submit(page)}")
        job = page.request.get(f"/api/v1{page.url[page.url.index('/jobs') :]}").json()
        assert (job["state"], job["expires_at"]) == ("held", "2100-01-31T03:00:00Z")

        page.get_by_role("button", name="Release").click()
        expect(page.locator(".badge.is-queued").first).to_be_visible()
        page.context.close()
