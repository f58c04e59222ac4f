"""How many clients the system's bound on open files allows."""

from __future__ import annotations

import resource

import pytest

from api import serve

ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "files"),
    [
        (1024, 524288, 2000, 2000, 4512),
        (1024, ENDLESS, 2000, 2000, 4512),
        (ENDLESS, ENDLESS, 2000, 2000, None),
        (65536, 65536, 2000, 2000, None),
        (1024, 2512, 2000, 1000, 2512),
        (1024, 1024, 2000, 256, None),
        (256, 256, 2000, 16, None),
    ],
)
def test_there_are_no_more_connections_than_files_for_them(monkeypatch, soft, hard, wanted, allowed, files):  # noqa: PLR0917
    told = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, bounds: told.append(bounds[0]))
    assert serve._allow_connections(wanted) == allowed
    assert told == ([files] if files else [])
