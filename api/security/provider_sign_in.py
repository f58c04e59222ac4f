"""The two halves of signing in at a provider. Between them the browser is elsewhere, and keeps a signed cookie.

That cookie comes along when the provider sends the browser back, as the session's, which is for this site's own links,
does not. It holds nothing that opens anything, and a few minutes later nothing at all.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from flask import Flask, current_app, redirect, request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.wrappers import Response

from api.security import auth
from api.services import Services, services
from shared.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from api.security.provider import Provider

CALLBACK: Final = "/sign-in/callback"
_EXTENSION: Final = "stepfarm-provider"
_SECONDS: Final = 600
_SALT: Final = "provider-flow"


def init_app(app: Flask, joined: Services) -> None:
    """Speak to the provider of the settings, if there is one."""
    if joined.settings.oidc_issuer:
        from api.security.provider import Provider  # noqa: PLC0415 - needs an extra

        app.extensions[_EXTENSION] = Provider(joined.settings)


def name() -> str:
    """Return how people know the provider: its host; empty without one."""
    return urlsplit(services().settings.oidc_issuer).hostname or ""


def begin(wanted: str) -> Response:
    """Send the browser to the provider; afterwards it goes to the page `wanted`. Raises NotFound, Unavailable."""
    address, flow = _provider().begin(wanted, _redirect_uri())
    answer = redirect(address, 303)
    kept = _serializer().dumps(asdict(flow))
    answer.set_cookie(
        _cookie(), kept, max_age=_SECONDS, path=CALLBACK, secure=request.is_secure, httponly=True, samesite="Lax"
    )
    return answer


def finish() -> str:
    """Begin the session of who has signed in, and return the page that they wanted.

    Raises NotFound, Forbidden, TooManyTries, Unavailable.
    """
    provider = _provider()
    from api.security.provider import Flow  # noqa: PLC0415 - needs an extra

    try:
        flow = Flow(**_serializer().loads(request.cookies.get(_cookie(), ""), max_age=_SECONDS))
    except (BadSignature, TypeError):
        raise Forbidden("You began to sign in long ago, or in another browser: sign in again.") from None
    answer = {key: request.args[key] for key in ("state", "code", "iss", "error") if key in request.args}
    auth.sign_in_elsewhere(current_app, lambda: provider.finish(flow, answer, _redirect_uri()))
    return flow.wanted


def forget(answer: Response) -> None:
    """Have the browser drop what it kept."""
    answer.delete_cookie(_cookie(), path=CALLBACK, httponly=True, samesite="Lax")


def _provider() -> Provider:
    found: Any = current_app.extensions.get(_EXTENSION)
    if found is None:
        raise NotFound("Nobody but this farm signs people in here.")
    return cast("Provider", found)


def _redirect_uri() -> str:
    return f"{(services().settings.public_url or request.host_url).rstrip('/')}{CALLBACK}"


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(services().secret, salt=_SALT)


def _cookie() -> str:
    return f"{current_app.config['SESSION_COOKIE_NAME']}-flow"
