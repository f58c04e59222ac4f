"""Logs: events with fields, one line each, to standard error; logs of libraries have the same form.

They may hold texts of strangers, so texts are cut and repeated warnings counted (`shared.logs.repeats`).
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

from shared.logs.repeats import CountingHandler
from shared.settings import Settings

_QUIET: Final = (  # their lines below a warning do not help an operator
    "alembic",
    "aiobotocore",
    "asyncio",
    "botocore",
    "celery",
    "fsspec",
    "httpcore",
    "httpx",
    "kombu",
    "PIL",
    "s3fs",
    "sqlalchemy",
    "urllib3",
    "uvicorn",
)
_OWN_HANDLERS: Final = ("celery", "celery.task")  # these bring their own; one is enough

_MOST_TEXT: Final = 2000  # characters of one text, a field's or the event's
_SHORT_TEXT: Final = 300  # of a field that stays in a line that was too long
_SHORT_FIELDS: Final = 50
_MOST_LINE: Final = 4000  # characters of a line for people
_MOST_JSON: Final = 2**16  # characters of a JSON line, which a traceback may fill

_PROCESSORS: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def configure(settings: Settings) -> None:
    """Send all logs of this process to standard error, as `settings` say. May be called again."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # loggers of modules are made before this is called
    )
    handler = CountingHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_PROCESSORS,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _cut_fields,
                *_rendering(settings.log_format),
            ],
        )
    )
    root = logging.getLogger()
    for before in root.handlers:
        if isinstance(before, CountingHandler):
            before.close()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(capture=True)
    for name in _OWN_HANDLERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _rendering(log_format: str) -> list[Processor]:
    """Return the renderers. Tracebacks show no local values, because those hold keys, prompts and URLs."""
    if log_format == "json":
        exceptions = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        return [exceptions, structlog.processors.JSONRenderer(ensure_ascii=False), _cut_json]
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [console, _cut_lines]


def _cut_fields(_: object, __: str, event: EventDict) -> EventDict:
    return {name: _cut(value) for name, value in event.items()}


def _cut(value: object) -> object:
    """Return a field cut to the length that a line may have; numbers and other values stay as they are."""
    match value:
        case str():
            return shortened(value, _MOST_TEXT)
        case bytes() | bytearray() | list() | dict() | set() | frozenset():
            return value if len(text := repr(value)) <= _MOST_TEXT else shortened(text, _MOST_TEXT)
        case _:
            return value


def _cut_lines(_: object, __: str, rendered: EventDict) -> str:
    return "\n".join(shortened(line, _MOST_LINE) for line in str(rendered).split("\n"))


def _cut_json(_: object, __: str, rendered: EventDict) -> str:
    """Return a line that is valid JSON: of a line that is too long only its short fields."""
    line = str(rendered)
    if len(line) <= _MOST_JSON:
        return line
    short = [(name, value) for name, value in json.loads(line).items() if len(f"{name}{value}") <= _SHORT_TEXT]
    return json.dumps(dict(short[:_SHORT_FIELDS]) | {"cut": f"{len(line):,} characters"}, ensure_ascii=False)


def shortened(text: str, most: int) -> str:
    """Return at most `most` characters of `text`, and how many it had."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
