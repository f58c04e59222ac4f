"""Logs: an event a line, with its fields, to standard error."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from shared.logs import configure
from shared.settings import Settings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(tmp_path: Path, **settings) -> None:
    configure(Settings(home=tmp_path, **settings))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_an_event_is_one_line_of_json(tmp_path, capsys):
    configured(tmp_path, log_format="json")
    structlog.get_logger("worker").info("image finished", job=17, seconds=1.5, name_="ü\nx")
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "image finished", "job": 17, "seconds": 1.5, "name_": "ü\nx", "level": "info", "logger": "worker",
    }  # fmt: skip


def test_a_library_speaks_in_the_same_form(tmp_path, capsys):
    configured(tmp_path, log_format="json")
    logging.getLogger("some.library").warning("it is %s", "late", extra={"seconds": 3})
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"], line["seconds"]) == (
        "it is late",
        "warning",
        "some.library",
        3,
    )


def test_a_traceback_stays_on_its_line(tmp_path, capsys):
    configured(tmp_path, log_format="json")
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(capsys)
    assert line["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_tells_no_values(tmp_path, capsys, log_format):
    configured(tmp_path, log_format=log_format)
    try:
        key = "a-secret-of-somebody"[:8]
        int(key[:0])
    except ValueError:
        structlog.get_logger().exception("failed")
    told = capsys.readouterr().err
    assert "ValueError" in told
    assert "a-secret" not in told


def test_what_is_below_the_level_is_left_out(tmp_path, capsys):
    configured(tmp_path, log_format="json", log_level="warning")
    structlog.get_logger("a").info("small")
    logging.getLogger("b").info("small")
    structlog.get_logger("a").error("large")
    assert [line["event"] for line in lines(capsys)] == ["large"]


def test_chatty_libraries_are_heard_from_a_warning_on(tmp_path, capsys):
    configured(tmp_path, log_format="json", log_level="debug")
    logging.getLogger("celery.worker.strategy").info("Task received")
    logging.getLogger("celery").warning("lost the broker")
    assert [line["event"] for line in lines(capsys)] == ["lost the broker"]


def test_for_people_it_is_plain_text(tmp_path, capsys):
    configured(tmp_path)
    configured(tmp_path)
    structlog.get_logger().info("image finished", job=17)
    err = capsys.readouterr().err
    assert err.count("image finished") == 1
    assert "job=17" in err
    assert "\x1b" not in err
