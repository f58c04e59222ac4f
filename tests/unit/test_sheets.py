"""Contact sheets as they are drawn: where cells stand, that words fit, that the file is a PNG within its bounds."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from shared.params.job_spec import Axis, AxisValue
from shared.sheets import drawing
from shared.sheets.arrangement import Row, arranged
from shared.sheets.drawing import Empty, Words
from shared.sheets.lettering import Letters
from shared.sheets.png import PngWriter

LEAF, PAPER = (44, 106, 75), (255, 255, 255)


def axis(field, *titles):
    return Axis(field=field, values=tuple(AxisValue(title=str(title)) for title in titles))


def picture(index, width, height):
    """A plain picture, whose red is the index of its image."""
    return Image.new("RGB", (min(width, 64), min(height, 64)), (index, 106, 75))


def drawn(sheet):
    with Image.open(BytesIO(sheet.png)) as opened:
        opened.load()
        return opened


class TestArrangement:
    def test_one_axis_is_a_line_of_columns_that_goes_on_below(self):
        sheet = arranged([axis("steps", *range(23))])
        assert [block.rows for block in sheet.blocks] == [
            (Row("", tuple(range(10))),),
            (Row("", tuple(range(10, 20))),),
            (Row("", (20, 21, 22)),),
        ]
        assert [block.columns[0] for block in sheet.blocks] == ["0", "10", "20"]
        assert (sheet.columns, sheet.rows, sheet.block) == ("Steps", "", "")

    def test_two_axes_are_rows_and_columns_and_the_last_varies_fastest(self):
        sheet = arranged([axis("sampler", "Euler", "Heun"), axis("cfg_scale", 7, 15, 20)])
        [block] = sheet.blocks
        assert block.columns == ("7", "15", "20")
        assert block.rows == (Row("Euler", (0, 1, 2)), Row("Heun", (3, 4, 5)))
        assert (sheet.columns, sheet.rows) == ("CFG scale", "Sampler")

    def test_three_axes_are_blocks_of_rows_and_columns(self):
        sheet = arranged([axis("checkpoint", "a", "b"), axis("steps", 10, 20), axis("seed", 1, 2)])
        assert [block.title for block in sheet.blocks] == ["a", "b"]
        assert [row.images for block in sheet.blocks for row in block.rows] == [(0, 1), (2, 3), (4, 5), (6, 7)]
        assert sheet.block == "Checkpoint"


class TestPng:
    def test_rows_that_come_in_pieces_are_one_picture_with_its_texts(self):
        pixels = np.random.default_rng(7).integers(0, 256, (150, 33, 3), dtype=np.uint8)
        png = PngWriter(33, 150, {"job": "沙漠"})
        for start, end in ((0, 1), (1, 100), (100, 150)):
            png.write(pixels[start:end])
        with Image.open(BytesIO(png.ended())) as opened:
            assert np.array_equal(np.asarray(opened), pixels)
            assert opened.info["job"] == "沙漠"

    def test_a_picture_that_lacks_rows_is_none(self):
        png = PngWriter(3, 2, {})
        png.write(np.zeros((1, 3, 3), np.uint8))
        with pytest.raises(ValueError, match="1 rows are missing"):
            png.ended()


class TestLetters:
    letters = Letters(16)

    @pytest.mark.parametrize(
        "text",
        [
            "a painting of the desert at sunset, " * 9,
            "沙漠中的日落，一幅画，" * 9,
            "x" * 900,
            "a\n\tb\x00\u202e c" * 40,
        ],
    )
    def test_lines_are_as_wide_as_they_may_be_and_no_more_than_that(self, text):
        lines = self.letters.lines(text, 300, 4)
        assert 1 <= len(lines) <= 4
        assert all(self.letters.width(line) <= 300 for line in lines)
        assert lines[-1].endswith("…")

    def test_what_fits_is_left_as_it_is(self):
        assert self.letters.lines("Euler a", 300, 3) == ["Euler a"]
        assert self.letters.lines("", 300, 3) == []

    def test_words_stay_whole_and_chinese_is_parted_anywhere(self):
        width = self.letters.width("sunset over")
        assert self.letters.lines("sunset over the sea", width, 3) == ["sunset over", "the sea"]
        assert self.letters.lines("沙漠中的日落", self.letters.width("沙漠中的"), 3) == ["沙漠中的", "日落"]

    def test_latin_and_chinese_letters_are_there(self):
        missing = self.letters.font.getmask("\U0010fffd")
        for letter in "aÄж沙→↓·…":
            assert bytes(self.letters.font.getmask(letter)) != bytes(missing), letter


class TestDrawing:
    axes = (axis("sampler", "Euler", "Heun"), axis("cfg_scale", 7, 15, 20))

    def test_each_cell_stands_where_its_titles_say(self):
        sheet = drawing.draw(arranged(self.axes), Words("the sea", ["Steps: 20"]), (64, 64), picture, {})
        pixels = np.asarray(drawn(sheet))
        assert (sheet.width, sheet.height) == (pixels.shape[1], pixels.shape[0])
        places = [np.argwhere((pixels == (index, 106, 75)).all(axis=2)) for index in range(6)]
        assert [len(place) for place in places] == [64 * 64] * 6
        tops, lefts = zip(*(place.min(axis=0) for place in places), strict=True)
        assert len(set(tops[:3])) == len(set(tops[3:])) == 1
        assert tops[0] < tops[3]
        assert list(lefts[:3]) == list(lefts[3:]) == sorted(set(lefts))

    def test_a_cell_without_a_picture_says_why(self):
        def cell(index, width, height):
            return Empty("failed", "no memory") if index == 4 else picture(index, width, height)

        pixels = np.asarray(drawn(drawing.draw(arranged(self.axes), Words("", []), (64, 64), cell, {})))
        whole = np.asarray(drawn(drawing.draw(arranged(self.axes), Words("", []), (64, 64), picture, {})))
        differs = np.argwhere((pixels != whole).any(axis=2))
        assert len(differs) > 64 * 64
        assert not (pixels == (4, 106, 75)).all(axis=2).any()

    @pytest.mark.parametrize(
        ("axes", "largest"),
        [
            ([axis("seed", *range(200)), axis("steps", *range(5))], (4096, 1024)),
            ([axis("steps", *range(5)), axis("seed", *range(200))], (1024, 4096)),
            ([axis("seed", *range(25)), axis("steps", *range(40))], (2048, 2048)),
            ([axis("seed", *range(200)), axis("steps", 1), axis("cfg_scale", *range(5))], (512, 512)),
            ([axis("prompts", *("词" * 500 for _ in range(200)))], (64, 64)),
            ([axis("seed", 1)], (4096, 4096)),
        ],
    )
    def test_no_sheet_is_larger_than_its_bounds(self, axes, largest):
        strips, width = drawing._fitting(arranged(axes), Words("a" * 30_000, ["b " * 9000]), largest, picture)
        height = sum(strip.height for strip in strips)
        assert width <= drawing.MAX_SIDE
        assert height <= drawing.MAX_SIDE
        assert width * height <= drawing.MAX_PIXELS
        assert max(strip.height for strip in strips) < 1.2 * drawing.MAX_CELL
