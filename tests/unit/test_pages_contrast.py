"""Texts on the pages can be read: contrast by WCAG 2.2, worked out from the colours of the style sheet."""

from __future__ import annotations

import re
from itertools import product

import pytest

from api.pages.assets import FOLDER

SHEET = (FOLDER / "base.css").read_text()
TEXT, EDGE = 4.5, 3.0  # least contrast of words, and of what shows where something is
GROUNDS = ("paper", "sheet")
READ = [
    *product(("ink", "soft", "leaf", "leaf-deep", "rust"), GROUNDS),
    *product(("ink", "soft"), ("well",)),
    ("on-leaf", "leaf"),
    ("on-leaf", "leaf-deep"),
    ("paper", "rust"),
    ("sun", "sheet"),
    *(((tone, f"{tone}-wash")) for tone in ("sun", "sky", "rust", "stone")),
    ("leaf-deep", "leaf-wash"),
]
SEEN = [
    *product(("edge", "ring"), (*GROUNDS, "well")),
    *product(("leaf", "rust"), GROUNDS),
    ("terrace-mid", "well"),
    ("ring", "leaf-wash"),
]


def colours(theme: str) -> dict[str, str]:
    light, dark = SHEET.split("@media (prefers-color-scheme: dark)")
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    return (
        found if theme == "light" else found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark.split("*, ::")[0]))
    )


def luminance(colour: str) -> float:
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_and_edges_stand_out_from_what_they_are_on(theme):
    tones = colours(theme)
    pale = [
        f"{front} on {ground}: {contrast(tones[front], tones[ground]):.2f}"
        for least, pairs in ((TEXT, READ), (EDGE, SEEN))
        for front, ground in pairs
        if contrast(tones[front], tones[ground]) < least
    ]
    assert pale == []


def test_black_on_white_is_as_the_standard_has_it():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("sheet", sorted(FOLDER.glob("*.css")), ids=lambda path: path.name)
def test_nothing_that_is_read_is_made_paler_by_its_opacity(sheet):
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", sheet.read_text())
    pale = [
        selector.strip()
        for selector, body in rules
        if re.search(r"(?<![-\w])opacity: 0?\.\d", body)
        and not re.search(r"disabled|50%|from|img|canvas|hill|furrow|\bto\b", selector)
    ]
    assert pale == []


def test_what_is_filled_in_or_pressed_has_an_edge_and_what_has_the_focus_a_ring():
    form = (FOLDER / "form.css").read_text()
    assert re.search(r"input, select, textarea \{[^}]*border: 1px solid var\(--edge\)", form)
    assert re.search(r"button, \.button \{[^}]*border: 1px solid var\(--edge\)", SHEET)
    assert re.search(r":focus-visible \{ outline: 3px solid var\(--ring\)", SHEET)
