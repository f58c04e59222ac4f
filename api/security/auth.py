"""The caller of a request: by a key, by a cookie that a key was traded for, or, without keys, the one local owner."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import structlog
from flask import Flask, g, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import MethodNotAllowed

from api.programs import SDAPI, is_program
from api.security import sessions
from api.security.key_guesses import Guesses
from api.security.origin import SAFE_METHODS
from api.services import Services, services
from shared.accounts.principal import LOCAL, Principal, Role
from shared.db.sessions import transact
from shared.errors import Forbidden, SettingsError, TooManyTries, Unauthorized

log = structlog.get_logger(__name__)

CSRF_FIELD: Final = "csrf_token"
CSRF_HEADER: Final = "X-CSRF-Token"
_EXTENSION: Final = "stepfarm-keys"
_GUESSES: Final = "stepfarm-guesses"
_OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/sign-in", "/openapi.json"})
_OPEN_BELOW: Final = ("/static/", "/s/")  # a share link's token is the key to what it shows
_SESSION: Final = "id"
_COUNTED: Final = "stepfarm.counted"  # in the environ of a request whose key was found wrong before its body was read


@dataclass(frozen=True)
class Keyring:
    """The farm's keys, as digests: what a key opens is looked up in the same time whichever it is."""

    owners: Mapping[str, str]  # SHA-256 of a key -> its owner
    secret: bytes = field(repr=False)

    @classmethod
    def from_keys(cls, api_keys: Mapping[str, str], secret: str) -> Self:
        """Return the ring of `api_keys` (key -> owner)."""
        return cls({_digest(key): owner for key, owner in api_keys.items()}, secret.encode())

    def find(self, digest: str) -> str | None:
        """Return the owner of the key with this digest; every key is compared, however early one fits."""
        found = [owner for known, owner in self.owners.items() if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    def mark(self, digest: str) -> str:
        """Return what stands for a key in a session: nobody without the farm's secret can try keys against it."""
        return hmac.new(self.secret, f"session {digest}".encode(), sha256).hexdigest()

    @cached_property
    def owners_by_mark(self) -> Mapping[str, str]:
        """The owners of the keys, by the keys' marks."""
        return {self.mark(digest): owner for digest, owner in self.owners.items()}


class _Cookies(SecureCookieSessionInterface):
    """Flask's signed cookie, sent over TLS alone where the request came over TLS."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - as Flask calls it
        return request.is_secure


def init_app(app: Flask, joined: Services) -> None:
    """Find out who asks before every view, and check the token of forms."""
    settings = joined.settings
    secret = settings.secret_key or kept_secret(settings.home)
    app.secret_key = secret
    app.session_interface = _Cookies()
    app.config.update(
        SESSION_COOKIE_NAME=f"stepfarm-{_digest(secret)[:8]}",  # two farms on one machine share its cookies
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
    )
    app.extensions[_EXTENSION] = Keyring.from_keys(settings.api_keys, secret)
    app.extensions[_GUESSES] = Guesses()
    app.before_request(lambda: _identify(app))
    app.before_request(lambda: _check_token(app))


def is_known(app: Flask, environ: dict[str, Any]) -> bool:
    """True if the request of `environ` says who asks, as far as its address may try keys now.

    A wrong key counts here already, because a client that expects `100 Continue` is refused before it sends its body.
    """
    with app.request_context(environ):
        ring, key = _ring(app), _sent_key()
        if not ring.owners:
            return True
        if key is None:
            return _cookie_owner(ring) is not None
        guesses: Guesses = app.extensions[_GUESSES]
        address, digest = request.remote_addr or "", _digest(key)
        if guesses.wait(address, digest):
            return False
        if ring.find(digest) is None:
            guesses.wrong(address)
            environ[_COUNTED] = True
            return False
        return True


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
    return bool(_ring(app).owners)


def sign_in(app: Flask, key: str) -> str:
    """Trade a key for a cookie and return its owner. Raises Unauthorized, TooManyTries, Unavailable."""
    ring, digest = _ring(app), _digest(key)
    name = _tried(app, digest, "sign-in")
    if name is None:
        raise Unauthorized("This farm does not know that key.")
    begun = transact(services().sessions, lambda rows: sessions.begin(rows, name, ring.mark(digest)))
    session.clear()
    session[_SESSION] = begun
    return name


def sign_out() -> None:
    """Forget who asked, here and in the browser. Raises Unavailable."""
    identifier = session.get(_SESSION)
    if isinstance(identifier, str):
        transact(services().sessions, lambda rows: sessions.end(rows, identifier))
    session.clear()


def csrf_token() -> str:
    """Return the token that this browser's forms carry in `csrf_token`, its scripts in `X-CSRF-Token`."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def _identify(app: Flask) -> None:
    is_open = request.path in _OPEN_PATHS or request.path.startswith(_OPEN_BELOW)
    g.who, g.is_keyed = (None, False) if is_open and has_keys(app) else _who(app)
    if g.who is None and not is_open:
        raise Unauthorized("A key is needed: send Authorization: Bearer KEY, or sign in with one.")


def _who(app: Flask) -> tuple[Principal | None, bool]:
    """Return the caller, and whether a header carried the key (no page can make a browser add one)."""
    ring = _ring(app)
    if not ring.owners:
        return LOCAL, False
    key = _sent_key()
    owner = _cookie_owner(ring) if key is None else _tried(app, _digest(key), "header")
    return Principal(owner, Role.USER) if owner else None, key is not None


def _tried(app: Flask, digest: str, way: str) -> str | None:
    """Return whose key it is that was sent; a wrong one is counted and logged. Raises TooManyTries."""
    guesses: Guesses = app.extensions[_GUESSES]
    address = request.remote_addr or ""
    if seconds := guesses.wait(address, digest):
        log.warning("keys are tried too fast", address=address, way=way)
        raise TooManyTries(seconds)
    name = _ring(app).find(digest)
    if name is None:
        if _COUNTED not in request.environ:
            guesses.wrong(address)
        log.warning("a key was wrong", address=address, way=way)
    else:
        guesses.right(address, digest)
    return name


def _sent_key() -> str | None:
    """Return the key that a program has sent. At doors whose clients know no other way it is Basic's password."""
    sent = request.authorization
    if sent is not None and sent.type == "basic" and request.path.startswith(SDAPI):
        return sent.password
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key")


def _cookie_owner(ring: Keyring) -> str | None:
    """Return whose session the cookie names, if it lasts. Raises Unavailable."""
    identifier = session.get(_SESSION)
    if not isinstance(identifier, str):
        return None
    return transact(services().sessions, lambda rows: sessions.owner(rows, identifier, ring.owners_by_mark))


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


def _digest(key: str) -> str:
    return sha256(key.encode(errors="surrogateescape")).hexdigest()


def kept_secret(home: Path) -> str:
    """Return the secret in `home`, made once: of processes that start at the same time, one makes it.

    Raises SettingsError if nothing can be stored.
    """
    try:
        secret_file = home / "secret"
        if not secret_file.exists():
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_secret(secret_file)
        return secret_file.read_text()
    except OSError as error:
        raise SettingsError(
            f"FARM_HOME={str(home)!r}: the secret that signs cookies cannot be kept there ({error.strerror}); "
            "make it writable, or set FARM_SECRET_KEY."
        ) from error


def _make_secret(secret_file: Path) -> None:
    """Make the file whole under its name, or leave the one that another process was first with."""
    draft = secret_file.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32))
    try:
        with suppress(FileExistsError):
            os.link(draft, secret_file)
    finally:
        draft.unlink()
