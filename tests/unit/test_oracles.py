"""The farm against figures of reference implementations: every case of every file of a folder.

`pytest tests/unit/test_oracles.py --oracles FOLDER`; without the option, the folder that comes with the tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oracles import engine, prompts

HANDLERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "attention": prompts.check_attention,
    "chunks": prompts.check_chunks,
    "composable": prompts.check_composable,
    "extra_networks": prompts.check_extra_networks,
    "img2img_steps": engine.check_img2img_steps,
    "philox": engine.check_philox,
    "sampler_options": engine.check_samplers,
    "samplers": engine.check_samplers,
    "schedule": prompts.check_schedule,
    "sigmas": engine.check_sigmas,
    "styles": prompts.check_styles,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder: Path = metafunc.config.getoption("oracles")
    cases = list(_cases(folder)) or [pytest.param(folder, None, id="nothing")]
    metafunc.parametrize(("file", "case"), cases)


def _cases(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.glob("*.json")):
        try:
            cases = json.loads(file.read_text())["cases"]
        except (OSError, ValueError, LookupError, TypeError):
            cases = []
        yield from (pytest.param(file, case, id=f"{file.stem}-{place}") for place, case in enumerate(cases or [None]))


def test_what_the_reference_gave(file: Path, case: dict[str, Any] | None) -> None:
    if file.is_dir() or not file.exists():
        pytest.fail(f"{file} holds no oracle: a file NAME.json of {{'source': ..., 'cases': [...]}}")
    if file.stem not in HANDLERS:
        pytest.fail(f"{file} is of no known kind; there are {', '.join(HANDLERS)}: see tests/oracles")
    if case is None:
        pytest.fail(f"{file} cannot be read as {{'source': ..., 'cases': [...]}} with cases in it")
    HANDLERS[file.stem](case)
