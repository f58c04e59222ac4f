"""No sentence of a library reaches a user: errors of values have the farm's words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core._pydantic_core import list_all_errors

from api.http import parameters
from api.http.problems import refuse_fields
from shared.admission import parse
from shared.errors import Refused, SettingsError
from shared.infotext.reader import read
from shared.params.groups import Guidance, Hires, Noise, Refiner, Sampling
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from shared.params.scheduling import Scheduling
from shared.settings import Limits, Settings, load
from shared.wording import in_words, message, wanted

THEIRS = re.compile(
    r"Input |[Ff]ield required|not permitted|unable to|should (?:be|have|match)|valid (?:string|integer|number|boolean|"
    r"list|tuple|dictionary)|[Ee]xtra inputs|pydantic|Value error|Assertion failed|parsing|\{|\}"
)
QUERIES = [
    one for one in vars(parameters).values()
    if isinstance(one, type) and issubclass(one, BaseModel) and one is not BaseModel
]  # fmt: skip
MODELS = [
    RenderParams, Sampling, Guidance, Noise, Refiner, Hires, Img2Img, Mask, Scheduling, Settings, Limits, *QUERIES
]  # fmt: skip
BAD = (
    None, "", "x", "1.5", "9" * 5000, "x" * 100_000, "a\x00", "\ud800", "loud", 1.5, -1, 3, 10**30, -(10**30), math.nan,
    math.inf, True, [], ["x"] * 100, [None], {}, {"x": 1}, {"picture": 5}, datetime(2020, 1, 1),  # noqa: DTZ001 - the wrong one
    object(), b"\xff",
    "2020-01-01", "2020-01-01T00:00:00", "9999-12-31T23:59:59-14:00",
)  # fmt: skip


def errors() -> Iterator[Any]:
    """Every kind of error that a bad value in any field of the farm causes."""
    for model in MODELS:
        for given in ({}, 5, {"no such field": 1}):
            yield from _of(model, given)
        for name in model.model_fields:
            for value in BAD:
                yield from _of(model, {name: value})


def _of(model: type[BaseModel], given: Any) -> Iterator[Any]:
    try:
        model.model_validate(given)
    except ValidationError as error:
        yield from error.errors(include_url=False)


def test_every_error_of_our_schemas_is_told_in_our_words():
    kinds = {}
    for error in errors():
        kinds[error["type"]] = told = message(error)
        assert told
        assert not THEIRS.search(re.sub(r"""the text (['"]).*\1""", "", told)), (error["type"], told)
        assert not THEIRS.search(wanted(error)), (error["type"], wanted(error))
        assert len(told) < 300 or error["type"] == "value_error"
        assert told != "cannot be accepted as it is", error["type"]
    assert {"missing", "extra_forbidden", "int_type", "literal_error", "value_error", "multiple_of"} <= kinds.keys()


@pytest.mark.parametrize("kind", list_all_errors(), ids=lambda kind: kind["type"])
def test_no_error_of_the_library_is_told_in_its_words(kind):
    theirs = kind["example_message_python"]
    problem = {"type": kind["type"], "msg": theirs, "input": 5, "ctx": kind["example_context"], "loc": ("x",)}
    if kind["type"] not in {"value_error", "assertion_error"}:
        assert message(problem) != theirs
        assert not THEIRS.search(message(problem))
        assert not THEIRS.search(wanted(problem).replace(str(kind["example_context"]), ""))


def test_the_door_says_what_is_wrong_and_what_would_be_accepted():
    _, problems = parse._params({"width": 100, "prompt": 5, "mood": 1, "hires": {"scale": 99}, "refiner": {}}, Limits())
    assert {one.field: one.message for one in problems} == {
        "width": "100 is not a multiple of 8",
        "prompt": "must be text, not 5",
        "mood": "is not a parameter",
        "hires.scale": "99 is too large",
        "refiner.checkpoint": "is missing",
    }


@pytest.mark.parametrize(
    ("given", "field", "offered"),
    [
        (
            {"upscale": {"pictures": [{"picture": "x", "pictur": 1}]}},
            "upscale.pictures.0.pictur",
            "upscale.pictures.picture",
        ),
        ({"controlnet": [{"model": "x"}, {"model": "x", "weigth": 1}]}, "controlnet.1.weigth", "controlnet.weight"),
        ({"hires.x.y": 1}, "hires.x.y", "hires"),
        ({"hires": {"5": 1}}, "hires.5", ""),
    ],
    ids=range(4),
)
def test_a_parameter_that_is_none_is_refused_wherever_it_stands(given, field, offered):
    _, problems = parse._params(given, Limits())
    (problem,) = (one for one in problems if one.message == "is not a parameter")
    assert problem.field == field
    assert offered in problem.accepted


@pytest.mark.parametrize(
    ("query", "given", "field", "told", "offered"),
    [
        (parameters.JobsQuery, {"limit": "x"}, "limit", "must be a whole number, not the text 'x'", "a whole number"),
        (parameters.JobsQuery, {"limit": 0}, "limit", "0 is too small", "at least 1"),
        (parameters.JobsQuery, {"limit": 500}, "limit", "500 is too large", "at most 200"),
        (parameters.JobsQuery, {"mood": 1}, "mood", "is not part of this request", "only what /openapi.json names"),
        (parameters.DrainQuery, {"reason": "x" * 501}, "reason", "is too long", "at most 500 characters"),
    ],
)
def test_a_query_says_it_too(query, given, field, told, offered):
    with pytest.raises(ValidationError) as caught:
        query.model_validate(given)
    with pytest.raises(Refused) as refused:
        refuse_fields(caught.value)
    [problem] = refused.value.fields
    assert (problem.field, problem.message, problem.accepted) == (field, told, offered)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FARM_PORT", "99999", "must be a whole number from 0 to 65535"),
        ("FARM_PORT", "x", "must be a whole number from 0 to 65535"),
        ("FARM_PORT", "1.5", "must be a whole number from 0 to 65535"),
        ("FARM_MIN_SIZE", "65", "must be a multiple of 8 of at least 8"),
        ("FARM_LEASE_SECONDS", "0", "must be a number above 0"),
        ("FARM_LEASE_SECONDS", "nan", "must be a number above 0"),
        ("FARM_LOG_LEVEL", "loud", "must be debug, info, warning or error"),
        ("FARM_MAX_STEPS", "9" * 5000, "must be a whole number of at least 1"),
        ("FARM_API_KEYS", "x", "must be owner:key pairs"),
    ],
)
def test_a_setting_says_it_too(name, value, told):
    with pytest.raises(SettingsError) as caught:
        load({name: value})
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{name}=")
    assert len(str(caught.value)) < 500


def test_a_text_of_a_picture_says_it_too():
    found = read("a cat\nSteps: 0, Seed: 1, Clip skip: 99, RNG: CPU, CFG scale: nan").left_out
    assert "clip_skip: 99 is too large" in found
    assert "cfg_scale: must be a finite number, not NaN" in found


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "multipleOf": 8, "minimum": 64, "maximum": 2048}, "a multiple of 8 from 64 to 2048"),
        ({"type": "number", "exclusiveMinimum": 0}, "a number above 0"),
        ({"type": "integer"}, "a whole number"),
        ({"type": "string"}, "text"),
        ({"type": "boolean"}, "true or false"),
        ({"enum": ["a", "b", "c"], "type": "string"}, "a, b or c"),
    ],
)
def test_a_schema_is_told_in_words(schema, words):
    assert in_words(schema) == words
