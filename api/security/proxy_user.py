"""People who signed in at the proxy: a header names them, and it counts from the proxy's own connections alone."""

from __future__ import annotations

import structlog
from flask import request

from api.security.proxies import PEER, is_trusted
from shared.accounts.people import person
from shared.accounts.principal import Principal
from shared.errors import Forbidden
from shared.settings import Settings

log = structlog.get_logger(__name__)


def names_somebody(settings: Settings) -> bool:
    """True if the request has the header, also from elsewhere."""
    return bool(settings.proxy_user_header and request.headers.get(settings.proxy_user_header))


def named(settings: Settings) -> Principal | None:
    """Return the person that the proxy names; None if nobody is named, or no setting says how.

    Raises Forbidden for a name that others than the proxy have sent, and for one that cannot be an owner's. Two headers
    of the name are one value with a comma here, which no owner has.
    """
    header = settings.proxy_user_header
    sent = request.headers.get(header, "").strip(" \t") if header else ""
    if not sent:
        return None
    peer = request.environ.get(PEER, "")
    if not is_trusted(peer, settings.proxies):
        log.warning("a header that only the proxy may send came from elsewhere", header=header, address=peer)
        raise Forbidden(f"{header} came from {peer}, which is none of FARM_TRUSTED_PROXIES.")
    try:
        return person(settings, sent.encode("latin-1").decode())  # as WSGI has what is UTF-8
    except UnicodeError:
        raise Forbidden(f"{header} is not text in UTF-8.") from None
