"""Finds the farm that a command means, and returns a client of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cli.embedded import home
from client.async_client import AsyncClient
from client.client import Client
from client.errors import UnusableAddress
from shared.errors import NotRunning, SettingsError
from shared.settings import Settings

T = TypeVar("T")


def connect(settings: Settings) -> Client:
    """Return a client of the farm at FARM_URL, else of the one that runs in FARM_HOME.

    Raises NotRunning, SettingsError.
    """
    return client_of(_address(settings), settings)


def connect_awaited(settings: Settings) -> AsyncClient:
    """Return the same as `connect`, for an event loop."""
    return _made(AsyncClient, _address(settings), settings)


def client_of(url: str, settings: Settings) -> Client:
    """Return a client of the farm at `url` that shows this shell's key. Raises SettingsError."""
    return _made(Client, url, settings)


def _address(settings: Settings) -> str:
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
    return url


def _made(kind: Callable[..., T], url: str, settings: Settings) -> T:
    key = settings.api_key or next(iter(settings.api_keys), "")
    try:
        return kind(url, key, patience_seconds=0)  # people would rather know
    except UnusableAddress as error:
        raise SettingsError(str(error)) from error
