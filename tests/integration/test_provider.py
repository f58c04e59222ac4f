"""People sign in at an OpenID provider; nothing that it has not said of this farm, this browser and now counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

pytest.importorskip("authlib", reason="needs the extra oidc")

from joserfc.jwk import ECKey, OctKey

from api import socket
from api.app import create_app
from api.security import provider, provider_sign_in
from api.security.key_guesses import FREE_GUESSES
from api.services import EXTENSION
from shared.accounts import audit
from shared.db.sessions import transact
from shared.errors import SettingsError
from shared.settings import load
from tests.support.applications import application
from tests.support.browsing import look
from tests.support.provider import CLIENT, ISSUER, SECRET, Provider

KEY = "bobs-only-key"
AT_PROVIDER = {
    "oidc_issuer": ISSUER,
    "oidc_client_id": CLIENT,
    "oidc_client_secret": SECRET,
    "api_keys": {KEY: "bob"},
    "admins": "root@example.org",
}


@pytest.fixture(scope="module")
def app(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with application(home, tmp_path_factory.mktemp("farm"), port=0, **AT_PROVIDER) as made:
        yield made


@pytest.fixture
def signer() -> Provider:
    return Provider()


@pytest.fixture
def set_up(app: Flask, signer, monkeypatch):
    """Has an application ask the provider of the test, with further settings; returns a browser."""

    def ready(**further):
        services = app.extensions[EXTENSION]
        for name, value in further.items():
            monkeypatch.setitem(vars(services.settings), name, value)
        made = provider.Provider(services.settings, signer.transport)
        monkeypatch.setitem(app.extensions, provider_sign_in._EXTENSION, made)
        monkeypatch.setitem(app.extensions, "stepfarm-guesses", type(app.extensions["stepfarm-guesses"])())
        return app.test_client()

    return ready


@pytest.fixture
def browser(set_up):
    return set_up()


def led(browser, wanted: str = "/jobs?state=failed") -> str:
    """Begin to sign in, and return where the farm leads to."""
    page = look(browser, f"/sign-in?next={wanted}")
    [link] = page.all("a", **{"class": "button"})
    answer = browser.get(link.attributes["href"])
    assert answer.status_code == 303
    return answer.headers["Location"]


def sign_in(browser, signer, **options):
    return browser.get(signer.authorize(led(browser, **options)))


def owner(browser) -> str | None:
    answer = browser.get("/jobs")
    return None if answer.status_code == 303 else answer.text.partition('aria-label="Keys of ')[2].partition('"')[0]


def test_who_signs_in_there_is_the_owner_here(browser, signer):
    answer = sign_in(browser, signer)
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/jobs?state=failed">' in answer.text
    cookies = answer.headers.getlist("Set-Cookie")
    assert any({"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; ")) for cookie in cookies)
    assert owner(browser) == "ann@example.org"
    assert browser.get("/api/v1/keys?all=true").status_code == 403
    with browser.session_transaction() as session:
        session["csrf"] = "token"
    assert browser.post("/sign-out", data={"csrf_token": "token"}).status_code == 303
    assert owner(browser) is None


def test_key_still_signs_in_and_without_either_nobody_is_asked(browser):
    assert browser.get("/api/v1/jobs").status_code == 401
    assert browser.get("/api/v1/jobs", headers={"X-API-Key": KEY}).status_code == 200


def test_browser_keeps_the_first_half_for_the_way_back_alone(browser, signer):
    answer = browser.get("/sign-in/provider?next=//evil.example", base_url="https://localhost")
    parts = set(answer.headers["Set-Cookie"].split("; "))
    assert {"HttpOnly", "SameSite=Lax", "Secure", "Path=/sign-in/callback", "Max-Age=600"} <= parts
    back = browser.get(signer.authorize(answer.headers["Location"]), base_url="https://localhost")
    assert 'content="0; url=/"' in back.text


@pytest.mark.parametrize(
    ("claims", "role", "status"),
    [
        ({"email": "root@example.org"}, None, 200),
        ({"groups": ["staff", "farm-admins"]}, "user:staff,admin:farm-admins", 200),
        ({"groups": "staff"}, "user:staff,admin:farm-admins", 403),
        ({"groups": []}, None, 403),
    ],
)
def test_role_is_that_of_the_settings_and_claims(set_up, signer, claims, role, status):
    browser = set_up(oidc_roles=role or "")
    signer.claims |= claims
    assert sign_in(browser, signer).status_code == 200
    assert browser.get("/api/v1/keys?all=true").status_code == status


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"email_verified": False}, "has not verified"),
        ({"email_verified": "true"}, "has not verified"),
        ({"email_verified": None}, "has not verified"),
        ({"email": None}, "no claim email"),
        ({"email": ["ann@example.org"]}, "no claim email"),
        ({"email": "a,b"}, "cannot be an owner"),
        ({"groups": ["guests"]}, "no role on this farm"),
        ({"groups": {"staff": 1}}, "no role on this farm"),
    ],
)
def test_claims_that_name_nobody_open_nothing(set_up, signer, claims, said):
    browser = set_up(oidc_roles="user:staff" if "groups" in claims else "")
    signer.claims |= claims
    answer = sign_in(browser, signer)
    assert (answer.status_code, said in answer.text) == (403, True)
    assert owner(browser) is None


def of_another_farm(claims):
    claims["aud"] = "another-farm"


def of_several_farms(claims):
    claims["aud"] = [CLIENT, "another-farm"]


def of_another_azp(claims):
    claims |= {"aud": [CLIENT, "another-farm"], "azp": "another-farm"}


def expired(claims):
    claims |= {"iat": int(time.time()) - 900, "exp": int(time.time()) - 600}


def of_the_future(claims):
    claims["nbf"] = int(time.time()) + 3600


def without(name):
    return lambda claims: claims.pop(name)


def of_another_issuer(claims):
    claims["iss"] = "https://evil.example"


def of_another_browser(claims):
    claims["nonce"] = "of-another-browser"


@pytest.mark.parametrize(
    "change",
    [
        of_another_farm,
        of_several_farms,
        of_another_azp,
        expired,
        of_the_future,
        of_another_issuer,
        of_another_browser,
        *map(without, ("nonce", "aud", "iss", "exp", "iat", "sub")),
    ],
)
def test_token_that_was_not_made_for_this_now_is_refused(browser, signer, change):
    signer.changed = change
    answer = sign_in(browser, signer)
    assert (answer.status_code, "cannot be trusted" in answer.text) == (403, True)
    assert owner(browser) is None


def test_token_of_another_key_is_refused_and_of_a_new_one_accepted(browser, signer, monkeypatch):
    assert sign_in(browser, signer).status_code == 200
    monkeypatch.setattr(provider, "_NEW_KEYS_SECONDS", -1.0)
    signer.key = ECKey.generate_key("P-256", {"kid": "second", "use": "sig"})
    assert sign_in(browser, signer).status_code == 200, "the provider has changed its keys"
    signer.published = signer.key
    signer.key = ECKey.generate_key("P-256", {"kid": "second", "use": "sig"})
    assert sign_in(browser, signer).status_code == 403


def test_token_signed_by_what_everybody_knows_is_refused(browser, signer):
    signer.key, signer.algorithm = OctKey.import_key(SECRET, {"kid": "first"}), "HS256"
    assert sign_in(browser, signer).status_code in (403, 503)
    assert owner(browser) is None


def test_state_counts_once_and_in_its_own_browser(app, browser, signer):
    back = signer.authorize(led(browser))
    assert app.test_client().get(back).status_code == 403, "another browser's"
    assert browser.get(back.replace("state=", "state=x")).status_code == 403
    assert browser.get(back).status_code == 403, "the browser has forgotten it"
    back = signer.authorize(led(browser))
    kept = browser.get_cookie(f"{app.config['SESSION_COOKIE_NAME']}-flow", path=provider_sign_in.CALLBACK)
    assert browser.get(back).status_code == 200
    thief = app.test_client()
    thief.set_cookie(kept.key, kept.value, path=provider_sign_in.CALLBACK)
    assert thief.get(back).status_code == 403, "a copied cookie"


@pytest.mark.parametrize("further", ["&iss=https%3A%2F%2Fevil.example", "&error=access_denied"])
def test_answer_of_another_provider_or_a_refusal_signs_nobody_in(browser, signer, further):
    back = signer.authorize(led(browser)) + further
    back = back.replace("code=", "x=") if "error" in further else back
    assert browser.get(back).status_code == 403
    assert owner(browser) is None


def test_code_is_worth_nothing_without_the_verifier_of_its_browser(set_up, signer):
    victim, attacker = set_up(), set_up()
    theirs = signer.authorize(led(victim)).partition("code=")[2].partition("&")[0]
    mine = signer.authorize(led(attacker))
    injected = mine.replace(mine.partition("code=")[2].partition("&")[0], theirs)
    assert attacker.get(injected).status_code == 403
    assert owner(attacker) is None


@pytest.mark.parametrize("change", [{"issuer": "https://evil.example"}, {"token_endpoint": None}, {"jwks_uri": "x"}])
def test_provider_that_says_nonsense_about_itself_is_told_apart_from_a_wrong_sign_in(browser, signer, change):
    first = led(browser) if "issuer" not in change else None
    signer.metadata |= change
    if first is None:
        assert browser.get("/sign-in/provider").status_code == 503
    else:
        provider_of(browser)._documents.clear()
        assert browser.get(signer.authorize(first)).status_code == 503


def provider_of(browser):
    return browser.application.extensions[provider_sign_in._EXTENSION]


def test_provider_that_is_away_is_told_and_asked_once_in_a_while(browser, signer):
    signer.is_away = True
    answers = [browser.get("/sign-in/provider") for _ in range(5)]
    assert {(answer.status_code, "does not answer" in answer.text) for answer in answers} == {(503, True)}
    assert len(signer.asked) == 1
    assert browser.get("/api/v1/jobs", headers={"X-API-Key": KEY}).status_code == 200


def test_who_was_signed_in_and_who_was_not_is_written_down(set_up, signer, app):
    sign_in(set_up(), signer)
    signer.claims |= {"groups": []}
    sign_in(set_up(oidc_roles="user:staff"), signer)
    latest = transact(app.extensions[EXTENSION].sessions, lambda session: audit.listed(session, limit=2))
    assert [(one.owner, one.role, one.action, one.detail) for one in latest] == [
        ("127.0.0.1", "", "sign-in.refused", "The sign-in provider gives ann@example.org no role on this farm."),
        ("ann@example.org", "user", "session.begun", ISSUER),
    ]


def test_guessing_at_the_way_back_is_slowed(browser, signer):
    signer.changed = of_another_browser
    statuses = [sign_in(browser, signer).status_code for _ in range(FREE_GUESSES + 2)]
    assert (statuses[0], statuses[-1]) == (403, 429)


def test_session_ends_with_its_hours_and_its_provider(set_up, signer, app):
    browser = set_up()
    sign_in(browser, signer)
    assert owner(browser) == "ann@example.org"
    other = set_up(oidc_client_id="another")
    assert other is not browser
    assert owner(browser) is None
    set_up(oidc_client_id=CLIENT)
    assert owner(browser) == "ann@example.org"
    with app.extensions[EXTENSION].sessions.begin() as rows:
        rows.execute(text("UPDATE browser_sessions SET created_at = now() - interval '13 hours' WHERE role = ''"))
    assert owner(browser) is None


def test_farm_without_the_packages_says_what_to_install(settings, monkeypatch):
    monkeypatch.setattr(socket, "find_spec", lambda name: None if name == "joserfc" else True)
    with pytest.raises(SettingsError, match="the extra: stepfarm"):
        create_app(settings.model_copy(update=AT_PROVIDER))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"FARM_OIDC_ISSUER": ISSUER}, "FARM_OIDC_CLIENT_ID"),
        ({"FARM_OIDC_ISSUER": "http://id.example", "FARM_OIDC_CLIENT_ID": "x"}, "https://"),
        ({"FARM_OIDC_ISSUER": "id.example", "FARM_OIDC_CLIENT_ID": "x"}, "must be a URL"),
        ({"FARM_OIDC_ROLES": "king:staff"}, "roles are viewer"),
        ({"FARM_OIDC_ROLES": "admin"}, "roles are viewer"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, said):
    with pytest.raises(SettingsError, match=said):
        load(given)
