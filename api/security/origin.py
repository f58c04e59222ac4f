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
    hosts, named = _known_hosts(settings), _named_hosts(settings)

    def check() -> None:
        _check_host(hosts)
        _check_page(named)

    app.before_request(check)
    app.after_request(_add_headers)


def _known_hosts(settings: Settings) -> frozenset[str]:
    """Return the names that pages may be asked under; none: any.

    On loopback the names are always checked: a page of another site could otherwise point its own name at 127.0.0.1
    (DNS rebinding) and use a farm that asks for no key. Behind keys such a page has none to show.
    """
    further = _named_hosts(settings)
    if not settings.is_loopback and not further:
        return frozenset()
    return frozenset(LOOPBACK | further | ({settings.host.lower()} - _ANY_ADDRESS))


def _named_hosts(settings: Settings) -> frozenset[str]:
    """Return the names that the farm's operator calls its own."""
    return frozenset(name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip())


def _check_host(hosts: frozenset[str]) -> None:
    if hosts and request.path not in _PROBES and _host_name(request.host) not in hosts:
        raise Forbidden(f"This farm does not answer to the Host {request.host}: add it to FARM_ALLOWED_HOSTS.")


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # an unfinished IPv6 address
        return None


def _check_page(named: frozenset[str]) -> None:
    """Refuse what a page of another origin asked its browser to send, except followed links.

    Where a proxy puts a Host of its own in place of the browser's, the names that the operator gave tell the farm's
    pages from others.
    """
    site = request.headers.get("Sec-Fetch-Site", "none")
    is_link = request.method in SAFE_METHODS and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if site not in ("same-origin", "none") and not is_link:
        raise Forbidden("The request came from a page of another site.")
    origin = request.headers.get("Origin")
    if origin is None or request.method in SAFE_METHODS:
        return
    netloc = _netloc(origin)
    if netloc != request.host and _host_name(netloc) not in named:
        raise Forbidden(_foreign(netloc))


def _foreign(netloc: str) -> str:
    if not netloc:
        return "The request came from a page of another origin."
    return (
        f"The request came from a page of {netloc} and was sent to {request.host}. If {netloc} is this farm behind a "
        f"proxy, have the proxy pass the browser's Host header on (nginx: proxy_set_header Host $http_host), or name "
        f"{_host_name(netloc)} in FARM_ALLOWED_HOSTS."
    )


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _add_headers(answer: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer
