"""Dotted paths: read, put, taken out, replaced, through groups and lists of groups."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from shared.params import paths
from shared.params.fields import Parameters, Prompt, SourcePicture
from shared.params.groups import Hires
from shared.params.paths import PathError
from shared.params.render import RenderParams


class Net(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str
    strength: float = 1.0


class Nets(BaseModel):
    model_config = ConfigDict(frozen=True)
    steps: int = 20
    control_nets: tuple[Net, ...] = ()


NETS = Nets(control_nets=(Net(name="canny"), Net(name="depth", strength=0.5)))
NESTED = {"steps": 4, "hires": {"scale": 1.5}, "control_nets": [{"strength": 1.0}, {"strength": 0.5}], "refiner": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("steps", 4),
        ("hires.scale", 1.5),
        ("control_nets.1.strength", 0.5),
        ("control_nets.0", {"strength": 1.0}),
        ("control_nets.2", "absent"),
        ("control_nets.2.strength", "absent"),
        ("control_nets.strength", "absent"),
        ("hires.0", "absent"),
        ("steps.0", "absent"),
        ("refiner", None),
        ("refiner.checkpoint", "absent"),
        ("img2img.mask.blur", "absent"),
        ("", "absent"),
        ("hires..scale", "absent"),
        ("9" * 5000, "absent"),
    ],
)
def test_value_is_read_or_the_default_is_returned(path, value):
    assert paths.get(NESTED, path, "absent") == value


@pytest.mark.parametrize(
    ("path", "value"),
    [("steps", 20), ("control_nets.1.name", "depth"), ("control_nets.7.name", None), ("model_config", None)],
)
def test_value_of_a_model_is_read(path, value):
    assert paths.get(NETS, path) == value


def test_text_has_no_items():
    assert paths.get({"prompt": "sea"}, "prompt.0") is None


def test_put_makes_groups_and_lists_that_are_missing():
    nested: dict[str, Any] = {}
    for path, value in {"a": 1, "hires.scale": 2.0, "nets.0.model.name": "x", "nets.1.model.name": "y"}.items():
        paths.put(nested, path, value)
    assert nested == {
        "a": 1, "hires": {"scale": 2.0}, "nets": [{"model": {"name": "x"}}, {"model": {"name": "y"}}],
    }  # fmt: skip


def test_put_replaces_what_is_there():
    nested = {"styles": ["ink", "oil"], "hires": {"scale": 2.0}}
    paths.put(nested, "styles.1", "night")
    paths.put(nested, "styles.2", "fog")
    paths.put(nested, ("hires", "scale"), 3.0)
    assert nested == {"styles": ["ink", "night", "fog"], "hires": {"scale": 3.0}}


@pytest.mark.parametrize(
    ("nested", "path", "message"),
    [
        ({"hires": None}, "hires.scale", "hires is given as a whole and by hires.scale: leave one out"),
        ({"hires": 2}, "hires.scale", "hires is given as a whole and by hires.scale: leave one out"),
        ({"nets": "x"}, "nets.0.name", "nets is given as a whole and by nets.0.name: leave one out"),
        ({"nets": [{}]}, "nets.name", "nets.name: nets is a list, its items are nets.0, nets.1, …"),
        ({"nets": [{}]}, "nets.2.name", "nets.2.name: nets has 1 item, the next one is nets.1"),
        ({}, "nets.1.name", "nets.1.name: nets has 0 items, the next one is nets.0"),
        ({"hires": {}}, "hires.0.scale", "hires.0.scale: hires is not a list"),
        ({}, "0", "0: the whole is not a list"),
        ({}, "", "'' is not a path: write names joined by dots, such as hires.scale"),
        ({}, "a..b", "'a..b' is not a path: write names joined by dots, such as hires.scale"),
        ({}, "nets.", "'nets.' is not a path: write names joined by dots, such as hires.scale"),
    ],
)
def test_put_refuses_a_path_that_leads_nowhere(nested, path, message):
    with pytest.raises(PathError) as caught:
        paths.put(nested, path, 1)
    assert str(caught.value) == message


@given(st.lists(st.sampled_from(["a", "b", "0", "1", ""]), min_size=1, max_size=4).map(".".join), st.integers())
def test_what_is_put_is_read_back(path, value):
    nested: dict[str, Any] = {}
    try:
        paths.put(nested, path, value)
    except PathError:
        return
    assert paths.get(nested, path) == value


def test_removal_takes_the_group_along_that_cannot_do_without_a_missing_field():
    nested: dict[str, Any] = {"refiner": {"switch_at": 0.5}, "steps": 4}
    assert paths.remove(nested, ["refiner.checkpoint", "steps", "seed"]) == [True, True, False]
    assert nested == {}


def test_removal_of_several_items_takes_the_right_ones():
    nested = {"nets": [{"strength": 9, "name": "a"}, {"name": "b"}, {"strength": 9}, {"strength": 9}]}
    bad = [("nets", 0, "strength"), ("nets", 2, "name"), ("nets", 2, "model"), ("nets", 3, "name")]
    assert paths.remove(nested, bad) == [True] * 4
    assert nested == {"nets": [{"name": "a"}, {"name": "b"}]}


def test_replaced_model_differs_at_these_paths_alone():
    changed = paths.replaced(NETS, {"steps": 4, "control_nets.1.strength": 0.7, "control_nets.0": Net(name="pose")})
    assert changed == Nets(steps=4, control_nets=(Net(name="pose"), Net(name="depth", strength=0.7)))
    assert NETS.control_nets[1].strength == 0.5


@pytest.mark.parametrize("path", ["hires.scale", "steps.0", "nothing", "styles.4"])
def test_nothing_is_replaced_where_there_is_nothing(path):
    with pytest.raises(PathError, match=path.partition(".")[0]):
        paths.replaced(RenderParams(), {path: 2.0})


def test_name_of_a_field_has_no_numbers():
    assert paths.field_name("control_nets.12.strength") == "control_nets.strength"
    assert paths.field_name("styles.0") == "styles"
    assert paths.field_name("hires.scale") == "hires.scale"


def test_paths_come_in_an_order_in_which_they_can_be_put():
    given_paths = ["nets.10.name", "nets.2.name", "nets", "hires.scale", "hires"]
    assert paths.in_order(given_paths) == ["hires", "nets", "hires.scale", "nets.2.name", "nets.10.name"]


def test_values_of_a_kind_are_found_by_their_paths_in_groups_and_lists():
    class Net(Parameters):
        picture: SourcePicture

    class Nets(Parameters):
        prompt: Prompt = ""
        control_nets: tuple[Net, ...] = ()
        hires: Hires | None = None

    found = Nets(control_nets=(Net(picture="a"), Net(picture="b")), hires=Hires(prompt="closer"))
    assert found.of_kind("picture") == {"control_nets.0.picture": "a", "control_nets.1.picture": "b"}
    assert found.of_kind("prompt") == {"prompt": "", "hires.prompt": "closer", "hires.negative_prompt": ""}
    assert Nets().of_kind("picture") == {}
