"""Where webhooks may be sent to: addresses of the internet, and of the own network only those that a setting names.

People who may submit jobs must not reach, through the farm, what only its machines reach: other services on this
machine, the network around it, the metadata of a cloud. So a name is resolved here, and the connection is made to the
very address that was looked at.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

import structlog

from shared.errors import FarmError

log = structlog.get_logger(__name__)

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

LONGEST: Final = 2000  # characters of a URL
ACCEPTED: Final = "an address of http or https that the internet can reach"
_VISIBLE: Final = re.compile(r"[!-~]+")
_INSIDE_NAMES: Final = ("localhost", ".localhost", ".local", ".internal", ".home.arpa")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # the IPv4 address stands in the last four bytes
_INTERNET6: Final = IPv6Network("2000::/3")  # all of IPv6 that is given out for the internet
_PLATFORM: Final = IPv4Address("168.63.129.16")  # the host of a machine on Azure, at an address of the internet


class Inside(FarmError):
    """The address is one that webhooks are not sent to."""


class Nowhere(FarmError):
    """No address is known for the name."""


def wrong_with(url: str, allowed: Networks = ()) -> str | None:
    """Return why nothing can be sent to `url`, as far as the text alone says it; None: its name must be resolved."""
    if not _VISIBLE.fullmatch(url):
        return "has blanks or characters outside ASCII"
    if len(url) > LONGEST:
        return f"is longer than {LONGEST:,} characters"
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, half an IPv6 address
        return "is not a URL"
    if not is_whole:
        return "is not the URL of a server"
    if "@" in parts.netloc:
        return "has a user or a password in it"
    return _wrong_with_host(parts.hostname or "", allowed)


def _wrong_with_host(host: str, allowed: Networks) -> str | None:
    try:
        address = ip_address(host)
    except ValueError:
        is_inside = host.rstrip(".").endswith(_INSIDE_NAMES)
        return "is a name of the farm's own network" if is_inside and not allowed else None
    return None if may_be_sent_to(address, allowed) else f"is an address of the farm's own network, {host}"


def resolved(host: str, port: int, allowed: Networks) -> list[str]:
    """Return the addresses of a host that something may be sent to. Raises Nowhere, Inside.

    Asks the resolver of this machine, which takes as long as that is set to.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Nowhere(f"no address is known for {host} ({error})") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    outside = [address for address in addresses if may_be_sent_to(ip_address(address), allowed)]
    if not outside:
        log.warning("webhook leads inside", host=host, addresses=addresses)  # for the operator alone
        raise Inside(f"{host} is in the farm's own network; its operator can allow that in FARM_WEBHOOK_NETWORKS")
    return outside


def may_be_sent_to(address: Address, allowed: Networks) -> bool:
    """Return whether an address is one of the internet, or in a network that is allowed."""
    meant = _meant(address)
    if any(meant.version == network.version and meant in network for network in allowed):
        return True
    if meant.version == 6 and meant not in _INTERNET6:  # former forms of inside and IPv4 addresses pass for global
        return False
    return meant.is_global and not meant.is_multicast and meant != _PLATFORM


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address carries, if it does: a gateway would take it there."""
    if not isinstance(address, IPv6Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
