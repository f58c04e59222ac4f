"""Keys in the browser: one is made and shown once, and its role says what its pages offer."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.support.waiting import until

pytestmark = pytest.mark.browser


def test_a_key_is_made_used_and_revoked_and_its_role_says_what_is_offered(visit):
    admin = visit("/keys")
    shown = {role: _make(admin, f"the {role}", role) for role in ("user", "operator")}

    worker = visit("/workers", cookies=None)  # whose key asks
    expect(worker.get_by_role("button", name="Pause")).to_be_visible()
    _sign_in_as(worker, shown["operator"])
    worker.goto("/queue")
    expect(worker.get_by_role("heading", name="The farm’s queue")).to_be_visible()
    worker.goto("/workers")
    expect(worker.get_by_role("button", name="Pause")).to_be_visible()
    _sign_in_as(worker, shown["user"])
    worker.goto("/workers")
    expect(worker.get_by_role("heading", name="Workers", level=1)).to_be_visible()
    expect(worker.get_by_role("button", name="Pause")).to_have_count(0)

    admin.goto("/keys")
    admin.get_by_role("button", name="Revoke the key the user").click()
    expect(admin.get_by_text("opens nothing any more")).to_be_visible()
    until(lambda: "/sign-in" in worker.goto("/workers").url, 10, "a browser that is signed out with its key")


def test_a_page_whose_person_has_signed_out_elsewhere_says_so_and_draws_no_other_page(visit):
    page = visit("/", cookies=None, told_of_ends=True)  # a session of its own
    expect(page.locator("[data-follows]")).to_have_count(1)
    idle, other = page.context.new_page(), page.context.new_page()
    idle.goto("/pictures")
    other.goto("/keys")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    page.evaluate("""() => {
        const field = document.querySelector('#group-vary select');
        field.value = 'steps';
        field.dispatchEvent(new Event('change', { bubbles: true }));
    }""")
    link = page.get_by_role("link", name="Sign in again")
    expect(link).to_have_attribute("href", "/sign-in?next=%2F")
    expect(page.locator('[data-shows="connection"]')).to_have_text("You are signed out. Sign in again")
    expect(page.locator('[data-shows="sweep-says"]')).to_have_text("")
    link = idle.get_by_role("link", name="Sign in again")
    expect(link).to_have_attribute("href", "/sign-in?next=%2Fpictures", timeout=30_000)  # no news come to this page


def _make(page: Page, name: str, role: str) -> str:
    page.goto("/keys")
    page.get_by_label("What it is for").fill(name)
    page.get_by_label("What it may do").select_option(role)
    page.get_by_role("button", name="Make the key").click()
    return page.get_by_label("Copy it now").input_value()


def _sign_in_as(page: Page, key: str) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
