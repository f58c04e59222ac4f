"""Why a checkpoint cannot be used, for tests of its readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import ModelFileError
from worker.engine.loading import layouts, networks
from worker.engine.loading.inspect import inspect


def reason(path: Path) -> str:
    """Why a file or folder cannot be used; the loader says the same."""
    with pytest.raises(ModelFileError) as error:
        networks.build(layouts.read(path))
    found = inspect(path).reason
    assert found == " ".join(str(error.value).split())
    return found
