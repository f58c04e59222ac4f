"""The edge of the command line: an error is one sentence and an exit status, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from client import errors as client_errors
from shared.errors import FarmError

FAILED: Final = 1
_ROOT: Final = Path(__file__).parents[1]


def run(command: Callable[[], object], *, as_json: bool) -> int:
    """Run `command` and return the exit status. If stderr is closed, the status alone reports an error."""
    for stream in (sys.stdout, sys.stderr):
        _replace_what_cannot_be_shown(stream)
    try:
        status = _status(command)
        if sys.stdout is not None:  # it was closed
            sys.stdout.flush()  # here: an error of a full disk at the interpreter's end could not be reported
    except BrokenPipeError:  # the reader has gone, as `head` does
        status = FAILED
    except OSError as error:
        where = " to ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        words = f"{where}: {error.strerror}." if where else f"{error.strerror or error}."
        status = _complain(FarmError(words), as_json=as_json)
    except (FarmError, client_errors.FarmError) as error:
        status = _complain(error, as_json=as_json)
    except UnicodeEncodeError as error:  # bytes of an argument, or of a file's name
        status = _complain(FarmError(f"{ascii(error.object)[:100]} is not UTF-8 text."), as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the edge: an unexpected error is named with its place
        status = _complain(FarmError(_unexpected(error)), as_json=as_json)
    for stream in (sys.stdout, sys.stderr):
        _release(stream)
    return status


def _status(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED * bool(end.code)
    return 0


def _complain(error: FarmError | client_errors.FarmError, *, as_json: bool) -> int:
    from cli.terminal import complain  # noqa: PLC0415 - rich, which `farm --help` does without

    with suppress(OSError, ValueError):  # nobody reads stderr either
        complain(error, as_json=as_json)
    return FAILED


def _unexpected(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_ROOT) and ".venv" not in frame.filename]
    frame = (ours or frames)[-1]
    said = " ".join(str(error).split())[:300]
    return f"Internal error: {type(error).__name__}: {said} ({frame.filename}, line {frame.lineno})."


def _replace_what_cannot_be_shown(stream: IO[str] | None) -> None:
    """Have characters that the terminal's encoding lacks replaced; a closed or foreign stream stays as it is."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure:
        with suppress(OSError, ValueError):
            reconfigure(errors="replace")


def _release(stream: IO[str] | None) -> None:
    """Flush a stream, or discard the rest if nobody reads it: the interpreter would try again at its end."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
