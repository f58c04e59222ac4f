"""The forms of values of settings: keys, URLs, lists, folders. A value that cannot be read raises ValueError."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from shared.accounts.limits import of_role
from shared.models.folders import ModelFolders
from shared.params.pools import POOL, POOL_NAMES
from shared.redis_url import read as read_redis_url

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}")
_OTHER_HEADERS = {
    *("accept", "accept-language", "authorization", "connection", "content-length", "content-type", "cookie"),
    *("forwarded", "host", "idempotency-key", "if-none-match", "last-event-id", "origin", "prefer", "referer"),
    *("user-agent", "x-api-key", "x-csrf-token", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
}
_ROLES = ("viewer", "user", "operator", "admin")
OF_HTTP = ("http", "https")  # the other servers may be reached over a socket, without a host
_VISIBLE = re.compile(r"[!-~]+")
_ADDRESS = re.compile(r"[\w+]+://([^/?#]*)([/?#]?)(.*)", re.DOTALL)
_ENCODE = (
    "has a character in its user or password that a URL must have encoded: %2F for /, %40 for @, %3A for :, %3F for ?, "
    "%23 for #, %25 for %"
)


_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*(?:([kmgtp]?)i?b?)", re.IGNORECASE)
_POWERS = ("", "k", "m", "g", "t", "p")
AUTO = "auto"


def quantity(value: object) -> object:
    """Return a text such as `12GB` or `800 MiB` in bytes, in powers of 1024; None for `auto`."""
    if not isinstance(value, str):
        return value
    if value.strip().casefold() == AUTO:
        return None
    found = _QUANTITY.fullmatch(value.strip())
    if not found:
        raise ValueError("must be a quantity of memory such as 12GB or 800MB, a number of bytes, or auto")
    return int(float(found[1]) * 1024 ** _POWERS.index(found[2].casefold()))


def split_keys(value: object) -> object:
    """`ann:secret,bob:other` -> {secret: owner}; an owner may have several keys."""
    if not isinstance(value, str):
        return value
    split = [pair.partition(":") for pair in value.split(",") if pair.strip()]
    pairs = [(key.strip(), owner.strip()) for owner, _, key in split]
    if any(not owner or len(key) < 8 for key, owner in pairs):
        raise ValueError("must be owner:key pairs separated by commas, each key at least 8 characters long")
    if not all(_VISIBLE.fullmatch(key) for key, _ in pairs):
        raise ValueError("must have keys that a header can carry: of ASCII characters, without blanks")
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("gives the same key twice")
    return keys


def url_of(*schemes: str) -> BeforeValidator:
    """Return what refuses all but URLs of these schemes, and nothing."""

    def check(value: object) -> object:
        if isinstance(value, str) and value and not _is_url(value, schemes):
            raise ValueError(_why_no_url(value, schemes))
        return value

    return BeforeValidator(check)


def _why_no_url(value: str, schemes: tuple[str, ...]) -> str:
    if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        return f"must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    return _ENCODE if _is_torn(value) else "must have a host, and behind it no port or one from 1 to 65535"


def _is_torn(text: str) -> bool:
    """Return whether a character of the user or password ends the address too soon, or begins it too soon."""
    found = _ADDRESS.match(text)
    if not found:
        return False
    address, mark, rest = found.groups()
    before, at, _ = rest.partition("@")
    is_option = "=" in before and "?" in mark + before
    return address.count("@") > 1 or bool(at and address and "@" not in address and not is_option)


def redis_url(value: str) -> str:
    """Return the URL of a Redis, in the form of redis-py."""
    return read_redis_url(value).text if value else value


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        is_whole = parts.port is None or parts.port > 0
    except ValueError:  # a port that is not a number, half an IPv6 address
        return False
    has_host = bool(parts.hostname) or parts.scheme not in OF_HTTP
    return is_whole and has_host and parts.scheme in schemes and not _is_torn(text)


def pools(given: str) -> str:
    """Return a list of pools by commas, each once."""
    names = [name.strip() for name in given.split(",")]
    wrong = [name for name in names if not POOL.fullmatch(name)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not the name of a pool: {POOL_NAMES}")
    return ",".join(dict.fromkeys(names))


def proxies(given: str) -> str:
    """Return a list of addresses and networks by commas."""
    for address in filter(None, map(str.strip, given.split(","))):
        try:
            ip_network(address)
        except ValueError:
            raise ValueError(
                f"{address!r} is neither an address such as 10.0.0.7 nor a network such as 10.0.0.0/8"
            ) from None
    return given


def header(given: str) -> str:
    """Return the name of a header that nobody but a proxy sends."""
    name = given.strip()
    if name and not _HEADER.fullmatch(name):
        raise ValueError("must be the name of a header, of letters, digits and hyphens, such as X-Forwarded-User")
    if name.casefold() in _OTHER_HEADERS:
        raise ValueError(f"is {name}, which clients send for another purpose: name one such as X-Forwarded-User")
    return name


def issuer(given: str) -> str:
    """Return the URL of an OpenID provider: over TLS, or on this machine."""
    parts = urlsplit(given)
    if given and parts.scheme != "https" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ValueError("must be a URL that starts with https://: answers that somebody changed could name anybody")
    if parts.query or parts.fragment:
        raise ValueError("must be an issuer's URL, without ? and #")
    return given


def roles(given: str) -> str:
    """Return `role:value` pairs by commas as they were given."""
    role_names(given)
    return given


def role_names(given: str) -> dict[str, frozenset[str]]:
    """Return the values of such pairs by their roles."""
    found: dict[str, frozenset[str]] = {}
    for pair in filter(None, map(str.strip, given.split(","))):
        role, _, value = (part.strip() for part in pair.partition(":"))
        if role not in _ROLES or not value:
            raise ValueError(f"{pair!r} is not a pair such as admin:farm-admins; roles are {', '.join(_ROLES)}")
        found[role] = found.get(role, frozenset()) | {value}
    return found


def networks(given: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks of such a list."""
    return tuple(ip_network(address) for address in filter(None, map(str.strip, given.split(","))))


def owners(given: str) -> str:
    """Return a list of owners by commas, each once."""
    return ",".join(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def limits(given: str) -> str:
    """Return a role's limits as they were given."""
    of_role(given)
    return given


def folder(value: object) -> object:
    """Return a path as a text as the absolute path that it means; ~ is somebody's home."""
    return Path(value).expanduser().absolute() if isinstance(value, str) and value else value


def model_folders(value: object) -> object:
    """Return a list of folders, or one, as the folders that it means."""
    return ModelFolders.of(str(value)) if isinstance(value, str | Path) else value


Quantity = Annotated[int | None, BeforeValidator(quantity)]
Folder = Annotated[Path, BeforeValidator(folder)]
ApiKeys = Annotated[dict[str, str], BeforeValidator(split_keys)]
