"""Finds the farm that a command means, and returns a client of it."""

from __future__ import annotations

from cli.embedded import home
from client.client import Client
from client.errors import UnusableAddress
from shared.errors import NotRunning, SettingsError
from shared.settings import Settings


def connect(settings: Settings) -> Client:
    """Return a client of the farm at FARM_URL, else of the one that runs in FARM_HOME.

    Raises NotRunning, SettingsError.
    """
    url = settings.url
    if not url:
        record = home.read_record(settings.home)
        if record is None and home.running(settings.home):
            raise NotRunning(f"The farm in {settings.home} is starting or stopping; try again in a moment.")
        if record is None:
            raise NotRunning(
                f"No farm runs in {settings.home}. Start one with `make up` (or `farm up`), or set FARM_URL."
            )
        url = record.url
    return client_of(url, settings)


def client_of(url: str, settings: Settings) -> Client:
    """Return a client of the farm at `url` that shows this shell's key. Raises SettingsError."""
    key = settings.api_key or next(iter(settings.api_keys), "")
    try:
        return Client(url, key, patience_seconds=0)  # people would rather know
    except UnusableAddress as error:
        raise SettingsError(str(error)) from error
