"""Configuration files beside weights, read within bounds: strangers wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import yaml

from shared.errors import ModelFileError
from shared.models import regular_files
from worker.engine.files.config_bounds import Config

_MOST_BYTES: Final = 2**16  # of a configuration


def read_json(path: Path, most_bytes: int = _MOST_BYTES) -> Config:
    """Return the object in a JSON file. Raises ModelFileError."""
    try:
        config = json.loads(_text(path, most_bytes))
    except json.JSONDecodeError as error:
        place = f"an error in line {error.lineno}, column {error.colno}"
        raise ModelFileError(f"{path.parent.name}/{path.name} is not JSON: {place}") from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond Python's bounds
        raise ModelFileError(f"{path.parent.name}/{path.name} is not JSON ({type(error).__name__})") from error
    if not isinstance(config, dict):
        raise ModelFileError(f"{path.parent.name}/{path.name} describes no model")
    return config


def read_yaml(path: Path) -> object:
    """Return the content of a YAML file. Raises ModelFileError that never repeats it: it may be a link to any file."""
    try:
        return yaml.safe_load(_text(path))
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = f" in line {at.line + 1}, column {at.column + 1}" if at else ""
        raise ModelFileError(f"{path.name} beside it is not YAML: an error{place}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path.name} beside it is not YAML ({type(error).__name__})") from error


def _text(path: Path, most_bytes: int = _MOST_BYTES) -> str:
    try:
        with regular_files.opened(path) as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ModelFileError(f"{path.name} is larger than any configuration")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ModelFileError(f"{path.parent.name}/{path.name} cannot be read ({why})") from error
