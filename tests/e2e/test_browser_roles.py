"""Pages offer in the browser no more than the rules allow: to two owners, an operator and an admin."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page
from werkzeug.routing import MapAdapter

from api.app import create_app
from api.security.rules import OPEN, RULES
from shared.accounts.principal import Role
from shared.settings import load
from tests.e2e.conftest import KEY
from tests.support.servers import clean_environment

pytestmark = pytest.mark.browser
NOBODY = {"cookies": [], "origins": []}
WHO = {"bob": Role.USER, "cid": Role.USER, "olga": Role.OPERATOR, "ann": Role.ADMIN}
MOVES = {"jobs_pages.release", "queue_page.release", "workers_page.drain"}
SHOWN = {
    "bob": {"/jobs": {"jobs_pages.release"}, "/queue": None, "/workers": set()},
    "cid": {"/jobs": None, "/queue": None, "/workers": set()},
    "olga": {"/jobs": None, "/queue": {"queue_page.release"}, "/workers": {"workers_page.drain"}},
    "ann": {"/jobs": {"jobs_pages.release"}, "/queue": {"queue_page.release"}, "/workers": {"workers_page.drain"}},
}
"""Which of MOVES are offered at bob's job, at the queue and at the workers. None: there is no such page."""
OFFERS = """all => all.map(one => {
    const form = one.form || one;
    return [one.getAttribute('formaction') || form.getAttribute('action') || one.getAttribute('href') || '',
            one.tagName === 'A' ? 'GET' : (form.method || 'get').toUpperCase()];
})"""


def test_pages_offer_what_the_rules_allow_to_two_owners_an_operator_and_an_admin(visit):
    api = visit("/keys").request
    keys = {"ann": KEY}
    for owner in ("bob", "cid", "olga"):
        given = {"owner": owner, "role": WHO[owner], "name": "of a test"}
        keys[owner] = api.post("/api/v1/keys", headers=bearer(KEY), data=given).json()["key"]
    held = {"prompt": "a lake", "hold": True}
    job = api.post("/api/v1/jobs", headers=bearer(keys["bob"]), data=held).json()["id"]
    routes = create_app(load(clean_environment())).url_map.bind("localhost")
    shown = {}
    for owner, role in WHO.items():
        page = visit("/workers", cookies=NOBODY, extra_http_headers=bearer(keys[owner]))
        offered = {path: at(page, routes, address) for path, address in pages(job).items()}
        every = {endpoint for endpoints in offered.values() for endpoint in endpoints or ()} - OPEN
        assert {endpoint for endpoint in every if not role.includes(RULES[endpoint])} == set(), owner
        shown[owner] = {path: found if found is None else found & MOVES for path, found in offered.items()}
    assert shown == SHOWN


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def pages(job: int) -> dict[str, str]:
    return {"/jobs": f"/jobs/{job}", "/queue": "/queue", "/workers": "/workers"}


def at(page: Page, routes: MapAdapter, address: str) -> set[str] | None:
    """Return the endpoints that the page at `address` offers by links, forms and buttons; None if it is not there."""
    if not page.goto(address).ok:
        return None
    found = page.eval_on_selector_all("a[href^='/'], form, [formaction]", OFFERS)
    return {routes.match(path.partition("?")[0].partition("#")[0], method)[0] for path, method in found if path}
