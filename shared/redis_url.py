"""FARM_REDIS_URL, read once and written in the forms that redis-py and Celery want, which differ in most of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES: Final = ("redis", "rediss", "unix", "redis+socket")
_TLS: Final = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_VERIFY: Final = ("required", "optional", "none")
_OPTIONS: Final = ("db", "virtual_host", "username", "password", *_TLS)


@dataclass(frozen=True)
class RedisURL:
    """Where Redis is: `place` is `host:port`, or a socket's path; both stay encoded as a URL has them."""

    scheme: str  # redis, rediss or unix
    place: str
    login: str = ""  # `user:password@`, encoded
    database: int = 0
    tls: Mapping[str, str] = field(default_factory=dict)  # redis-py's names

    @property
    def text(self) -> str:
        """The URL in the form of redis-py."""
        if self.scheme == "unix":
            options = {"db": self.database} if self.database else {}
            return f"unix://{self.login}{self.place}{_query(options)}"
        return f"{self.scheme}://{self.login}{self.place}{self._path}{_query(self.tls)}"

    @property
    def broker(self) -> str:
        """The URL in the form of Celery, without TLS."""
        if self.scheme == "unix":
            options = {"virtual_host": self.database} if self.database else {}
            return f"redis+socket://{self.login}{self.place}{_query(options)}"
        return f"redis://{self.login}{self.place}{self._path}"

    @property
    def broker_tls(self) -> dict[str, object] | None:
        """Celery's `broker_use_ssl`: what redis-py does by itself, it verifies certificates and names."""
        if self.scheme != "rediss":
            return None
        options: dict[str, object] = {"ssl_cert_reqs": "required", **self.tls}
        if "ssl_check_hostname" in options:
            options["ssl_check_hostname"] = options["ssl_check_hostname"] == "true"
        return options

    @property
    def _path(self) -> str:
        return f"/{self.database}" if self.database else ""


def read(text: str) -> RedisURL:
    """Return what `text` says. Raises ValueError that says which part of it nobody would understand."""
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    is_socket = parts.scheme in ("unix", "redis+socket")
    _check_options(options, parts.scheme)
    user = unquote(parts.username or "") or options.get("username", "")
    password = unquote(parts.password or "") or options.get("password", "")
    place = parts.netloc.rpartition("@")[2]
    if is_socket and (place or not parts.path.strip("/")):
        raise ValueError("must name a socket by its whole path, as unix:///run/redis.sock does")
    return RedisURL(
        scheme="unix" if is_socket else parts.scheme,
        place=parts.path if is_socket else place,
        login=f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else "",
        database=_database(options, "" if is_socket else unquote(parts.path).strip("/")),
        tls={name: value for name, value in options.items() if name in _TLS},
    )


def _check_options(options: Mapping[str, str], scheme: str) -> None:
    for name in options:
        if name not in _OPTIONS:
            raise ValueError(f"has the option {name!r}, which is none of {', '.join(_OPTIONS)}")
        if name in _TLS and scheme != "rediss":
            raise ValueError(f"has {name!r} without TLS: write rediss:// for it")
    if (verify := options.get("ssl_cert_reqs", "required")) not in _VERIFY:
        raise ValueError(f"has ssl_cert_reqs={verify!r}, which is none of {', '.join(_VERIFY)}")
    if (checks := options.get("ssl_check_hostname", "true")) not in ("true", "false"):
        raise ValueError(f"has ssl_check_hostname={checks!r}, which is neither true nor false")


def _database(options: Mapping[str, str], path: str) -> int:
    named = {value for value in (path, options.get("db", ""), options.get("virtual_host", "")) if value}
    if len(named) > 1:
        raise ValueError("names more than one database")
    number = named.pop() if named else "0"
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"has {number!r} for the database: it is a number, as in redis://host:6379/2")
    return int(number)


def _query(options: Mapping[str, object]) -> str:
    return f"?{urlencode(options)}" if options else ""
