"""A zip that is made while it is sent."""

from __future__ import annotations

import io
import zipfile

from api.http.zip_stream import zipped


def test_each_file_leaves_before_the_next_is_read():
    read = []

    def files():
        for number in range(3):
            read.append(number)
            yield f"{number}.png", bytes(1000)

    parts = zipped(files())
    for number in range(3):
        assert len(next(parts)) > 1000
        assert read == list(range(number + 1))


def test_same_files_make_the_same_bytes():
    files = [("a.png", b"1"), ("b.png", b"22")]
    first, second = (b"".join(zipped(files)) for _ in range(2))
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == files
