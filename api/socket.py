"""The API's listening socket, for the server and for the process that starts it; without Flask and uvicorn.

The starting process opens the socket and passes it on. So it knows the address also with port 0, and while a dead API
is restarted, clients wait in the socket's queue and are not refused.
"""

from __future__ import annotations

import socket
import sys
from importlib.util import find_spec
from typing import Final

from shared.errors import SettingsError
from shared.settings import Settings

GRACE_SECONDS: Final = 20  # for requests in flight when the API is told to stop; streams and waits end at once
BACKLOG: Final = 512
SEND_BUFFER_BYTES: Final = 2**18  # of a connection: the kernel would take megabytes for a client that reads nothing


def check_admins(settings: Settings) -> None:
    """Raise SettingsError if an owner who is to be an admin has no key, and nobody else signs people in."""
    owners = {*settings.api_keys.values()}
    if strangers := [name for name in settings.admin_names if name not in owners and not settings.signs_in]:
        raise SettingsError(
            f"FARM_ADMINS={settings.admins!r} must name owners that have a key in FARM_API_KEYS; without one: "
            f"{', '.join(strangers)}. `farm keys create --role admin` makes an admin's key without that."
        )


def check_provider(settings: Settings) -> None:
    """Raise SettingsError if a provider is to sign people in, and the packages for that are missing."""
    if settings.oidc_issuer and not all(map(find_spec, ("authlib", "joserfc"))):
        raise SettingsError(
            "FARM_OIDC_ISSUER is set, and the packages that speak to a provider are not installed: "
            "pip install --no-deps --require-hashes -r deploy/lock/oidc.txt (or the extra: stepfarm[oidc])."
        )


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on the API's address. Raises SettingsError."""
    check_admins(settings)
    check_provider(settings)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"FARM_HOST={settings.host!r}, FARM_PORT={settings.port}: cannot listen there: {error.strerror}."
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # connections inherit it
    return listener


def address(listener: socket.socket) -> str:
    """Return the URL under which this machine reaches `listener`."""
    host, port = listener.getsockname()[:2]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - told apart, not bound to
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def command(listener: socket.socket) -> list[str]:
    """Return the command that serves `listener`, which must be passed on to it (`pass_fds`)."""
    return [sys.executable, "-m", "api.serve", "--fd", str(listener.fileno())]
