from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n    print(*sys.modules)"
HEAVY = {
    "worker.__main__": {"torch", "diffusers", "transformers", "celery", "flask"},  # the supervisor stays small
    "worker.process": {"torch", "diffusers", "transformers", "flask", "alembic"},  # a worker beats before it loads them
    "worker.maintenance.process": {"torch", "diffusers", "transformers", "safetensors", "scipy", "flask"},  # in the API
}


def loaded(*modules: str) -> list[set[str]]:
    """Return what a new process has imported after each of `modules`, by the names of whole packages."""
    told = subprocess.run([sys.executable, "-c", LOADED, *modules], capture_output=True, text=True, check=True).stdout
    return [{name.partition(".")[0] for name in line.split()} for line in told.splitlines()]


def test_what_is_not_needed_yet_is_not_imported():
    """In one process after the other's imports, which hides nothing: what one of them imports stays."""
    for (module, heavy), found in zip(HEAVY.items(), loaded(*HEAVY), strict=True):
        assert heavy.isdisjoint(found), module


@pytest.mark.nightly
def test_a_reader_of_model_files_imports_nothing_for_losses_or_queries():
    (found,) = loaded("worker.render.inspecting")
    assert {"scipy", "sqlalchemy", "flask"}.isdisjoint(found)
