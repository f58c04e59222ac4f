"""Sentences of the farm's other parts, found again by their templates."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Final

import pytest
from flask import Flask

from api.sentences import refusal, said
from shared.errors import FieldError, NotFound, Refused
from shared.languages.sentences import LONGEST, Template
from shared.quantities import duration, estimate
from shared.wording import in_words
from tests.unit.test_axes import HOSTILE, plan
from tools.messages import sentences

_CHINESE: Final = re.compile("[\u4e00-\u9fff]")
_NAMES: Final = re.compile(r"[\w.]+(, [\w.]+)*( or [\w.]+)?")  # an accepted list of names stays as it is


@pytest.fixture(autouse=True)
def _in_chinese() -> Iterator[None]:
    with Flask(__name__).test_request_context("/?lang=zh"):
        yield


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("must be a whole number, not 7.5", "必须是整数，不能是 7.5"),
        (in_words({"type": "integer", "minimum": 1, "maximum": 150}), "1 到 150 的整数"),
        (duration(80), "1 分 20 秒"),
        (f"No worker of the pool gpu is alive. It should start in {estimate(200)} (lately off by a third).", None),
        ("Start of the noise; image i uses seed + i; -1: random.", None),
        ("Job 3 has 1 running image: cancel it before you delete it.", None),
    ],
)
def test_a_sentence_is_said_with_what_fills_its_places(english, chinese):
    words = said(english)
    assert not {"alive", "start", "about", "lately", "noise", "whole", "must", "running"} & set(words.split()), words
    assert chinese in (None, words)


def test_every_refusal_of_a_sweep_is_said():
    requests = ({"prompt": "".join(prompt) or "a lake", "sweep": sweep} for sweep, _, *prompt in HOSTILE)
    texts = {text for given in requests for problem in plan(given)[1].values() for text in problem}
    assert [text for text in texts if not _NAMES.fullmatch(text) and not _CHINESE.search(said(text))] == []


def test_a_refusal_is_said_with_its_fields():
    problems = (FieldError("name", "cannot be the name of a preset", "1 to 60 characters that can be seen, without /"),)
    assert refusal(Refused("No.", problems)) == "name: 不能作为预设的名称 (1 到 60 个可见字符，不含 /)"
    assert refusal(NotFound("You have no preset 'ink'.")) == "您没有预设 'ink'。"


def test_what_people_named_stays_as_they_named_it():
    assert said("There is no checkpoint Jobs of the sea") == "没有 Checkpoint 模型 Jobs of the sea"


def test_an_unknown_sentence_stays_english():
    assert said("Nobody has said this before") == "Nobody has said this before"


def test_a_text_made_to_match_in_many_ways_takes_no_time():
    began = time.process_time()
    for text in ("a " * (LONGEST // 2), " and ".join(["x"] * 700), "; ".join(["is: of"] * 500), "(" * LONGEST):
        said(text)
    assert time.process_time() - began < 2


def test_a_template_finds_its_places_in_order():
    template = Template(("the ", " of ", ""), ("1", "2"), "{2} {1}")
    assert template.places("the size of a picture of a house") == {"1": "size", "2": "a picture of a house"}
    assert template.places("the of ") is None
    assert Template(("ab", "ba"), ("1",), "").places("aba") is None, "the two ends may not share letters"


def test_sentences_of_a_module_become_templates_and_docstrings_do_not():
    source = """def f(x):
    \"\"\"Return nothing of any use.\"\"\"
    log.info("nobody reads this", field=x)
    raise Refused(f"{x:,} is far too large", choices(counted(x, "image")))
"""
    assert set(sentences(source)) == {"{1} is far too large", "{1} image", "{1} images"}
