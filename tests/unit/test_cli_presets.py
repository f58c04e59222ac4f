"""Options that are typed beside a preset."""

from __future__ import annotations

from cli.render_request import over


def test_what_is_typed_counts_before_a_preset_group_by_group() -> None:
    preset = {"prompt": "sea", "steps": 30, "hires": {"scale": 1.5, "steps": 4}}
    typed = {"prompt": "moon", "hires": {"scale": 2.0}, "seed": 7}
    assert over(preset, typed) == {"prompt": "moon", "steps": 30, "hires": {"scale": 2.0, "steps": 4}, "seed": 7}
    assert over(preset, {"prompt": ""}) == preset
