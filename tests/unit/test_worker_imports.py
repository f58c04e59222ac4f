from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = "import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("worker.__main__", {"torch", "diffusers", "transformers", "celery", "flask"}),  # the supervisor stays small
        (
            "worker.maintenance.process",
            {"torch", "diffusers", "transformers", "safetensors", "scipy", "flask"},
        ),  # in the API's image
        (
            "worker.process",
            {"torch", "diffusers", "transformers", "flask", "alembic"},
        ),  # a worker beats before it loads them
        pytest.param("worker.render.inspecting", {"scipy", "sqlalchemy", "flask"}, marks=pytest.mark.nightly),
    ],
)
def test_what_is_not_needed_yet_is_not_imported(module, heavy):
    script = LOADED.format(module=module)
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(loaded)
