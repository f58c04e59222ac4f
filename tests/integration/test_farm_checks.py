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
