"""`farm keys` beside the database: the first key of a farm, and one when the last is lost."""

from __future__ import annotations

import json

import pytest

from api.app import create_app
from api.services import EXTENSION
from cli import keys
from shared.errors import NotFound, Refused


def test_the_first_key_is_made_beside_the_database_and_opens_the_farm(settings, capsys):
    with pytest.raises(Refused, match="role"):
        keys.create(settings, {"name": "laptop", "owner": "ann"}, as_json=True)
    keys.create(settings, {"name": "laptop", "owner": "ann", "role": "admin", "days": None}, as_json=True)
    made = json.loads(capsys.readouterr().out)
    app = create_app(settings)
    client = app.test_client()
    assert client.get("/api/v1/jobs").status_code == 401
    assert client.get("/api/v1/jobs", headers={"X-API-Key": made["key"]}).status_code == 200
    app.extensions[EXTENSION].close()

    keys.show(settings, everybodys=False, as_json=False)
    listed = capsys.readouterr().out
    assert all(word in listed for word in ("laptop", "ann", "admin"))
    assert made["key"] not in listed


def test_a_key_is_revoked_by_its_number(settings, capsys):
    keys.create(settings, {"name": "n", "role": "admin"}, as_json=True)
    number = json.loads(capsys.readouterr().out)["id"]
    keys.revoke(settings, number, as_json=False)
    assert f"Key {number} of admin opens nothing any more." in capsys.readouterr().out
    with pytest.raises(NotFound):
        keys.revoke(settings, number + 1, as_json=False)
