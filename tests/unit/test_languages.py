"""Every text of the pages is in every catalogue, with a translation that has the same places."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from babel.messages.catalog import Message
from flask import Flask
from jinja2 import Environment

from api import languages
from tests.support.page_texts import files, literals_of_script, literals_of_template
from tools import messages

API: Final = Path(languages.__file__).parent
CATALOGUES: Final = sorted(messages.CATALOGUES.glob("*.po"))
ENVIRONMENT: Final = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"], autoescape=True)
UNSEEN: Final = {"shared/settings.py", "shared/db/migrate.py", "shared/db/revisions.py", "api/http/sse.py"}
"""Modules whose refusals are said to the person who starts the farm, or to programs alone."""
_PLACE: Final = re.compile(r"%\(\w+\)s|%%|\{\d+\}")
_MUST: Final = re.compile(r"%\(\w+\)s")  # a translation may do without a place such as `{2}` for `is` or `are`
_CODE: Final = re.compile(r"`[^`]*`")


@pytest.fixture(scope="module", params=CATALOGUES, ids=lambda path: path.stem)
def catalogue(request: pytest.FixtureRequest) -> list[Message]:
    return list(messages.read(request.param))[1:]


@pytest.fixture(scope="module")
def said() -> dict[str, messages.Text]:
    """Every text of the pages by its English, of the singular where it has two."""
    return {text if isinstance(text, str) else text[0]: text for text, _ in messages.texts()}


def test_each_text_of_the_pages_is_in_the_catalogue_and_nothing_else_is(catalogue, said):
    known = {message.id if isinstance(message.id, str) else message.id[0] for message in catalogue}
    assert not set(said) - known, "run `make messages` and translate what it adds"
    assert not known - set(said), "run `make messages`: nothing says this any more"


def test_each_text_is_translated_and_none_is_a_guess(catalogue):
    assert [message.id for message in catalogue if not all(_strings(message)) or message.fuzzy] == []


def test_translations_have_the_places_of_their_texts(catalogue):
    for message in catalogue:
        english = [message.id] if isinstance(message.id, str) else message.id
        needed, known = [set(_MUST.findall(one)) for one in english], set(_PLACE.findall("".join(english)))
        for text in _strings(message):
            assert set.intersection(*needed) <= set(_PLACE.findall(text)) <= known, (english, text)
            assert len(_CODE.findall(text)) == len(_CODE.findall(english[0])), (english, text)


def test_entries_stand_in_the_order_in_which_they_are_written(catalogue):
    english = [message.id if isinstance(message.id, str) else message.id[0] for message in catalogue]
    assert english == sorted(english), "run `make messages`"


def test_templates_and_scripts_ask_for_their_texts_in_the_readers_language():
    templates = {name: literals_of_template(source, ENVIRONMENT) for name, source in files(API / "templates", "*.html")}
    scripts = {name: literals_of_script(source) for name, source in files(API / "static", "*.js")}
    literals = {name: list(found) for name, found in (templates | scripts).items()}
    assert {name: found for name, found in literals.items() if found} == {}


def test_pages_refuse_in_the_readers_language():
    spoken = {
        f"{path.name}:{call.lineno}": text
        for path in (API / "pages").glob("*.py")
        for call, text in messages.refusals(path.read_text())
    }
    assert spoken == {}, "say it by _()"


def test_no_module_is_forgotten_whose_refusals_pages_show():
    read = {*messages.said_in()}
    forgotten = {
        f"{place}:{call.lineno}"
        for folder in ("shared", "api/http", "api/security", "api/use_cases")
        for path in (messages.ROOT / folder).rglob("*.py")
        if (place := path.relative_to(messages.ROOT).as_posix()) not in read
        for call, _ in messages.refusals(path.read_text())
    }
    assert {one.partition(":")[0] for one in forgotten} <= UNSEEN, forgotten


def test_scripts_that_ask_for_texts_import_what_answers():
    asking = {name: source for name, source in files(API / "static", "*.js") if re.search(r"(?<![\w.])_\(", source)}
    imported = re.compile(r"^import \{[^}]*(?<!\w)_(?!\w)[^}]*\} from|^export (const|function) _", re.MULTILINE)
    assert asking
    assert [name for name, source in asking.items() if not imported.search(source)] == []


def test_literals_are_found_wherever_a_template_says_them():
    template = """<p>Two {{ words }}<img alt="Sea"><b title="{{ _("Asked") }}">{{ "One more" if x else _("No") }}</b>
    </p><code>farm up</code><input type="submit" value="Go on">{{ button("Press me", "is-quiet") }}"""
    assert set(literals_of_template(template, ENVIRONMENT)) == {"Two", "Sea", "One more", "Go on", "Press me"}


@pytest.mark.parametrize(
    ("address", "headers", "language"),
    [
        ("/", {}, "en"),
        ("/", {"Accept-Language": "zh-CN,en;q=0.8"}, "zh"),
        ("/", {"Accept-Language": "fr, zh-TW;q=0.9, en;q=0.8"}, "zh"),
        ("/", {"Accept-Language": "en-GB, zh;q=0.9"}, "en"),
        ("/", {"Accept-Language": "zh;q=0, fr"}, "en"),
        ("/", {"Accept-Language": "zh", "Cookie": "language=en"}, "en"),
        ("/", {"Cookie": "language=../../secret"}, "en"),
        ("/?lang=zh", {"Cookie": "language=en"}, "zh"),
        ("/?lang=%00", {"Accept-Language": "zh"}, "zh"),
    ],
)
def test_the_language_is_the_one_that_was_chosen_else_the_browsers(address, headers, language):
    with Flask(__name__).test_request_context(address, headers=headers):
        assert languages.language() == language
        assert languages._("Workers") == {"en": "Workers", "zh": "工作进程"}[language]


def test_a_lazy_text_is_in_the_language_of_whoever_reads_it():
    text = languages.lazy("Jobs")
    assert str(text) == "Jobs"
    with Flask(__name__).test_request_context("/?lang=zh"):
        assert f"{text}" == "任务"


def test_the_address_in_another_language_is_the_same_page():
    with Flask(__name__).test_request_context("/jobs?state=failed&lang=zh"):
        assert languages.others() == [("en", "English", "?state=failed&lang=en")]
    with Flask(__name__).test_request_context("/jobs", method="POST"):
        assert languages.others() == [("zh", "中文", "/?lang=zh")]


def _strings(message: Message) -> list[str]:
    return list(message.string) if message.pluralizable else [message.string]
