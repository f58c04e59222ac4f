"""Pictures in the terminal: what a terminal is asked and answers, on a pseudo-terminal, and what is drawn."""

from __future__ import annotations

import os
import re
import select
import signal
import termios
import threading
import time
from base64 import standard_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cli.screen import drawing, query
from cli.screen.choice import Show
from cli.screen.drawing import Place
from cli.screen.query import Abilities
from cli.screen.show import chosen, show

KITTY, CELL, PLAIN, SIXEL = b"\x1b_Gi=31;OK\x1b\\", b"\x1b[6;18;9t", b"\x1b[?62;c", b"\x1b[?62;4;22c"
ROOM = Place(80, 24, (10, 20))


@contextmanager
def terminal(*answers: bytes) -> Iterator[tuple[int, int]]:
    """A pseudo-terminal that gives these answers when it has been asked: its own side, and that of programs."""
    own, programs = os.openpty()

    def answer() -> None:
        asked = b""
        while not asked.endswith(b"\x1b[c"):
            if not select.select([own], [], [], 5)[0]:
                return
            asked += os.read(own, 1000)
        for part in answers:
            os.write(own, part)

    thread = threading.Thread(target=answer)
    if answers:
        thread.start()
    yield own, programs
    if answers:
        thread.join()
    os.close(own)
    os.close(programs)


@pytest.mark.parametrize(
    ("answers", "abilities"),
    [
        ([KITTY, CELL, PLAIN], Abilities(kitty=True, cell=(9, 18))),
        ([SIXEL], Abilities(sixel=True)),
        ([PLAIN], Abilities()),
        ([b"\x1b_Gi=31;ENOTSUPPORTED\x1b\\", PLAIN], Abilities()),
        ([SIXEL[:4], SIXEL[4:]], Abilities(sixel=True)),
    ],
    ids=["kitty", "sixel", "neither", "kitty without pictures", "in pieces"],
)
def test_a_terminal_says_what_it_can_draw(answers, abilities):
    with terminal(*answers) as (_, programs):
        before = termios.tcgetattr(programs)
        assert query.answers(programs) == abilities
        assert termios.tcgetattr(programs) == before


def test_a_silent_terminal_is_waited_for_so_long():
    with terminal() as (_, programs):
        began = time.monotonic()
        assert query.answers(programs, 0.05) == Abilities()
        assert 0.05 <= time.monotonic() - began < 2


def test_a_terminal_is_as_it_was_after_term(monkeypatch):
    monkeypatch.setattr(query, "_QUESTIONS", b"?")
    before_signal = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with terminal() as (own, programs):
            before = termios.tcgetattr(programs)
            asked = threading.Thread(target=lambda: (os.read(own, 1), os.kill(os.getpid(), signal.SIGTERM)))
            asked.start()
            with pytest.raises(KeyboardInterrupt):
                query.answers(programs, 5)
            asked.join()
            assert termios.tcgetattr(programs) == before
    finally:
        signal.signal(signal.SIGTERM, before_signal)


def test_what_was_typed_before_is_left_to_who_reads_it():
    with terminal() as (own, programs):
        os.write(own, b"ls\n")
        assert select.select([programs], [], [], 5)[0]  # the kernel passes it on in its own time
        assert query.answers(programs, 5) == Abilities()
        assert os.read(programs, 100) == b"ls\n"
        shown = os.read(own, 1000)  # the echo of what was typed; no question
        assert b"\x1b" not in shown


@pytest.mark.parametrize("wanted", list(Show))
def test_nothing_is_drawn_or_asked_without_a_terminal(wanted):
    def ask() -> Abilities:
        raise AssertionError

    assert chosen(wanted, Console(file=StringIO(), force_terminal=False), ask)[0] is Show.NEVER
    assert (
        chosen(wanted, Console(file=StringIO(), force_terminal=True, _environ={"TERM": "dumb"}), ask)[0] is Show.NEVER
    )


@pytest.mark.parametrize(
    ("abilities", "environment", "how"),
    [
        (Abilities(kitty=True, sixel=True), {}, Show.KITTY),
        (Abilities(sixel=True), {}, Show.SIXEL),
        (Abilities(), {"COLORTERM": "truecolor"}, Show.BLOCKS),
        (Abilities(), {}, Show.BLOCKS),
        (Abilities(), {"NO_COLOR": "1"}, Show.NEVER),
        (Abilities(), {"TERM": "xterm"}, Show.NEVER),
    ],
    ids=str,
)
def test_the_best_that_the_terminal_can_is_chosen(abilities, environment, how):
    console = Console(file=StringIO(), force_terminal=True, _environ={"TERM": "xterm-256color"} | environment)
    assert chosen(Show.AUTO, console, lambda: abilities)[0] is how


def test_what_is_wanted_is_taken_whatever_the_terminal_says():
    console = Console(file=StringIO(), force_terminal=True, _environ={"TERM": "xterm-256color"})
    assert chosen(Show.SIXEL, console, lambda: Abilities(kitty=True, cell=(7, 14))) == (
        Show.SIXEL,
        Abilities(kitty=True, cell=(7, 14)),
    )


@pytest.fixture
def picture() -> Image.Image:
    """A picture of four colours, wider than high."""
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    return Image.fromarray(corners.repeat(100, 0).repeat(200, 1))


def test_kitty_gets_the_picture_in_pieces_with_its_cells(picture):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 400, 3), np.uint8))
    text = drawing.kitty(noise, ROOM)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert pieces[0][0] == "a=T,f=100,q=2,c=40,r=10,m=1"
    assert {options for options, _ in pieces[1:-1]} == {"m=1"}
    assert pieces[-1][0] == "m=0"
    assert max(len(data) for _, data in pieces) <= 4096
    sent = Image.open(BytesIO(standard_b64decode("".join(data for _, data in pieces))))
    assert np.array_equal(np.asarray(sent), np.asarray(noise))


def sixels(text: str) -> np.ndarray:
    """The pixels [height, width, 3] that a terminal shows for sixels."""
    width, height = map(int, re.match(r'\x1bP0;1q"1;1;(\d+);(\d+)', text).groups())
    shown = np.zeros((height + 6, width, 3))
    palette = {int(one): [int(part) for part in rgb.split(";")] for one, rgb in re.findall(r"#(\d+);2;([\d;]+)", text)}
    body = re.sub(r'^\x1bP0;1q"[\d;]*(#\d+;2;\d+;\d+;\d+)*|\x1b\\\n$', "", text)
    for band, rows in enumerate(body.split("-")):
        for colour, codes in re.findall(r"#(\d+)([^#$]*)", rows):
            column = 0
            for count, code in re.findall(r"(?:!(\d+))?([?-~])", codes):
                for bit in range(6):
                    if (ord(code) - 63) >> bit & 1:
                        shown[band * 6 + bit, column : column + int(count or 1)] = palette[int(colour)]
                column += int(count or 1)
            assert column == width
    return shown[:height] * 2.55


def test_sixels_are_the_picture(picture):
    text = drawing.sixel(picture, ROOM)
    shown = sixels(text)
    assert shown.shape == (200, 400, 3)
    assert np.abs(shown - np.asarray(picture)).max() < 40  # at the edges its colours mix
    assert np.abs(shown - np.asarray(picture)).mean() < 2
    assert len(text) < 20_000  # what repeats is counted


def test_blocks_show_two_pixels_in_a_cell_in_the_picture_s_proportions(picture):
    lines = drawing.blocks(picture, Place(40, 24, (10, 20)), true_colours=True).splitlines()
    assert len(lines) == 10
    assert all(line.count("▀") == 40 and line.endswith("\x1b[0m") for line in lines)
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m▀")
    few = drawing.blocks(picture, Place(40, 24, (10, 20)), true_colours=False)
    assert few.startswith("\x1b[38;5;196;48;5;196m▀")
    assert "[38;2" not in few


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1)])
@pytest.mark.parametrize("how", ["kitty", "sixel", "blocks"])
def test_any_shape_is_drawn_within_its_place(size, how):
    options = {"true_colours": True} if how == "blocks" else {}
    text = getattr(drawing, how)(Image.new("RGB", size), Place(20, 5, (10, 20)), **options)
    assert 0 < text.count("\n") <= 5


def test_pictures_of_a_job_are_shown_side_by_side(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, colour in zip(files, ["#f00", "#0f0", "#00f", "#fff"], strict=True):
        Image.new("RGB", (400, 200), colour).save(file)
    console = Console(file=StringIO(), force_terminal=True, width=60, height=30, _environ={"COLORTERM": "truecolor"})
    show(files, Show.BLOCKS, Abilities(), console)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 15
    assert re.match(r"\x1b\[38;2;255;0;0;48;2;255;0;0m▀+.*\x1b\[38;2;0;255;0;48;2;0;255;0m▀+\x1b\[0m$", lines[0])


def test_what_is_no_picture_is_not_shown(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a picture")
    console = Console(file=StringIO(), force_terminal=True)
    show([tmp_path / "a.png"], Show.BLOCKS, Abilities(), console)
    assert console.file.getvalue() == ""
