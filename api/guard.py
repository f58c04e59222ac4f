"""Keeps other web pages out: Host, Origin and fetch metadata of requests, security headers of answers."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, request

from shared.errors import Forbidden
from shared.settings import LOOPBACK, Settings

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PROBES: Final = frozenset({"/livez", "/readyz"})  # an orchestrator asks under whatever address it knows
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound to
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def init_app(app: Flask, settings: Settings) -> None:
    """Check every request before anything else looks at it, and give every answer its headers."""
    hosts = _known_hosts(settings)

    def check() -> None:
        _check_host(hosts)
        _check_page()

    app.before_request(check)
    app.after_request(_add_headers)


def _known_hosts(settings: Settings) -> frozenset[str]:
    """Return the names that pages may be asked under; none: any.

    On loopback the names are always checked: a page of another site could otherwise point its own name at 127.0.0.1
    (DNS rebinding) and use a farm that asks for no key. Behind keys such a page has none to show.
    """
    further = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
    if not settings.is_loopback and not further:
        return frozenset()
    return frozenset(LOOPBACK | further | ({settings.host.lower()} - _ANY_ADDRESS))


def _check_host(hosts: frozenset[str]) -> None:
    if hosts and request.path not in _PROBES and _host_name(request.host) not in hosts:
        raise Forbidden("This farm is not asked under that Host; FARM_ALLOWED_HOSTS names further ones.")


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # an unfinished IPv6 address
        return None


def _check_page() -> None:
    """Refuse what a page of another origin asked its browser to send, links that are followed apart."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    is_link = request.method in SAFE_METHODS and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if site not in ("same-origin", "none") and not is_link:
        raise Forbidden("The request came from a page of another site.")
    origin = request.headers.get("Origin")
    if origin is not None and request.method not in SAFE_METHODS and _netloc(origin) != request.host:
        raise Forbidden("The request came from a page of another origin.")


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _add_headers(answer: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer
