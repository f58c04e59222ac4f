"""An OpenID provider that signs people in: the code flow with PKCE, state and nonce.

Its tokens are read by authlib and joserfc, which the extra `oidc` brings: a farm without a provider does without them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
import structlog
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from shared.accounts import keys
from shared.accounts.people import person
from shared.accounts.principal import Principal, Role
from shared.errors import Forbidden, Unavailable
from shared.settings import Settings

log = structlog.get_logger(__name__)

_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
"""Signatures by a key that the provider alone has."""
_KEPT_SECONDS: Final = 3600.0  # what the provider says about itself
_NEW_KEYS_SECONDS: Final = 30.0  # between two looks for a key that is not known
_TIMEOUT_SECONDS: Final = 5.0
_AWAY_SECONDS: Final = 5.0  # after a failure the next ones who sign in hear of it at once
_MOST_REMEMBERED: Final = 4096
_MOST_BYTES: Final = 2**18  # of an answer
_LEEWAY_SECONDS: Final = 60  # between the provider's clock and ours
_AWAY: Final = "The sign-in provider does not answer: try again later, or use a key."
_NOT_ITS_OWN: Final = "The sign-in provider's answer cannot be trusted: sign in again."


@dataclass(frozen=True)
class Flow:
    """What a browser keeps between the two halves of signing in."""

    state: str
    nonce: str
    verifier: str
    wanted: str  # page to go to


class Provider:
    """The provider of the settings. Safe for many threads."""

    def __init__(
        self,
        settings: Settings,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, transport=transport, follow_redirects=False)
        self._clock = clock
        self._lock = Lock()
        self._away_until = 0.0
        self._used: OrderedDict[str, None] = OrderedDict()  # states that came back
        self._documents: dict[str, tuple[float, Any]] = {}  # by their addresses, with when they were read

    def begin(self, wanted: str, redirect_uri: str) -> tuple[str, Flow]:
        """Return where a browser goes to sign in, and what it keeps meanwhile. Raises Unavailable."""
        flow = Flow(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), wanted)
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": redirect_uri,
            "scope": self._settings.oidc_scopes,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": create_s256_code_challenge(flow.verifier),
            "code_challenge_method": "S256",
        }
        endpoint = self._said("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}", flow

    def finish(self, flow: Flow, answer: Mapping[str, str], redirect_uri: str) -> tuple[Principal, str]:
        """Return who has signed in, and the role that the provider's claims give them, or an empty text.

        `answer` is what the browser brings back. Raises Forbidden, Unavailable.
        """
        if not secrets.compare_digest(answer.get("state", "").encode(), flow.state.encode()):
            raise Forbidden(_NOT_ITS_OWN)
        if answer.get("iss", self._settings.oidc_issuer).rstrip("/") != self._settings.oidc_issuer.rstrip("/"):
            raise Forbidden(_NOT_ITS_OWN)  # RFC 9207: another provider's code
        if "code" not in answer:
            log.info("the provider signed nobody in", error=answer.get("error", "")[:100])
            raise Forbidden("The sign-in provider has signed nobody in.")
        self._use(flow.state)
        tokens = self._tokens(flow, answer["code"], redirect_uri)
        return self._named(self._claims(flow, tokens))

    def _use(self, state: str) -> None:
        """Raise Forbidden if a state came back before."""
        with self._lock:
            if state in self._used:
                raise Forbidden(_NOT_ITS_OWN)
            self._used[state] = None
            if len(self._used) > _MOST_REMEMBERED:
                self._used.popitem(last=False)

    def _tokens(self, flow: Flow, code: str, redirect_uri: str) -> Mapping[str, Any]:
        """Trade the code for tokens."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": flow.verifier,
            "client_id": self._settings.oidc_client_id,
        }
        ways = self._metadata().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        secret, login = self._settings.oidc_client_secret, None
        if secret and "client_secret_basic" in ways:  # RFC 6749, 2.3.1: each is encoded as in a form
            login = httpx.BasicAuth(quote(self._settings.oidc_client_id, safe=""), quote(secret, safe=""))
        elif secret:
            form["client_secret"] = secret
        request = self._client.build_request("POST", self._said("token_endpoint"), data=form)
        answer = self._asked(request, login)
        if not isinstance(answer, dict) or not isinstance(answer.get("id_token"), str):
            raise Forbidden(_NOT_ITS_OWN)
        return answer

    def _claims(self, flow: Flow, tokens: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what an ID token says, if the provider has signed it for this farm, this browser and now."""
        text, issuer, ours = tokens["id_token"], self._metadata()["issuer"], self._settings.oidc_client_id
        options = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": ours}}
        params = {"nonce": flow.nonce, "client_id": ours, "access_token": tokens.get("access_token")}
        try:
            token = self._verified(text)
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(int(time.time()), _LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            log.warning("an ID token was refused", reason=str(error) or repr(error))
            raise Forbidden(_NOT_ITS_OWN) from error
        return dict(claims)

    def _verified(self, text: str) -> jwt.Token:
        """Return a token with a good signature; keys are read again if none fits, as after the provider changed its."""
        address = self._said("jwks_uri")
        try:
            return self._decoded(text, self._document(address))
        except (JoseError, ValueError):
            return self._decoded(text, self._document(address, _NEW_KEYS_SECONDS))

    @staticmethod
    def _decoded(text: str, keys: Any) -> jwt.Token:  # noqa: ANN401 - JSON of the provider
        return jwt.decode(text, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)

    def _named(self, claims: Mapping[str, Any]) -> tuple[Principal, str]:
        """Return the person that the claims name, and the role that they give. Raises Forbidden."""
        wanted = self._settings.oidc_owner_claim
        name = claims.get(wanted)
        if not isinstance(name, str) or not name:
            log.warning("an ID token lacks the claim that names its owner", claim=wanted)
            raise Forbidden(f"The sign-in provider does not say who you are: its token has no claim {wanted}.")
        if wanted == "email" and claims.get("email_verified") is not True:
            raise Forbidden("The sign-in provider has not verified your e-mail address.")
        role = self._role(claims, name)
        return person(self._settings, name, Role(role) if role else None), role

    def _role(self, claims: Mapping[str, Any], name: str) -> str:
        """Return the highest role that the claims give; empty if the settings map none. Raises Forbidden."""
        roles = self._settings.oidc_role_names
        if not roles:
            return ""
        found = claims.get(self._settings.oidc_role_claim)
        values = {value for value in (found if isinstance(found, list) else [found]) if isinstance(value, str)}
        given = [role for role in Role if values & roles.get(role, frozenset())]
        if not given:
            raise Forbidden(f"The sign-in provider gives {name[: keys.LONGEST]} no role on this farm.")
        return given[-1].value

    def _said(self, name: str) -> str:
        """Return one of the provider's addresses."""
        address = self._metadata().get(name)
        if not isinstance(address, str) or not address.startswith(("https://", "http://")):
            raise _away(f"its metadata names no {name}")
        return address

    def _metadata(self) -> Mapping[str, Any]:
        issuer = self._settings.oidc_issuer
        found = self._document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(found, dict) or str(found.get("issuer", "")).rstrip("/") != issuer.rstrip("/"):
            raise _away("its metadata are another issuer's")
        return found

    def _document(self, address: str, fresh_seconds: float = _KEPT_SECONDS) -> Any:  # noqa: ANN401 - JSON
        """Return a JSON document of the provider, which is read again when it is old."""
        with self._lock:
            read_at, found = self._documents.get(address, (-_KEPT_SECONDS, None))
            if found is not None and self._clock() - read_at <= fresh_seconds:
                return found
            if self._clock() < self._away_until:
                raise Unavailable(_AWAY)
            try:
                found = self._asked(self._client.build_request("GET", address))
            except Unavailable:
                self._away_until = self._clock() + _AWAY_SECONDS
                raise
            self._documents[address] = (self._clock(), found)
            return found

    def _asked(self, request: httpx.Request, login: httpx.Auth | None = None) -> Any:  # noqa: ANN401 - JSON
        """Return the provider's answer. Raises Forbidden if it refuses, Unavailable if none comes."""
        request.headers["Accept"] = "application/json"
        try:
            answer = self._client.send(request, auth=login, stream=True)
            try:
                body = b""
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > _MOST_BYTES:
                        raise _away("its answer is too long")
            finally:
                answer.close()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _away(repr(error)) from error
        if answer.status_code in (400, 401, 403):
            log.warning("the provider refused", path=request.url.path, status=answer.status_code, body=body[:200])
            raise Forbidden("The sign-in provider has refused: sign in again.")
        if answer.status_code != httpx.codes.OK:
            raise _away(f"it answered {answer.status_code}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise _away("it answered no JSON") from error


def _away(reason: str) -> Unavailable:
    log.warning("the provider does not answer", reason=reason)
    return Unavailable(_AWAY, reason)
