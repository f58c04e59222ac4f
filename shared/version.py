"""Which version of the farm this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Final

_DISTRIBUTION: Final = "stepfarm"


@cache
def version() -> str:
    """Return the version that is installed; `unknown` in a checkout that is not."""
    try:
        return installed(_DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
