"""The words on pages, as the functions that make them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from api.pages.filters import image_words, marked
from api.pages.login import inside
from api.schemas.jobs import ImageBody, ImageLinks

NOW = datetime.now(UTC)


@pytest.mark.parametrize("address", ["/", "/jobs/17?page=2", "/?from=3"])
def test_inside_keeps_pages_of_the_farm(address):
    assert inside(address) == address


def test_marked_text_is_escaped_before_its_code_is_set_apart():
    assert marked("a `<b>` & <i>") == "a <code>&lt;b&gt;</code> &amp; &lt;i&gt;"


def image(**columns: object) -> ImageBody:
    links = ImageLinks(picture=None, thumbnail=None, preview=None, film=None, strip=None, intermediates=None)
    usual = {
        "index": 0,
        "state": "running",
        "seed": 7,
        "attempt": 1,
        "step": 0,
        "steps": 20,
        "phase": None,
        "progress": 0.0,
        "reason": None,
        "worker": "host/cpu:0",
        "queued_at": NOW,
        "expires_at": None,
        "started_at": NOW,
        "ended_at": None,
        "seconds": None,
        "bytes": None,
        "links": links,
    }
    return ImageBody(**(usual | columns))


@pytest.mark.parametrize(
    ("phase", "step", "words"),
    [
        ("steps", 12, "step 12 of 20"),
        ("steps", 20, "decoding"),
        ("decode", 20, "decoding"),
        ("saving", 20, "saving the picture"),
        (None, 0, "starting"),
        ("resting", 0, "resting"),
    ],
)
def test_running_image_says_what_is_done_for_it(phase, step, words):
    assert image_words(image(phase=phase, step=step)) == words


@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ("loading checkpoint scenes-v1, about 6 s", "loading checkpoint scenes-v1 (usually 6 s, 24 s so far)"),
        ("loading checkpoint a, b, about 1 min 5 s", "loading checkpoint a, b (usually 1 min 5 s, 24 s so far)"),
        ("loading VAE fine", "loading VAE fine (24 s so far)"),
        ("loading <b>", "loading <b> (24 s so far)"),
    ],
)
def test_loading_tells_how_long_it_has_taken(phase, told):
    words = image_words(image(phase=phase, started_at=datetime.now(UTC) - timedelta(seconds=24)))
    assert Markup(words).striptags() == told
    assert re.search(r'data-so-far="24"', words)
    assert "<b>" not in words
