"""What `farm audit` and `farm limits` say on a terminal of 80 columns."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli import audit, limits
from cli.main import app
from shared.accounts.limits import LIMITS

FARM = SimpleNamespace(url="http://farm")
LINE = {"at": "2026-11-30T12:00:00+00:00", "role": "admin", "whose": None, "detail": ""}


@pytest.fixture
def client(monkeypatch):
    """Stands in for the client of a farm."""
    monkeypatch.setenv("COLUMNS", "80")
    found = SimpleNamespace()
    monkeypatch.setattr(limits, "connect", lambda _: nullcontext(found))
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
