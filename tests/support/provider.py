"""An OpenID provider in the process of a test: it signs tokens, and checks what a client must prove."""

from __future__ import annotations

import json
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

ISSUER, CLIENT, SECRET = "https://id.example", "the-farm", "a secret/of+the:farm"


class Provider:
    """`transport` answers as the provider; `authorize` is a person who signs in there."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "first", "use": "sig"})
        self.published: ECKey | None = None  # None: the one that signs
        self.algorithm = "ES256"
        self.metadata: dict[str, Any] = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
        }
        self.claims: dict[str, Any] = {"sub": "4711", "email": "ann@example.org", "email_verified": True}
        self.changed: Callable[[dict[str, Any]], object] = lambda _: None
        self.is_away = False
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.transport = httpx.MockTransport(self._answer)

    def authorize(self, address: str) -> str:
        """Sign in at the address that the farm led to; return the address that the browser is sent back to."""
        parts = urlsplit(address)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == self.metadata["authorization_endpoint"]
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert (asked["code_challenge_method"], "openid" in asked["scope"].split()) == ("S256", True)
        code = f"code-{len(self._codes)}"
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}"

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.is_away:
            raise httpx.ConnectTimeout("away")
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=self.metadata)
        if request.url.path == "/keys":
            return httpx.Response(200, json=KeySet([self.published or self.key]).as_dict(private=False))
        return self._token(request)

    def _token(self, request: httpx.Request) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        login = b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode().split(":", 1)
        asked = self._codes.pop(form["code"], None)
        challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
        is_proved = asked and (challenge, form["redirect_uri"]) == (asked["code_challenge"], asked["redirect_uri"])
        if not is_proved or [unquote(one) for one in login] != [CLIENT, SECRET]:
            return httpx.Response(400, json={"error": "invalid_grant"})
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]} | self.claims
        self.changed(claims)
        token = jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, claims, self.key, [self.algorithm])
        return httpx.Response(200, content=json.dumps({"id_token": token, "token_type": "Bearer"}))
