"""Usage over HTTP and on its page: one's own, and others' for an admin."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from io import StringIO

import httpx
import pytest
from sqlalchemy import delete

from api.services import EXTENSION
from cli import usage as command
from client.client import Client
from shared.accounts.principal import Role
from shared.db import tables
from shared.db.sessions import transact
from tests.support.keys import headers_of

USAGE = "/api/v1/usage"
TODAY = datetime.now(UTC).date()
DAYS = [
    ("ann", TODAY, "a" * 64, 2, 10.5, 2048),
    ("ann", TODAY - timedelta(days=3), "a" * 64, 1, 4.0, 1024),
    ("ann", TODAY - timedelta(days=50), "b" * 64, 7, 70.0, 7168),
    ("=bob", TODAY, "b" * 64, 5, 50.0, 5120),
]
COLUMNS = ("owner", "day", "checkpoint", "images", "gpu_seconds", "bytes")


@pytest.fixture(scope="module")
def app(standing_app):
    """A farm where ann, an admin and somebody who has rendered nothing have keys."""

    def fill(session):
        session.execute(delete(tables.UsageDay))
        session.add_all(tables.UsageDay(**dict(zip(COLUMNS, one, strict=True))) for one in DAYS)

    transact(standing_app.extensions[EXTENSION].sessions, fill)
    return standing_app


@pytest.fixture(scope="module")
def sent(app):
    """The headers of each role's key."""
    return headers_of(app.extensions[EXTENSION].sessions, {"root": Role.ADMIN, "ann": Role.USER, "eve": Role.VIEWER})


@pytest.fixture
def ask(client, sent):
    def get(path, who="ann", **headers):
        return client.get(path, headers=sent[who] | headers)

    return get


def test_usage_is_ones_own_and_of_the_last_30_days_unless_others_are_asked_for(ask):
    mine = ask(USAGE).get_json()
    assert (mine["owner"], mine["total"]) == ("ann", {"images": 3, "gpu_seconds": 14.5, "bytes": 3072})
    assert [one["day"] for one in mine["days"]] == [str(TODAY), str(TODAY - timedelta(days=3))]
    older = ask(f"{USAGE}?from={TODAY - timedelta(days=60)}&to={TODAY - timedelta(days=40)}").get_json()
    assert [one["images"] for one in older["days"]] == [7]
    assert ask(USAGE, "eve").get_json()["days"] == []


def test_only_an_admin_sees_what_others_took(ask):
    assert [ask(f"{USAGE}?owner={name}").status_code for name in ("ann", "eve", "*")] == [200, 403, 403]
    everybody = ask(f"{USAGE}?owner=*", "root").get_json()
    assert (everybody["owner"], {one["owner"] for one in everybody["days"]}) == (None, {"ann", "=bob"})
    assert ask(f"{USAGE}?owner=ann", "root").get_json()["total"]["images"] == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-11-30&to=2026-11-01", "from"),
        ("from=2020-01-01&to=2026-11-01", "from"),
        ("from=0001-01-01", "from"),
        ("to=9999-12-31", "to"),
        ("from=yesterday", "from"),
        ("since=2026-11-01", "since"),
    ],
)
def test_days_that_cannot_be_counted_are_refused_by_their_field(ask, query, field):
    refused = ask(f"{USAGE}?{query}")
    assert (refused.status_code, [one["field"] for one in refused.get_json()["errors"]]) == (422, [field])


def test_a_spreadsheet_gets_lines_and_no_formula(ask):
    answer = ask(f"{USAGE}.csv?owner=*", "root")
    rows = list(csv.DictReader(StringIO(answer.get_data(as_text=True).lstrip("\ufeff"))))
    assert [(one["owner"], one["images"], one["gpu_seconds"]) for one in rows] == [
        ("'=bob", "5", "50.0"),
        ("ann", "2", "10.5"),
        ("ann", "1", "4.0"),
    ]
    assert "attachment" in answer.headers["Content-Disposition"]
    assert ask(f"{USAGE}?owner=*", "root", Accept="text/csv").data == answer.data
    assert ask(USAGE, Accept="*/*").mimetype == "application/json"


def test_the_page_plots_days_and_sums_checkpoints(ask):
    page = ask("/usage").text
    assert page.count("<title>20") == 6, "two days in each of three plots"
    assert f"<title>{TODAY}: 2</title>" in page
    assert "aaaaaaaaaa" in page
    assert "=bob" not in page
    everybody = ask("/usage?owner=*", "root").text
    assert 'href="/usage?owner=%3Dbob' in everybody
    assert "usage.csv?owner=%2A" in everybody


def test_the_page_says_what_is_wrong_with_days(ask):
    page = ask(f"/usage?from={TODAY}&to={TODAY - timedelta(days=1)}")
    assert page.status_code == 422
    assert "aria-invalid=true" in page.text
    assert ask("/usage?from=nonsense").status_code == 200


def test_the_command_prints_days_and_their_sum(ask, sent, capsys):
    def answered(request):
        answer = ask(request.url.raw_path.decode())
        return httpx.Response(answer.status_code, content=answer.data, headers=dict(answer.headers))

    with Client("http://farm", transport=httpx.MockTransport(answered)) as client:
        command.show(client, {"from": None, "to": None, "owner": None}, as_csv=False, as_json=False)
        command.show(client, {"from": str(TODAY), "to": None, "owner": None}, as_csv=True, as_json=False)
    table, written = capsys.readouterr().out.split("day,owner")
    assert "3 pictures, 14 s of GPU time, 3.0 KB" in table
    assert written.splitlines()[1:] == [f"{TODAY},ann,{'a' * 64},,2,10.5,2048"]
