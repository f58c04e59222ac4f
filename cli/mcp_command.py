"""`farm mcp`: its server comes with an extra that not every machine has installed."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec

from shared.errors import FarmError
from shared.settings import Settings


def serve(settings: Settings, address: tuple[str, int] | None, names: Collection[str]) -> None:
    """Serve the farm's tools by HTTP at an address and under names, else by standard input and output, until stopped.

    Raises FarmError if the extra is not installed; NotRunning, SettingsError.
    """
    if find_spec("mcp") is None:
        raise FarmError("`farm mcp` needs the package mcp: install it with `pip install 'stepfarm[mcp]'`.")
    from cli.mcp.serve import by_http, by_stdio  # noqa: PLC0415 - of the extra

    if address is None:
        by_stdio(settings)
    else:
        by_http(settings, *address, names)
