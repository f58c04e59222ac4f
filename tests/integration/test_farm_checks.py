"""What `farm doctor` says of a farm's servers, where they are not as they should be."""

from __future__ import annotations

import pytest
from redis import Redis

from api.cli import farm_checks


@pytest.mark.parametrize(
    ("version", "is_old"), [("6.0.20", True), ("6.2.14", False), ("7.2.11", False), ("10.0", False)]
)
def test_a_redis_that_is_too_old_is_told(settings, monkeypatch, version, is_old):
    monkeypatch.setattr(Redis, "info", lambda *_: {"redis_version": version})
    found = farm_checks.redis(settings)
    assert ("too old" in found.text) == is_old
    assert version in found.text


def test_a_valkey_is_called_by_its_own_name(settings, monkeypatch):
    monkeypatch.setattr(Redis, "info", lambda *_: {"redis_version": "7.2.4", "valkey_version": "9.1.2"})
    assert farm_checks.redis(settings).text == "Valkey 9.1.2"


def test_the_embedded_server_is_told_of(settings):
    assert farm_checks.redis(settings).text.startswith(("Valkey ", "Redis "))
