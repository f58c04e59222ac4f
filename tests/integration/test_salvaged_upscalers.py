"""Upscalers that a picture's file names: here under its title, or replaced with a note."""

from __future__ import annotations

import pytest

from shared.admission.salvage import fit
from shared.settings import Limits
from tests.conftest import checkpoints_of


@pytest.mark.parametrize(
    ("named", "found", "notes"),
    [
        ("4x-sharp", "4x-sharp [1111111111]", 0),
        ("4x-sharp.pth", "4x-sharp [1111111111]", 0),
        ("other [1111111111]", "4x-sharp [1111111111]", 0),
        ("4x-sharp [2222222222]", "4x-sharp [1111111111]", 0),
        ("R-ESRGAN 4x+", "Lanczos", 1),
        ("lanczos", "lanczos", 0),
    ],
)
def test_an_upscaler_of_a_file_is_one_of_this_farm(sessions, named, found, notes):
    make = checkpoints_of(sessions)
    make("demo")
    make("4x-sharp", sha256="1" * 64, kind="upscaler")
    fitting = fit(sessions, {"prompt": "sea", "hires": {"upscaler": named}}, "ann", Limits())
    assert fitting.params["hires"]["upscaler"] == found
    assert [note for note in fitting.left_out if "Lanczos takes its place" in note] == [*fitting.left_out][:notes]
