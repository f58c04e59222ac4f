"""The client behind a proxy, and how it connected: told by proxies that are trusted, and by nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

_PORT: Final = re.compile(r"^\[([^]]*)\](?::\d{1,5})?$|^([\d.]+):\d{1,5}$")

PEER: Final = "stepfarm.peer"
"""In the environ: the address that the connection itself came from."""

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Networks = Sequence[IPv4Network | IPv6Network]


class Proxied:
    """A WSGI application that sees the client's address and scheme instead of its proxy's."""

    def __init__(self, wsgi: WSGI, trusted: Networks) -> None:
        self._wsgi = wsgi
        self._trusted = trusted

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI's own
        unwrap(environ, self._trusted)
        return self._wsgi(environ, start_response)


def unwrap(environ: dict[str, Any], trusted: Networks) -> None:
    """Put the client's own address and scheme into `environ`, and its peer's beside it.

    Doing so twice changes nothing further.
    """
    peer = environ.setdefault(PEER, environ.get("REMOTE_ADDR", ""))
    if is_trusted(peer, trusted):
        environ["REMOTE_ADDR"] = client(peer, environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)
        environ["wsgi.url_scheme"] = scheme(environ.get("HTTP_X_FORWARDED_PROTO", ""), environ["wsgi.url_scheme"])


def client(peer: str, forwarded_for: str, trusted: Networks) -> str:
    """Return the address nearest to this farm that is not a trusted proxy's: addresses before it may be forged.

    If a proxy names something other than an address, such as `unknown`, the proxy stands for its clients.
    """
    nearest = peer
    for hop in reversed(_values(forwarded_for)):
        address = _address(hop)
        if address is None or not is_trusted(nearest, trusted):
            break
        nearest = address
    return nearest


def scheme(forwarded_proto: str, otherwise: str) -> str:
    """Return how the browser reached the first of the proxies, which each add a value behind the ones before."""
    first = (_values(forwarded_proto) or [otherwise])[0].lower()
    return first if first in ("http", "https") else otherwise


def is_trusted(address: str, trusted: Networks) -> bool:
    """True where `address` is one of the proxies."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in trusted)


def _address(hop: str) -> str | None:
    """Return an address without the port that some proxies add; None if it is none."""
    bare = _PORT.sub(r"\1\2", hop)
    try:
        ip_address(bare)
    except ValueError:
        return None
    return bare


def _values(header: str) -> list[str]:
    return [value.strip() for value in header.split(",") if value.strip()]
