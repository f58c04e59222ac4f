"""What the reader of prose finds, where it says that it stands, and what it leaves alone."""

from __future__ import annotations

import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tools import prose

ROOT = Path(__file__).parents[2]
FORBIDDEN = prose.expressions(
    "# a comment\n\nanew\tagain\nof what is none\tsay what\n(?-i:Nobody) (?:is|are)\tthe noun\n"
)
PYTHON = '''"""Made anew."""  # and of what
# is none

number = 7  # of what

anew = f"once {number} anew"


def said():
    """One line.

    Another, of what
    is none.
    """
    return "of "  "what is none"
'''


def found(name: str, source: str) -> list[tuple[int, str]]:
    return sorted(
        found for text in prose.texts(name, source) for expression in FORBIDDEN for found in expression.lines(text)
    )


def test_python_is_read_in_its_strings_and_comments_alone():
    assert found("a.py", PYTHON) == [
        (1, "anew"),
        (1, "of what is none"),
        (6, "anew"),
        (12, "of what is none"),
        (15, "of what is none"),
    ]


SIGNS = r"""a = "#anew", r"\\"  # made
b = '\'# anew'  # one
c = '''# ' anew''' + f"{1}# anew" + "'"  # two

d = (  # three
    'of '  # four
    'which'
)
# made
# anew"""


def test_comment_is_distinguished_from_a_sign_in_a_string():
    by_the_book = tokenize.generate_tokens(io.StringIO(SIGNS).readline)
    comments = [token.string for token in by_the_book if token.type == tokenize.COMMENT]
    assert comments == ["# made", "# one", "# two", "# three", "# four", "# made", "# anew"]
    assert list(prose.texts("a.py", SIGNS))[-3:] == [
        prose.Text(1, "made\none\ntwo"),
        prose.Text(5, "three\nfour"),
        prose.Text(9, "made\nanew"),
    ]


def test_other_files_are_read_whole_and_over_the_ends_of_lines():
    assert found("a.md", "# Title\n\nMade Anew, of\n  what is none.") == [(3, "Anew"), (3, "of what is none")]


@pytest.mark.parametrize("text", ["renewed", "anewer", "nobody is there", "of what nobody is", "Nobodys are"])
def test_parts_of_words_and_other_capitals_are_left_alone(text: str):
    assert not found("a.md", text)


@pytest.mark.parametrize(
    ("line", "why"),
    [("anew", "a tab"), ("anew\t ", "a tab"), ("\tagain", "a tab"), ("(anew\tagain", "is not a regular")],
)
def test_line_of_the_list_that_cannot_be_used_is_refused(line: str, why: str):
    with pytest.raises(ValueError, match=f"line 2: .*{why}"):
        prose.expressions(f"# a comment\n{line}\n")


SAID = [
    "One old job that cannot be deleted keeps `FARM_KEEP_DAYS` from no other",
    "The farm's fault; its log says more beside ab12.",
    "Job 5 is queued: nothing of it can be retried.",
    "Who was late himself judges nobody",
    "Goes before all that is not, whoever that belongs to",
    "What is away is asked again.",
    "none of ours",
    "made anew",
    "as it comes none are",
    "be it a folder or a file",
    "a seed that is none",
    "`x` is no number",
    "it is told at the door",
    "where there is none",
]
INSTEAD = [
    "If an old job cannot be deleted, `FARM_KEEP_DAYS` skips it and goes on.",
    "After three failures in a row it stops until the next hourly run.",
    "Internal error ab12: search the API's log for this id.",
    "Job 5 cannot be retried: it is queued.",
    "A process that was late must not declare others dead.",
    "Starts before everything that is not urgent, whoever owns it.",
    "What is the farm? What has it stored?",
    "## What is different",
    "There is no farm in this folder, and it is no longer running.",
    "To be told apart from one that is told to stop.",
]


@pytest.mark.parametrize("text", SAID)
def test_list_of_the_house_holds(text: str):
    forbidden = prose.expressions(prose.LIST.read_text(encoding="utf-8"))
    assert any(list(expression.lines(prose.Text(1, text))) for expression in forbidden)


@pytest.mark.parametrize("text", INSTEAD)
def test_list_of_the_house_lets_plain_sentences_pass(text: str):
    forbidden = prose.expressions(prose.LIST.read_text(encoding="utf-8"))
    assert [
        list(expression.lines(prose.Text(1, text))) for expression in forbidden if expression.pattern.search(text)
    ] == []


def test_script_names_file_line_words_and_what_to_write(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("One\nmade anew\n")
    (tmp_path / "docs/picture.webp").write_bytes(b"\xff anew")
    (tmp_path / "api").mkdir()
    (tmp_path / "api/broken.py").write_text('"made anew')
    command = [sys.executable, ROOT / "tools/prose.py"]
    answer = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False, timeout=30)
    assert answer.returncode == 1
    assert [line.rpartition(":")[0] for line in answer.stdout.splitlines()] == [
        "api/broken.py:1: “anew”",
        "docs/page.md:2: “anew”",
    ]
    refused = subprocess.run(
        [*command, "--list", tmp_path / "none"], capture_output=True, text=True, check=False, timeout=30
    )
    assert refused.returncode == 2
    assert "none" in refused.stderr
