"""`farm upscale`: enlarge picture files of this machine, over the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from cli import terminal
from cli.render import check_folder, file_bytes, follow, joined, save, submitted, uploaded
from client.client import Client
from shared.media.decode import PictureReader
from shared.params.codecs import NAME_AND_SHARE
from shared.params.upscale import MOST_PICTURES, MOST_TEXT
from shared.settings import Limits, Settings

_LIMITS = Limits(max_upload_mb=1024, max_upload_megapixels=80)  # of files on one's own disk
_ONESELF = "local"
_OF_FILES: Final = ("format", "file_quality")  # options beside those of enlarging


class _Source(NamedTuple):
    path: Path
    data: bytes
    text: str  # how the picture was made


def upscale(
    settings: Settings, files: Sequence[Path], options: Mapping[str, Any], folder: Path, *, as_json: bool
) -> int:
    """Submit, follow, save, report; return the exit status. Ctrl-C cancels the job that runs.

    Files that are too many for one job make several, one after the other. `options` are those of a job beside its
    pictures. A result is called like its file, with the job's number.
    """
    check_folder(folder)
    contents = [file_bytes(path) for path in files]
    sources = [_Source(*one) for one in zip(files, contents, _texts(files, contents), strict=True)]
    with joined(settings, terminal.no_progress if as_json else terminal.progress) as client:
        done = [_enlarged(client, part, options, folder, as_json=as_json) for part in _parts(sources)]
    return 0 if all(done) else 1


def faces_of(text: str | None) -> dict[str, object] | None:
    """Return the options for faces to restore that `NAME:STRENGTH` asks for; None: it is not asked."""
    if text is None:
        return None
    restorer, strength = NAME_AND_SHARE.read(text)
    return {"restorer": restorer, "strength": strength}


def _parts(sources: Sequence[_Source]) -> Iterator[list[_Source]]:
    """Yield the sources in order, as many at a time as one job may have."""
    part: list[_Source] = []
    length = 0
    for source in sources:
        if len(part) == MOST_PICTURES or (part and length + len(source.text) > MOST_TEXT):
            yield part
            part, length = [], 0
        part.append(source)
        length += len(source.text)
    yield part


def _enlarged(
    client: Client, sources: Sequence[_Source], options: Mapping[str, Any], folder: Path, *, as_json: bool
) -> bool:
    """Enlarge the pictures of one job, and return whether all succeeded."""
    pictures = [{"picture": uploaded(client, path, data), "parameters": text} for path, data, text in sources]
    form = {name: value for name, value in options.items() if name in _OF_FILES}
    wanted = {name: value for name, value in options.items() if name not in form} | {"pictures": pictures}
    job = follow(client, submitted(client, {"upscale": wanted, **form}, quiet=as_json)["id"], quiet=as_json)
    saved = [
        save(client, job, image, folder, f"{sources[image['index']].path.stem}-{job['id']:05d}")
        for image in job["images"]
        if image["state"] == "succeeded"
    ]
    page = client.page(job)
    if as_json:
        terminal.answer_json({"job": job, "page": page, "files": [str(file.absolute()) for file in saved]})
        return bool(job["state"] == "succeeded")
    for file in saved:
        terminal.answer(str(file))
    terminal.answer(f"page  {page}")
    for image in job["images"]:
        if image["state"] != "succeeded":
            name = sources[image["index"]].path
            terminal.warn(f"{name} {image['state']}: {image['reason'] or 'no reason given'}")
    return bool(job["state"] == "succeeded")


def _texts(files: Sequence[Path], contents: Sequence[bytes]) -> list[str]:
    """Return the text in each file that says how its picture was made. Raises Refused that names the file."""
    picture_reader = PictureReader(_LIMITS)
    try:
        return [picture_reader.text(data, str(path), _ONESELF) for path, data in zip(files, contents, strict=True)]
    finally:
        picture_reader.close()
