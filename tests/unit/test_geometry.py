"""Steps and sizes of passes: figures of the reference, cases of the page that describes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.params import geometry
from shared.params.geometry import Target
from shared.params.groups import Hires
from shared.params.render import RenderParams

ORACLE = Path(__file__).parents[1] / "data" / "oracles" / "img2img_steps.json"


@pytest.mark.parametrize("case", json.loads(ORACLE.read_text())["cases"], ids=str)
def test_a_strength_shortens_the_way_as_the_reference_does(case: dict[str, float]) -> None:
    steps = geometry.img2img_steps(int(case["steps"]), case["denoising_strength"], exact=False)
    assert steps == (case["steps"], case["model_steps"])


@pytest.mark.parametrize(
    ("steps", "denoising", "exact", "expected"),
    [
        (20, 1.0, False, (20, 20)),
        (20, 0.0, False, (20, 1)),
        (1, 0.5, False, (1, 1)),
        (20, 0.75, True, (26, 20)),
        (20, 1.0, True, (20, 20)),
        (20, 0.0, True, (0, 0)),
        (20, 1e-300, True, (20_000, 20)),
    ],
)
def test_steps_at_the_ends(*, steps: int, denoising: float, exact: bool, expected: tuple[int, int]) -> None:
    assert geometry.img2img_steps(steps, denoising, exact=exact) == expected


def test_a_second_pass_takes_the_first_ones_steps_unless_it_has_its_own() -> None:
    params = RenderParams(steps=20)
    assert geometry.hires_steps(params, Hires(denoising=0.5)) == (40, 20)
    assert geometry.hires_steps(params, Hires(denoising=0.5, steps=8)) == (16, 8)


@pytest.mark.parametrize(
    ("size", "hires", "target", "final"),
    [
        ((512, 512), {"width": 1024, "height": 768}, Target(1024, 1024, 0, 32), (1024, 768)),
        ((768, 512), {"width": 1024, "height": 1024}, Target(1536, 1024, 64, 0), (1024, 1024)),
        ((512, 768), {"height": 1024}, Target(682, 1024), (680, 1024)),
        ((512, 512), {"width": 1024}, Target(1024, 1024), (1024, 1024)),
        ((512, 512), {"scale": 1.33}, Target(680, 680), (680, 680)),
        ((512, 768), {}, Target(1024, 1536), (1024, 1536)),
        ((64, 72), {"scale": 1.0}, Target(64, 72), (64, 72)),
    ],
)
def test_a_second_pass_has_the_size_asked_for(
    size: tuple[int, int], hires: dict[str, float], target: Target, final: tuple[int, int]
) -> None:
    found = geometry.hires_size(*size, Hires(**hires))
    assert found == target
    assert found.final == final
