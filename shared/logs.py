"""Logs: events with fields, one line each, to standard error; those of libraries in the same form."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

from shared.settings import Settings

_QUIET: Final = (  # what they say below a warning is of no use to an operator
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
_OWN_HANDLERS: Final = ("celery", "celery.task")  # they bring some: one is enough

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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_PROCESSORS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(settings.log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(capture=True)
    for name in _OWN_HANDLERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _rendering(log_format: str) -> list[Processor]:
    """Tracebacks show no local values: those hold keys, prompts and connection strings."""
    if log_format == "json":
        told = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        return [told, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    ]
