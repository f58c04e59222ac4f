"""Documentation is compared with the code that it describes."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import typer

from cli.main import app
from shared.models.folders import ModelFolders
from shared.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy", "models", "tools", "bench", "tests")
CODE = ("api", "cli", "client", "shared", "worker", "migrations", *FOLDERS)
NAMED = re.compile(rf"`((?:{'|'.join(CODE)})/[\w./*-]+)`")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in ROOT.glob(f"{folder}/**/*.md"))])


def setting_row(name: str) -> str:
    """The line of a setting in docs/configuration.md."""
    field = Settings.model_fields[name]
    default = field.get_default(call_default_factory=True)
    if isinstance(default, ModelFolders):
        default = default.first
    if isinstance(default, Path):
        default = f"./{default.relative_to(Path.cwd())}"
    shown = f"`{default}`" if default not in ("", {}, None) else ""
    return f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_is_documented_with_its_default(name: str):
    assert setting_row(name) in (ROOT / "docs/configuration.md").read_text().splitlines()


def test_no_other_setting_is_documented():
    documented = re.findall(r"^\| `(FARM_\w+)`", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert documented == [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            to = page.parent / target if target else page
            assert to.exists(), target
            assert not anchor or anchor in anchors(to), f"{target}#{anchor}"
    for target in re.findall(r'(?:src|href)="([^":]+)"', page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_folder_with_code_is_described_to_contributors():
    described = re.findall(r"^\| `([\w/]+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert [folder for folder in described if not (ROOT / folder).is_dir()] == []
    assert {path.parent.name for path in ROOT.glob("[a-z]*/__init__.py")} <= set(described)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/install.md"])
def test_named_targets_of_make_exist(name: str):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE)
    assert named
    assert set(named) <= targets


def test_figures_of_the_readme_stand_in_the_pages_that_they_link_to():
    rows = re.findall(r"^\| (.*[0-9].*) \| `.+` \| .*\]\((.+\.md).*\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) >= 5
    for figures, page in rows:
        text = (ROOT / page).read_text().lower()
        for figure in re.findall(r"\d[\d,.]*\d|\d", figures):
            words = {"14": "fourteen"}.get(figure, figure)
            assert re.search(rf"(?<![\d,.]){re.escape(words)}(?!\d)", text), f"{figure} is not in {page}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_shorter_than_120_columns(page: Path):
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) >= 120 and not line.startswith(("|", "`scenes-v1`"))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path):
    assert [name for name in NAMED.findall(page.read_text()) if not list(ROOT.glob(name))] == []


def test_every_command_is_documented():
    page = (ROOT / "docs/one-machine.md").read_text()
    for name in typer.main.get_command(app).commands:
        assert f"`farm {name}" in page, name


def test_decisions_are_numbered_without_a_gap():
    notes = sorted(path.name for path in (ROOT / "deploy/decisions").glob("*.md"))
    assert [name[:4] for name in notes] == [f"{number:04}" for number in range(1, len(notes) + 1)]


@pytest.mark.parametrize("note", sorted((ROOT / "deploy/decisions").glob("*.md")), ids=lambda note: note.stem)
def test_decision_has_context_options_choice_and_price(note: Path):
    headings = re.findall(r"^## (\w+)", note.read_text(), re.MULTILINE)
    assert headings == ["Context", "Options", "Choice", "Price"]


@pytest.mark.parametrize("drawing", sorted(ROOT.glob("docs/images/*.svg")), ids=lambda drawing: drawing.name)
def test_drawing_has_a_description_and_colours_for_the_dark(drawing: Path):
    svg = ET.fromstring(drawing.read_text())
    names = {child.tag.rpartition("}")[2]: child.text for child in svg}
    assert names["title"]
    assert names["desc"]
    assert "prefers-color-scheme: dark" in names["style"]
