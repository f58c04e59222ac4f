"""The caller of a request: by a key, by a cookie that a key was traded for, or, without keys, the one local owner."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import structlog
from flask import Flask, Request, g, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from sqlalchemy.orm import Session
from werkzeug.exceptions import MethodNotAllowed

from api.http import later
from api.programs import WEB_UI, is_program
from api.security import proxy_user, rules
from api.security.key_guesses import Guesses
from api.security.origin import SAFE_METHODS
from api.services import Services, services
from shared.accounts import audit, browser_sessions, keys
from shared.accounts.audit import Action
from shared.accounts.keyring import Keyring
from shared.accounts.people import person
from shared.accounts.principal import LOCAL, Principal, Role
from shared.db.sessions import transact
from shared.db.tables import BrowserSession
from shared.errors import Forbidden, TooManyRequests, TooManyTries, Unauthorized, Unavailable

log = structlog.get_logger(__name__)

CSRF_FIELD: Final = "csrf_token"
CSRF_HEADER: Final = "X-CSRF-Token"
_EXTENSION: Final = "stepfarm-keys"
_GUESSES: Final = "stepfarm-guesses"
_OPEN_BELOW: Final = ("/static/", "/s/")  # without a key too, also that there is nothing
_SESSION: Final = "id"
_KEY_NEEDED: Final = "A key is needed: send Authorization: Bearer KEY, or sign in with one."
_NO_KEY_YET: Final = (
    "This farm has no key yet, and other machines reach it, so it answers nobody: "
    "`farm keys create NAME --role admin` beside its database makes the first."
)
_WHO: Final = {
    Role.VIEWER: "a viewer",
    Role.USER: "a user",
    Role.OPERATOR: "an operator",
    Role.ADMIN: "an admin",
}
_NUMBERS: Final = "metrics.metrics"
_COUNTED: Final = "stepfarm.counted"  # in the environ of a request whose key was found wrong before its body was read


class _Cookies(SecureCookieSessionInterface):
    """Flask's signed cookie, sent over TLS alone where the request came over TLS."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the session of the cookie. A program sends none, and nothing is made ready for it to be read."""
        is_there = self.get_cookie_name(app) in request.cookies
        return super().open_session(app, request) if is_there else self.session_class()

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - as Flask calls it
        return request.is_secure


def init_app(app: Flask, joined: Services) -> None:
    """Find out who asks before every view, and check the token of forms."""
    secret = joined.secret
    app.secret_key = secret
    app.session_interface = _Cookies()
    app.config.update(
        SESSION_COOKIE_NAME=f"stepfarm-{keys.digest(secret)[:8]}",  # two farms on one machine share its cookies
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
    )
    app.extensions[_EXTENSION] = joined.keyring
    app.extensions[_GUESSES] = Guesses()
    app.before_request(lambda: _identify(app))
    app.before_request(lambda: _check_token(app))


def is_known(app: Flask, environ: dict[str, Any]) -> bool:
    """True if the request of `environ` says who asks, as far as its address may try keys now.

    A wrong key counts here already, because a client that expects `100 Continue` is refused before it sends its body.
    """
    with app.request_context(environ):
        ring, key = _ring(app), _sent_key()
        if not ring.asks():
            return True
        if key is None or proxy_user.names_somebody(services().settings):
            return _is_named(ring)
        guesses: Guesses = app.extensions[_GUESSES]
        address, digest = request.remote_addr or "", keys.digest(key)
        if guesses.wait(address, digest):
            return False
        if ring.find(digest) is None:
            guesses.wrong(address)
            environ[_COUNTED] = True
            return False
        return True


def _is_named(ring: Keyring) -> bool:
    try:
        return bool(proxy_user.named(services().settings) or _cookie_principal(ring))
    except Forbidden:
        return False


def principal() -> Principal:
    """Return who asks. Raises Unauthorized on a page that is open to all."""
    who = known()
    if who is None:
        raise Unauthorized("Sign in first.")
    return who


def known() -> Principal | None:
    """Return who asks, if that is known: an error page may come earlier."""
    who: Principal | None = g.get("who")
    return who


def is_signed_in() -> bool:
    """True where a cookie says who asks, so that signing out makes sense."""
    return _SESSION in session


def has_keys(app: Flask) -> bool:
    """True where the farm asks for keys at all."""
    try:
        return _ring(app).asks()
    except Unavailable:  # nobody can know now
        return True


def sign_in(app: Flask, key: str) -> Principal:
    """Trade a key for a cookie and return whose it is. Raises Unauthorized, TooManyTries, Unavailable."""
    ring, digest = _ring(app), keys.digest(key)
    who = _tried(app, digest, "sign-in")
    if who is None:
        raise Unauthorized("This farm does not know that key.")
    _begin_session(who, ring.mark(digest), f"key {who.key_id}" if who.key_id else "a key of the settings")
    return who


def sign_in_elsewhere(app: Flask, finish: Callable[[], tuple[Principal, str]]) -> None:
    """Begin the session of the person that `finish` names, with the role that a provider gives, or an empty text.

    What it refuses counts as a wrong key, and is written down. Raises as `finish` does, and TooManyTries.
    """
    guesses: Guesses = app.extensions[_GUESSES]
    address = request.remote_addr or ""
    if seconds := guesses.wait(address, ""):
        raise TooManyTries(seconds)
    try:
        who, role = finish()
    except Forbidden as error:
        guesses.wrong(address)
        reason = str(error)
        transact(services().sessions, lambda rows: audit.note_refused_sign_in(rows, address, reason))
        raise
    _begin_session(who, _mark_of_provider(_ring(app)), services().settings.oidc_issuer, role)
    log.info("a provider signed somebody in", owner=who.owner, role=who.role)


def _begin_session(who: Principal, mark: str, shown: str, role: str | None = None) -> None:
    """Begin a session of who has `shown` what proves it, and write it down."""

    def begin(rows: Session) -> str:
        audit.note(rows, who, Action.SESSION_BEGUN, "session", whose=who.owner, detail=shown)
        return browser_sessions.begin(rows, who.owner, mark, role)

    begun = transact(services().sessions, begin)
    session.clear()
    session[_SESSION] = begun


def _mark_of_provider(ring: Keyring) -> str:
    """Return what stands for the provider in sessions: with another one they end."""
    settings = services().settings
    return ring.mark(f"provider:{settings.oidc_issuer}:{settings.oidc_client_id}")


def sign_out() -> None:
    """Forget who asked, here and in the browser. Raises Unavailable."""
    identifier = session.get(_SESSION)
    if isinstance(identifier, str):
        transact(services().sessions, lambda rows: browser_sessions.end(rows, identifier))
    session.clear()


def csrf_token() -> str:
    """Return the token that this browser's forms carry in `csrf_token`, its scripts in `X-CSRF-Token`."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def _identify(app: Flask) -> None:
    is_nothing = request.endpoint is None and request.path.startswith(_OPEN_BELOW)
    if request.endpoint in rules.OPEN or is_nothing:
        g.who, g.is_keyed = None, False
        return
    if request.endpoint == _NUMBERS and not _ring(app).is_known:
        g.who, g.is_keyed = None, False  # that the database is away is what they are there to tell
        return
    who, g.is_keyed = _who(app)
    g.who = who and _ring(app).limited(who)
    if g.who is None:
        raise Unauthorized(_NO_KEY_YET if _ring(app).is_empty() else _KEY_NEEDED)
    _count(g.who)
    if request.endpoint is not None:
        _check_role(g.who, rules.RULES.get(request.endpoint, Role.ADMIN))


def _count(who: Principal) -> None:
    """Raise TooManyRequests if there are too many of a key within this minute. One that has waited counts once."""
    rate = services().request_rate
    if not later.is_resumed() and (seconds := rate.take(who)):
        raise TooManyRequests(rate.most, seconds)


def _check_role(who: Principal, least: Role) -> None:
    """Raise Forbidden if who asks has a lesser role."""
    if not who.role.includes(least):
        raise Forbidden(f"This needs the key of {_WHO[least]}; yours is that of {_WHO[who.role]}.")


def _who(app: Flask) -> tuple[Principal | None, bool]:
    """Return the caller, and whether a header carried the key (no page can make a browser add one)."""
    ring = _ring(app)
    if not ring.asks():
        return LOCAL, False
    if named := proxy_user.named(services().settings):
        return named, False
    key = _sent_key()
    return (_cookie_principal(ring), False) if key is None else (_tried(app, keys.digest(key), "header"), True)


def _tried(app: Flask, digest: str, way: str) -> Principal | None:
    """Return whose key it is that was sent; a wrong one is counted and logged. Raises TooManyTries."""
    guesses: Guesses = app.extensions[_GUESSES]
    address = request.remote_addr or ""
    if seconds := guesses.wait(address, digest):
        log.warning("keys are tried too fast", address=address, way=way)
        raise TooManyTries(seconds)
    who = _ring(app).find(digest)
    if who is None:
        if _COUNTED not in request.environ:
            guesses.wrong(address)
        log.warning("a key was wrong", address=address, way=way)
    else:
        guesses.right(address, digest)
    return who


def _sent_key() -> str | None:
    """Return the key that a program has sent. At doors whose clients know no other way it is Basic's password."""
    sent = request.authorization
    if sent is not None and sent.type == "basic" and request.path.startswith(WEB_UI):
        return sent.password
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key")


def _cookie_principal(ring: Keyring) -> Principal | None:
    """Return whose session the cookie names, if it lasts and its key does. Raises Unavailable."""
    identifier = session.get(_SESSION)
    if not isinstance(identifier, str):
        return None
    begun = transact(services().sessions, lambda rows: browser_sessions.find(rows, identifier))
    if begun is None:
        return None
    who = ring.of_mark(begun.key_mark) if begun.role is None else _of_provider(ring, begun)
    return replace(who, session=begun.digest) if who and who.owner == begun.owner else None


def _of_provider(ring: Keyring, begun: BrowserSession) -> Principal | None:
    """Return the person that the provider has signed in, as the settings see them now."""
    settings = services().settings
    if not settings.oidc_issuer or begun.key_mark != _mark_of_provider(ring):
        return None
    return person(settings, begun.owner, Role(begun.role) if begun.role else None)


def _check_token(app: Flask) -> None:
    """Raise Forbidden on a form, or on a script that lives off a cookie, without this browser's token.

    Programs need none: they show a key, or reach a farm without keys, where `api.security.origin` refuses
    other pages.
    """
    if isinstance(request.routing_exception, MethodNotAllowed):
        raise request.routing_exception  # no token makes it a method of this route
    is_api = is_program()
    if request.method in SAFE_METHODS or g.is_keyed or (is_api and not has_keys(app)):
        return
    token = request.headers.get(CSRF_HEADER) or ("" if is_api else request.form.get(CSRF_FIELD, ""))
    if not hmac.compare_digest(token.encode(errors="replace"), str(session.get("csrf", secrets.token_hex())).encode()):
        raise Forbidden("The form is too old or came from another site: open the page again and send it from there.")


def _ring(app: Flask) -> Keyring:
    ring: Keyring = app.extensions[_EXTENSION]
    return ring
