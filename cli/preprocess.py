"""`farm preprocess`: what a ControlNet would be given of a picture file, over the API."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cli import terminal
from cli.connect import connect
from cli.render import file_bytes
from client.errors import Refused
from shared.errors import FarmError
from shared.settings import Settings

_UNIT: Final = "controlnet.0."


def preprocess(settings: Settings, file: Path, job: Mapping[str, Any], out: Path | None, *, as_json: bool) -> None:
    """Write what the one ControlNet of `job` would be given to `out`, or to a file called by picture and preprocessor.

    The farm stores nothing. Raises FarmError.
    """
    (unit,) = job["controlnet"]
    address = f"data:;base64,{base64.b64encode(file_bytes(file)).decode()}"
    body = {**job, "controlnet": [{"model": "", "picture": address, **unit}]}
    target = out or Path(f"{file.stem}-{unit['preprocessor']}.png")
    with connect(settings) as client:
        try:
            data = client.control_preview(body)
        except Refused as refused:
            problems = tuple(replace(one, field=_named(one.field, file)) for one in refused.fields)
            raise type(refused)(f"{file} cannot be prepared.", problems) from None
    try:
        target.write_bytes(data)
    except OSError as error:
        raise FarmError(f"{target} cannot be written ({error.strerror}); choose another file with --out.") from error
    if as_json:
        terminal.answer_json({"file": str(target.absolute())})
    else:
        terminal.answer(str(target))


def _named(field: str, file: Path) -> str:
    """Return what a person typed for a field of the API: the file, or an option."""
    name = field.removeprefix(_UNIT)
    return str(file) if name == "picture" else f"--{name.replace('_', '-')}"
