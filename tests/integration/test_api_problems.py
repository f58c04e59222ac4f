"""Errors as people see them: a page with the same facts as for programs."""

from __future__ import annotations

import re

import pytest


def test_browser_gets_a_page(client):
    answer = client.get("/nothing")
    assert answer.status_code == 404
    assert answer.mimetype == "text/html"


def test_path_decides_the_form_not_a_header(client):
    answer = client.get("/api/v1/nothing", headers={"Accept": "text/html"})
    assert answer.mimetype == "application/problem+json"


def test_page_of_a_fault_shows_its_id_and_nothing_of_the_inside(client, job_factory, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr("api.use_cases.jobs.job", fail)
    answer = client.get(f"/jobs/{job_factory().id}")
    assert answer.status_code == 500
    assert answer.mimetype == "text/html"
    assert "secret" not in answer.text
    error_id = re.search(r"error_id=(\w+)", capsys.readouterr().out)
    assert error_id
    assert error_id[1] in answer.text


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/1"])
def test_foreign_host_gets_a_page_that_says_so(client, path):
    answer = client.get(path, headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "FARM_ALLOWED_HOSTS" in answer.text


def test_html_in_a_path_is_escaped(client):
    answer = client.get("/jobs/<script>alert(1)</script>")
    assert "<script>alert" not in answer.text
