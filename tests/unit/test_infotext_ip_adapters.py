"""IP-Adapters in the text of a picture: written and read as units of the ControlNet extension, beside control nets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shared.infotext.reader import read
from shared.infotext.writer import text
from shared.params.ip_adapter import IPAdapterUnit
from shared.params.render import RenderParams

SHA, OTHER = "0123456789abcdef" * 4, "a" * 64
FOREIGN = (
    'a cat\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 512x512, RNG: CPU, ControlNet 0: "Module: {module}, '
    "Model: ip-adapter_sd15 [6a3f6166], Weight: 0.6, Resize Mode: Crop and Resize, Low Vram: False, "
    "Processor Res: 512, Threshold A: 0.5, Threshold B: 0.5, Guidance Start: 0, Guidance End: 0.8, "
    'Pixel Perfect: False, Control Mode: {mode}, Hr Option: Both{more}"'
)


def params(*units: dict[str, Any], nets: tuple[dict[str, Any], ...] = ()) -> RenderParams:
    return RenderParams(prompt="sea", checkpoint="one", width=64, height=64, seed=1, ip_adapters=units, controlnet=nets)


def test_an_adapter_is_one_value_as_other_programs_write_it() -> None:
    unit = {"model": "plus [0123456789]", "pictures": [SHA, OTHER], "weight": 0.8, "end": 0.5}
    assert (
        'ControlNet 0: "Module: ip-adapter-auto, Model: plus [0123456789], Weight: 0.8, Resize Mode: Crop and Resize, '
        "Low Vram: False, Guidance Start: 0, Guidance End: 0.5, Pixel Perfect: True, Control Mode: Balanced, "
        f'Control picture: {SHA} {OTHER}"' in text(params(unit), version="1")
    )


def test_an_adapter_names_its_image_encoder_with_its_hash() -> None:
    wanted = params({"model": "plus", "pictures": [SHA], "image_encoder": "CLIP-ViT-H, 14 [0123456789]"})
    written = text(wanted, version="1")
    assert f'Control picture: {SHA}, Image encoder: CLIP-ViT-H, 14 [0123456789]"' in written
    assert RenderParams.model_validate(read(written).params).ip_adapters == wanted.ip_adapters
    assert "Image encoder" not in text(params({"model": "plus", "pictures": [SHA]}), version="1")


def test_adapters_stand_behind_control_nets_and_both_are_read_back() -> None:
    nets = ({"model": "canny", "picture": SHA, "preprocessor": "canny"}, {"model": "depth", "picture": OTHER})
    wanted = params({"model": "plain", "pictures": [SHA]}, {"model": "plus", "pictures": [OTHER]}, nets=nets)
    written = text(wanted, version="1")
    for name in ('ControlNet 1: "Module: none, Model: depth', 'ControlNet 2: "Module: ip-adapter-auto, Model: plain'):
        assert name in written
    found = read(written)
    assert RenderParams.model_validate(found.params).ip_adapters == wanted.ip_adapters
    assert RenderParams.model_validate(found.params).controlnet == wanted.controlnet
    assert found.left_out == ()


@pytest.mark.parametrize(
    "module",
    [
        "ip-adapter_clip_sd15", "ip-adapter_clip_sdxl_plus_vith", "ip-adapter_clip_h", "ip-adapter-auto",
        "CLIP-ViT-H (IPAdapter)", "CLIP-ViT-bigG (IPAdapter)",
    ],
)  # fmt: skip
def test_an_adapter_of_another_program_is_read_where_its_picture_is_named(module: str) -> None:
    found = read(FOREIGN.format(module=module, mode="Balanced", more=f", Control picture: {SHA}"))
    unit = {"model": "ip-adapter_sd15", "weight": 0.6, "start": 0.0, "end": 0.8, "pictures": [SHA]}
    assert found.params["ip_adapters"] == [unit]
    assert "controlnet" not in found.params
    assert found.left_out == ()


def test_an_adapter_without_its_picture_is_told() -> None:
    found = read(FOREIGN.format(module="ip-adapter_clip_h", mode="Balanced", more=""))
    assert not {"ip_adapters", "controlnet"} & found.params.keys()
    assert found.left_out == (
        "ControlNet 0: ip-adapter_sd15 [6a3f6166]: not read, because the text does not hold its picture",
    )


@pytest.mark.parametrize("module", ["ip-adapter_face_id_plus", "InsightFace+CLIP-H (IPAdapter)", "ip-adapter_pulid"])
def test_an_adapter_for_faces_is_told(module: str) -> None:
    found = read(FOREIGN.format(module=module, mode="Balanced", more=f", Control picture: {SHA}"))
    assert not {"ip_adapters", "controlnet"} & found.params.keys()
    assert any(f"Module: {module}: not read" in note for note in found.left_out)


def test_what_an_adapter_does_not_have_is_told() -> None:
    found = read(FOREIGN.format(module="ip-adapter-auto", mode="Loud", more=f", Control picture: {SHA}"))
    assert len(found.params["ip_adapters"]) == 1
    assert any("Control Mode: Loud: not read" in note for note in found.left_out)
    found = read(
        f'a\nSteps: 2, Seed: 1, ControlNet 0: "Module: ip-adapter-auto, Model: x, Weight: much, Control picture: {SHA}"'
    )
    assert found.params["ip_adapters"] == [{"model": "x", "pictures": [SHA]}]
    assert "ControlNet 0: Weight: much: not read" in found.left_out
    too_many = " ".join([SHA] * 5)
    found = read(
        f'a\nSteps: 2, Seed: 1, ControlNet 0: "Module: ip-adapter-auto, Model: x, Control picture: {too_many}"'
    )
    assert not found.params.get("ip_adapters")
    assert any(note.startswith("ip_adapters.0.pictures: holds too many") for note in found.left_out)


@given(
    some.lists(
        some.fixed_dictionaries(
            {
                "model": some.sampled_from(["plain", 'a, "b" [0123456789]', "Model: x", "é", "a\\b"]),
                "pictures": some.lists(some.sampled_from([SHA, OTHER]), min_size=1, max_size=4),
            },
            optional={
                "weight": some.floats(0, 2),
                "start": some.floats(0, 1),
                "end": some.floats(0, 1),
                "image_encoder": some.sampled_from(["", "vit-h [0123456789]", 'a, "b"', "Image encoder: x"]),
            },
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read_back(units: list[dict[str, Any]]) -> None:
    wanted = params(*units)
    found = read(text(wanted, version="1"))
    assert [IPAdapterUnit.model_validate(one) for one in found.params.get("ip_adapters", [])] == [*wanted.ip_adapters]
    assert found.left_out == ()


@pytest.mark.parametrize(
    "value",
    ["Module: ip-adapter", "Module: ip-adapter, Model: " + "x" * 10**5, "Module: ip-adapter, Model: x, " * 10**4],
)
def test_a_hostile_value_raises_nothing(value: str) -> None:
    read(f"a cat\nSteps: 20, Seed: 5, Sampler: Euler, ControlNet 0: {value}")
