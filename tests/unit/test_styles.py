"""Styles: a CSV file that people and other programs write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.errors import Conflict, NotFound, Unavailable
from shared.prompts import styles
from shared.prompts.styles import Style

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=50)
NAMES = TEXTS.filter(lambda name: name.strip() == name != "" and name[0] != "#")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "farm" / "styles.csv"
    path.parent.mkdir()
    path.write_text('name,prompt,negative_prompt\nInk,"ink, paper",colour\n')
    return path


@pytest.mark.parametrize(
    ("prompt", "texts", "merged"),
    [
        ("a cat", ["{prompt}, ink", "paper"], "a cat, ink, paper"),
        ("a cat", ["paper", "a drawing of {prompt}"], "a drawing of a cat, paper"),
        ("a cat", ["{prompt} and {prompt}"], "a cat and a cat"),
        ("", ["ink"], "ink"),
        (" a cat ", [], " a cat "),
        ("a cat", ["  "], "a cat"),
        ("a cat # mine", ["ink", "{prompt}!"], "a cat # mine\n, ink!"),
        ("a cat # mine", ["a drawing of {prompt}, ink"], "a drawing of a cat # mine\n, ink"),
    ],
)
def test_styles_join_a_prompt_in_their_order(prompt: str, texts: list[str], merged: str) -> None:
    assert styles.merge(prompt, texts) == merged


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,prompt,negative_prompt\nA,a,b\n", [Style("A", "a", "b")]),
        ('\ufeffname, prompt, negative_prompt\nA, "a, b", c\n', [Style("A", "a, b", "c")]),
        ("name,text\nA,a\n", [Style("A", "a")]),
        ("name,prompt,negative_prompt\n# mine,,\nA,a\n,b,c\n", [Style("A", "a")]),
        ('name,prompt,negative_prompt\nA,"two\nlines",\n', [Style("A", "two\nlines")]),
        ("name,prompt,negative_prompt\n", []),
    ],
    ids=["plain", "marked", "old", "remarks", "lines", "none"],
)
def test_files_are_read_as_people_have_them(file: Path, text: str, expected: list[Style]) -> None:
    file.write_text(text, "utf-8")
    assert list(styles.load(file).values()) == expected


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a,b\n1,2\n", b'name\n"' + b"x" * 200_000 + b'"\n'])
def test_a_file_that_cannot_be_read_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(Unavailable, match=f"The styles in {file} cannot be read"):
        styles.load(file)


def test_a_farm_without_a_file_has_the_styles_that_come_with_it(tmp_path: Path) -> None:
    shipped = styles.load(tmp_path / "styles.csv")
    assert "Pixel art" in shipped
    assert all(style.prompt or style.negative_prompt for style in shipped.values())


def test_a_style_that_is_added_joins_those_that_come_with_the_farm(tmp_path: Path) -> None:
    path = tmp_path / "new" / "styles.csv"
    shipped = styles.load(path)
    styles.add(path, Style("Ink", "ink"))
    assert styles.load(path) == {**shipped, "Ink": Style("Ink", "ink")}


def test_a_style_is_added_replaced_and_removed_in_its_place(file: Path) -> None:
    styles.add(file, Style("Sea", 'the "sea",\nwaves'))
    with pytest.raises(Conflict, match="'Ink' already"):
        styles.add(file, Style("Ink"))
    styles.add(file, Style("Ink", "black ink"), replace=True)
    assert list(styles.load(file).values()) == [Style("Ink", "black ink"), Style("Sea", 'the "sea",\nwaves')]
    styles.remove(file, "Ink")
    assert list(styles.load(file)) == ["Sea"]


def test_a_change_keeps_remarks_and_what_the_file_was(file: Path) -> None:
    before = "name,prompt,negative_prompt\n# by hand,,\nInk,ink,\n"
    file.write_text(before)
    styles.remove(file, "Ink")
    assert "# by hand" in file.read_text()
    assert file.with_name("styles.csv.bak").read_text() == before


def test_an_unknown_style_is_told_with_those_nearest_to_it(file: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no style 'inc'. Did you mean Ink\?"):
        styles.remove(file, "inc")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "styles.csv"
    with pytest.raises(Unavailable, match=r"styles\.csv cannot be written"):
        styles.add(path, Style("Ink"))


@given(st.lists(st.builds(Style, NAMES, TEXTS, TEXTS)))
@example([Style("blank", " at its beginning", " ")])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_any_text_comes_back(tmp_path: Path, given: list[Style]) -> None:
    path = tmp_path / "styles.csv"
    path.write_text("name,prompt,negative_prompt\n")
    for style in given:
        styles.add(path, style, replace=True)
    assert styles.load(path) == {style.name: style for style in given}
