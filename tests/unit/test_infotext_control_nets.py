"""ControlNets in the text of a picture: written and read in the form of the web UI's extension."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shared.infotext.reader import read
from shared.infotext.writer import text
from shared.params.controlnet import SHOWN, ControlUnit
from shared.params.preprocessors import PREPROCESSORS
from shared.params.render import RenderParams

SHA = "0123456789abcdef" * 4


def params(*units: dict[str, Any]) -> RenderParams:
    return RenderParams(prompt="sea", checkpoint="one", width=64, height=64, seed=1, controlnet=units)


def written(*units: dict[str, Any]) -> str:
    return text(params(*units), version="1")


def test_a_net_is_one_value_as_other_programs_write_it() -> None:
    unit = {"model": "canny [0123456789]", "preprocessor": "canny", "weight": 0.8, "end": 0.5, "mode": "prompt"}
    assert (
        'ControlNet 0: "Module: canny, Model: canny [0123456789], Weight: 0.8, Resize Mode: Crop and Resize, '
        "Low Vram: False, Guidance Start: 0, Guidance End: 0.5, Pixel Perfect: True, "
        'Control Mode: My prompt is more important"' in written(unit)
    )


def test_a_text_of_another_program_is_read() -> None:
    found = read(
        "a cat\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 512x512, RNG: CPU, "
        'ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1, '
        "Resize Mode: Crop and Resize, Low Vram: False, Processor Res: 512, Threshold A: 100, "
        "Threshold B: 200, Guidance Start: 0, Guidance End: 1, "
        'Pixel Perfect: False, Control Mode: Balanced, Hr Option: Both", '
        'ControlNet 1: "Module: none, Model: depth, Weight: 0.5, Resize Mode: Envelope (Outer Fit), Low Vram: True, '
        'Guidance Start: 0.2, Guidance End: 0.9, Control Mode: ControlNet is more important"'
    )
    canny, depth = found.params["controlnet"]
    assert canny == {
        "model": "control_v11p_sd15_canny", "preprocessor": "canny", "threshold_a": 100.0,
        "threshold_b": 200.0, "weight": 1.0, "start": 0.0, "end": 1.0, "mode": "balanced", "resize": "crop",
    }  # fmt: skip
    assert (depth["model"], depth["weight"], depth["resize"], depth["mode"]) == ("depth", 0.5, "fill", "control")
    assert found.left_out == ()


def test_what_needs_weights_or_names_no_model_is_told() -> None:
    found = read(
        'a cat\nSteps: 20, Seed: 5, ControlNet 0: "Module: openpose_full, Model: pose, Weight: 9", '
        'ControlNet 1: "Module: reference_only, Model: None, Weight: 1", ControlNet 2: nonsense'
    )
    assert found.params["controlnet"] == [{"model": "pose"}]
    assert any("Module: openpose_full: not read" in note for note in found.left_out)
    assert any(note.startswith("controlnet.0.weight") for note in found.left_out)
    assert sum("names no model" in note for note in found.left_out) == 2


@given(
    some.lists(
        some.fixed_dictionaries(
            {"model": some.sampled_from(["canny", 'a, "b" [0123456789]', "Model: x", "é", "a\\b"])},
            optional={
                "picture": some.sampled_from([None, SHA]),
                "preprocessor": some.sampled_from([*PREPROCESSORS]),
                "threshold_a": some.none() | some.floats(0, 255),
                "threshold_b": some.none() | some.floats(0, 255),
                "weight": some.floats(0, 2),
                "start": some.floats(0, 1),
                "end": some.floats(0, 1),
                "mode": some.sampled_from(["balanced", "prompt", "control"]),
                "resize": some.sampled_from(["resize", "crop", "fill"]),
                "shows": some.sampled_from(["automatic", *SHOWN]),
            },
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read_back(units: list[dict[str, Any]]) -> None:
    wanted = params(*units)
    found = read(text(wanted, version="1"))
    assert [ControlUnit.model_validate(unit) for unit in found.params.get("controlnet", [])] == [*wanted.controlnet]
    assert found.left_out == ()


@pytest.mark.parametrize(
    "value", ["", ",,,", "Module:", "Model: " + "x" * 10**5, "Weight: 1, " * 10**4, '"', "Module: Model: Module:"]
)
def test_a_hostile_value_raises_nothing(value: str) -> None:
    read(f"a cat\nSteps: 20, Seed: 5, Sampler: Euler, ControlNet 0: {value}")
