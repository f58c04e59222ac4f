"""The hashes of a model file and of its networks, computed in one read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from shared.models import components, hashing
from shared.models.components import Component, Place, Stretch

MIB = 2**20


def of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_a_file_and_its_networks_are_hashed_in_one_read(tmp_path: Path, monkeypatch):
    content, reads = os.urandom(5 * MIB + 77), []
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    opened = hashing.regular_files.opened
    monkeypatch.setattr(hashing.regular_files, "opened", lambda one: reads.append(one) or opened(one))
    bounds = [(100, 3 * MIB), (3 * MIB + 100, 40), (4 * MIB, MIB + 77)]
    first, second, third = (Stretch("", start, length) for start, length in bounds)
    places = {"unet": Place("f", {"float16": 6}, (third, first)), "vae": Place("g", {"float32": 8}, (second,))}
    whole, found = hashing.hashed(path, places)
    assert whole == hashlib.sha256(content).hexdigest() == hashing.sha256(path)
    assert reads == [path, path], "once for each of the two calls"
    cut = [content[start : start + length] for start, length in bounds]
    assert found["unet"] == Component(components.digest("f", [of(cut[2]), of(cut[0])]), {"float16": 6})
    assert found["vae"].digest == components.digest("g", [of(cut[1])])


def test_a_matrix_that_is_turned_equals_the_one_that_lies_so(tmp_path: Path):
    rows = [[b"%04d" % (10 * row + column) for column in range(3)] for row in range(5)]
    turned = b"".join(rows[row][column] for column in range(3) for row in range(5))
    path = tmp_path / "a"
    path.write_bytes(b"head" + b"".join(b"".join(row) for row in rows) + turned)
    lies = Stretch("", 64, 60)
    found = hashing.hashed(path, {"a": Place("f", {}, (Stretch("", 4, 60, 3, 4),)), "b": Place("f", {}, (lies,))})[1]
    assert found["a"].digest == found["b"].digest is not None


@pytest.mark.parametrize(
    "stretches",
    [
        None,
        [Stretch("", 0, 5), Stretch("", 4, 2)],
        [Stretch("", 8, 5)],
        [Stretch("", 99, 1)],
        [Stretch("", 99, 0)],
        [Stretch("b", 0, 1)],
        [Stretch("", 3, 8, 2, 2)],
        [Stretch("", 99, 8, 2, 2)],
        [Stretch("", 1, 7, 2, 2)],
        [Stretch("", 1, 6, 2, 2)],
        [Stretch("", 0, 8, 2, 3)],
        [Stretch("", 0, 8, 2, 0)],
    ],
    ids=[
        "not looked into",
        "overlap",
        "beyond the end",
        "outside",
        "of no bytes, outside",
        "another file",
        "a matrix that is cut off",
        "a matrix outside",
        "a matrix with half a number",
        "a matrix with half a row",
        "a matrix of numbers of three bytes",
        "a matrix of numbers of no bytes",
    ],
)
def test_a_network_whose_bytes_are_not_known_has_no_digest_and_its_file_a_hash(tmp_path: Path, stretches):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    place = Place("f", {"float16": 4}, stretches and tuple(stretches))
    whole, found = hashing.hashed(path, {"unet": place})
    assert whole == hashlib.sha256(b"0123456789").hexdigest()
    assert found == {"unet": Component(None, {"float16": 4})}


def test_weights_of_no_bytes_are_hashed_wherever_they_lie_beside_others(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    for columns in range(8):  # in which order ranges that begin together come out of a set is left to chance
        stretches = (*(Stretch("", start, 0, columns, 2) for start in (3, 5, 10)), Stretch("", 3, 2))
        whole, found = hashing.hashed(path, {"unet": Place("f", {}, stretches)})
        assert whole == of(b"0123456789").hex()
        empty = of(b"")
        assert found["unet"].digest == components.digest("f", [empty, empty, empty, of(b"34")])


def test_a_matrix_too_large_to_turn_is_not_taken_for_the_one_that_lies_so(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(hashing, "LARGEST_MATRIX_BYTES", 8)
    path = tmp_path / "a"
    path.write_bytes(bytes(range(24)))
    large, next_one = Stretch("", 0, 16, 4, 2), Stretch("", 16, 8, 2, 2)
    whole, found = hashing.hashed(path, {"a": Place("f", {}, (large,)), "b": Place("f", {}, (next_one,))})
    assert whole == of(path.read_bytes()).hex()
    assert found["a"].digest is None
    assert found["b"].digest


def test_a_folder_whose_parts_are_not_named_in_text_has_a_hash(tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x")
    line = of(b"x").hex().encode() + b"  caf\xe9.txt\n"
    assert hashing.sha256(tmp_path) == of(line).hex()


def test_a_folder_has_the_hash_of_its_parts_and_networks_that_lie_in_them(tmp_path: Path):
    for name, content in (("unet/a.safetensors", b"aaaa"), ("vae/b.safetensors", b"bbaa"), ("x.txt", b"x")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    places = {
        "unet": Place("f", {}, (Stretch("unet/a.safetensors", 0, 2),)),
        "vae": Place("f", {}, (Stretch("vae/b.safetensors", 2, 2),)),
        "text_encoder": Place("f", {}, (Stretch("vae/b.safetensors", 0, 2),)),
    }
    whole, found = hashing.hashed(tmp_path, places)
    assert whole == hashing.sha256(tmp_path)
    assert found["unet"] == found["vae"] != found["text_encoder"]


def test_what_is_recorded_is_read_back_for_the_same_weights_alone():
    known = {"unet": Component("d", {"float16": 64, "float8_e4m3fn": 8}), "vae": Component(None, {"bfloat16": 2})}
    record = components.recorded(known, "w")
    assert components.read(record, "w") == known
    assert components.read(record, "other") is None
    assert components.read(None, "w") is None
    assert components.recorded(None, "w") is None
    assert known["unet"].numbers == 40
