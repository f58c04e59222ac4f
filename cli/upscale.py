"""`farm upscale`: enlarge picture files of this machine, over the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli import terminal
from cli.render import check_folder, file_bytes, follow, joined, save, submitted, uploaded
from shared.media.decode import PictureReader
from shared.settings import Limits, Settings

_LIMITS = Limits(max_upload_mb=1024, max_upload_megapixels=80)  # of files on one's own disk
_ONESELF = "local"


def upscale(
    settings: Settings, files: Sequence[Path], options: Mapping[str, Any], folder: Path, *, as_json: bool
) -> int:
    """Submit, follow, save, report; return the exit status. Ctrl-C cancels the job.

    `options` are those of the job beside its pictures. A result is called like its file, with the job's number.
    """
    check_folder(folder)
    contents = [file_bytes(path) for path in files]
    texts = _texts(files, contents)
    with joined(settings, terminal.no_progress if as_json else terminal.progress) as client:
        pictures = [
            {"picture": uploaded(client, path, data), "parameters": text}
            for path, data, text in zip(files, contents, texts, strict=True)
        ]
        form = {"format": options["format"]} if "format" in options else {}
        wanted = {name: value for name, value in options.items() if name != "format"} | {"pictures": pictures}
        job = follow(client, submitted(client, {"upscale": wanted, **form}, quiet=as_json)["id"], quiet=as_json)
        saved = [
            save(client, job, image, folder, f"{files[image['index']].stem}-{job['id']:05d}")
            for image in job["images"]
            if image["state"] == "succeeded"
        ]
        page = client.page(job)
    if as_json:
        terminal.answer_json({"job": job, "page": page, "files": [str(file.absolute()) for file in saved]})
        return 0 if job["state"] == "succeeded" else 1
    for file in saved:
        terminal.answer(str(file))
    terminal.answer(f"page  {page}")
    for image in job["images"]:
        if image["state"] != "succeeded":
            name = files[image["index"]]
            terminal.warn(f"{name} {image['state']}: {image['reason'] or 'no reason given'}")
    return 0 if job["state"] == "succeeded" else 1


def _texts(files: Sequence[Path], contents: Sequence[bytes]) -> list[str]:
    """Return the text in each file that says how its picture was made. Raises Refused that names the file."""
    picture_reader = PictureReader(_LIMITS)
    try:
        return [picture_reader.text(data, str(path), _ONESELF) for path, data in zip(files, contents, strict=True)]
    finally:
        picture_reader.close()
