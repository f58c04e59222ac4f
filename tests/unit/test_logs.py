"""Logs: an event a line, with its fields, to standard error."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from shared.logs import repeats
from shared.logs.setup import configure
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


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("value", ["a" * 100_000, b"\xff" * 100_000, ["a"] * 100_000, {"a": "b" * 100_000}])
def test_long_fields_are_cut(tmp_path, capsys, log_format, value):
    configured(tmp_path, log_format=log_format)
    structlog.get_logger().warning("refused", value=value)
    logging.getLogger("library").warning("it said %s", value)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(len(line) < 4200 for line in told)
    assert all("characters" in line for line in told)


def test_line_of_json_that_many_fields_made_long_is_still_json(tmp_path, capsys):
    configured(tmp_path, log_format="json")
    structlog.get_logger().warning("refused", **{f"field{number}": "a" * 1900 for number in range(60)}, job=7)
    (line,) = lines(capsys)
    assert line["event"] == "refused"


def test_text_with_a_percent_sign_is_told_as_it_is(tmp_path, capsys):
    configured(tmp_path)
    for _ in range(repeats.MOST_ALIKE + 1):
        structlog.get_logger().warning("100 %d")
    logging.getLogger().handlers[0].close()
    assert "1 more like it in 10 s: 100 %d" in capsys.readouterr().err


def test_repeated_warnings_are_counted(tmp_path, capsys):
    configured(tmp_path, log_format="json")
    for number in range(1044):
        structlog.get_logger("api").warning("a key was wrong", address=f"192.0.2.{number}")
    structlog.get_logger("api").warning("something else")
    logging.getLogger().handlers[0].close()
    told = [line["event"] for line in lines(capsys)]
    assert told == [
        *["a key was wrong"] * repeats.MOST_ALIKE,
        "something else",
        "… 1,024 more like it in 10 s: a key was wrong",
    ]


def test_warnings_of_one_line_of_code_are_counted_whatever_they_say(tmp_path, capsys):
    configured(tmp_path, log_format="json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for number in range(500):
            warnings.warn(f"tag {number} is damaged", stacklevel=1)
    assert len(lines(capsys)) == repeats.MOST_ALIKE


def record(level: int, message: str, name: str = "api") -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, message, None, None)


def test_next_window_begins_with_the_count_of_the_last():
    now = 100.0
    counted = repeats.Repeats(lambda: now)
    passed = [counted.passes(record(logging.ERROR, "away")) for _ in range(50)]
    assert sum(passed) == repeats.MOST_ALIKE
    assert list(counted.summaries()) == []
    now += repeats.WINDOW_SECONDS
    (summary,) = counted.summaries()
    assert summary.getMessage() == "… 30 more like it in 10 s: away"
    assert counted.passes(record(logging.ERROR, "away"))


def test_what_is_below_a_warning_is_never_left_out():
    counted = repeats.Repeats()
    assert all(counted.passes(record(logging.INFO, "image finished")) for _ in range(10_000))


def test_memory_of_kinds_is_bounded():
    counted = repeats.Repeats()
    for number in range(5000):
        list(counted.summaries())
        counted.passes(record(logging.WARNING, f"kind {number}"))
    assert len(counted._windows) <= repeats._MOST_KINDS + 1
