"""A sheet of 1,000 cells, drawn in a process of its own: how much memory and time it takes at the most."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from shared.sheets.drawing import MAX_PIXELS

MEGABYTES = 300  # of the process and of the one that decodes for it


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["plain", "noise"])
def test_a_sheet_of_a_thousand_cells_takes_bounded_memory(tmp_path, kind, capsys, monkeypatch):
    command = [sys.executable, "-m", "tests.support.large_sheet", str(tmp_path), kind]
    subprocess.run(command, check=True)  # stores the pictures
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    with capsys.disabled():
        sys.stdout.write(f"\n1,000 cells, {kind}: {told}\n")
    assert told["peak_megabytes"] < MEGABYTES
    assert told["width"] * told["height"] <= MAX_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS)
    with Image.open(tmp_path / "sheet.png") as opened:
        opened.load()
        assert opened.size == (told["width"], told["height"])
