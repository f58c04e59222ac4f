"""What `farm audit`, `farm keys`, `farm limits`, `farm pictures` and `farm usage` say on a terminal of 80 columns."""

from __future__ import annotations

import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli import audit, keys, limits, pictures, usage
from cli.main import app
from shared.accounts.limits import LIMITS

FARM = SimpleNamespace(url="http://farm")
LINE = {"at": "2026-11-30T12:00:00+00:00", "role": "admin", "whose": None, "detail": ""}


@pytest.fixture
def client(monkeypatch):
    """Stands in for the client of a farm."""
    monkeypatch.setenv("COLUMNS", "80")
    found = SimpleNamespace()
    for module in (keys, limits):
        monkeypatch.setattr(module, "connect", lambda _: nullcontext(found))
    return found


def test_a_line_of_the_audit_log_is_shown_whole(client, capsys):
    detail = "checkpoints=scenes-v1,portraits-v2 daily_images=200 queued=20"
    told = LINE | {"owner": "ann.long@example.org", "action": "sign-in.refused", "object": "limits", "whose": "bob"}
    own = LINE | {"owner": "bob", "action": "key.made", "object": "key 7", "whose": "bob", "detail": "laptop"}
    client.audit = lambda **_: {"lines": [told | {"detail": detail}, own]}
    audit.show(client, None, None, limit=2, as_json=False)
    shown = capsys.readouterr().out
    assert "ann.long@example.org  sign-in.refused  limits of bob:" in shown
    assert all(word in shown for word in detail.split()[1:])
    assert "…" not in shown
    assert "key 7: laptop" in shown, "nobody asks whose it is"


OWNER, NAME = "o" * 60, "the laptop of the large hall on the second floor"


def told_of_keys(client):
    times = {"created_at": LINE["at"], "used_at": None, "expires_at": LINE["at"], "revoked_at": None}
    client.keys = lambda **_: [{"id": 123_456, "owner": OWNER, "role": "operator", "name": NAME} | times]
    keys.show(FARM, everybodys=True, as_json=False)


def told_of_usage(client):
    day = {"day": "2026-11-30", "owner": OWNER, "name": NAME, "images": 123_456, "gpu_seconds": 3600.0, "bytes": 10**9}
    client.usage = lambda **_: {"days": [day], "total": day, "first": "2026-11-30", "last": "2026-11-30"}
    usage.show(client, {}, as_csv=False, as_json=False)


def told_of_limits(client):
    row = {"owner": OWNER, "limits": {"queued": 1234, "running": 7}, "set_at": LINE["at"], "set_by": "a" * 60}
    client.owners_limits = lambda: [row]
    limits.show(FARM, everybodys=True, as_json=False)


def told_of_the_audit_log(client):
    line = LINE | {"owner": OWNER, "action": "sign-in.refused", "object": "key 123456", "detail": NAME}
    client.audit = lambda **_: {"lines": [line]}
    audit.show(client, None, None, limit=1, as_json=False)


def told_of_pictures(client):
    params = {"seed": 4_294_967_295, "width": 1024, "height": 1024, "prompt": NAME}
    picture = {
        "id": "123456.3",
        "ended_at": LINE["at"],
        "favourite": True,
        "tags": [],
        "params": params,
        "owner": OWNER,
    }
    client.pictures = lambda **_: [picture]
    pictures.show(client, {"owner": "*"}, 1, None, as_json=False)


@pytest.mark.parametrize(
    ("tell", "whole"),
    [
        (told_of_keys, ["123456", "operator", "2026-11-30 12:00", *NAME.split()]),
        (told_of_usage, ["2026-11-30", "123,456", *NAME.split()]),
        (told_of_limits, ["queued=1234", "running=7"]),
        (told_of_pictures, ["123456.3", "4294967295", "1024x1024", "favourite", "laptop"]),
        (told_of_the_audit_log, ["sign-in.refused", "123456", *NAME.split()]),
    ],
)
def test_beside_a_long_owner_ids_counts_and_words_stand_whole(client, capsys, monkeypatch, tell, whole):
    for columns in ("80", "30"):
        monkeypatch.setenv("COLUMNS", columns)
        tell(client)
        shown = capsys.readouterr().out
        assert [word for word in whole if word not in shown] == []
        assert sum(map(len, re.findall("o{3,}", shown))) == len(OWNER), "the owner is whole, on several lines"
        assert columns == "30" or max(map(len, shown.splitlines())) <= 80


def test_the_help_names_every_limit():
    told = CliRunner().invoke(app, ["limits", "set", "--help"]).output
    assert {name for name in LIMITS if name in told} == {*LIMITS}


def test_limits_that_are_not_counted_are_told_too(client, capsys):
    client.limits = lambda: {"limits": [], "checkpoints": ["scenes-v1", "other"], "pools": None, "urgent": False}
    limits.show(FARM, everybodys=False, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "Nothing that is counted is limited.",
        "Checkpoints of your jobs: scenes-v1, other",
        "Your jobs may not be urgent.",
    ]


def test_an_owner_whose_limits_were_cleared_has_none_to_show(client, capsys):
    client.owners_limits = lambda: [{"owner": "bob", "limits": {}, "set_at": LINE["at"], "set_by": "root"}]
    limits.show(FARM, everybodys=True, as_json=False)
    assert capsys.readouterr().out == "Every owner has the limits of the role.\n"
