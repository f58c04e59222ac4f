"""`farm up`: a farm on this machine, until Ctrl-C."""

from __future__ import annotations

import os
from contextlib import suppress

from cli import terminal
from cli.embedded import home
from cli.farm import Farm
from shared.errors import LauncherError
from shared.settings import Settings


def up(settings: Settings, *, as_json: bool) -> None:
    """Start a farm, say where its pages are, and keep it up until Ctrl-C. Raises LauncherError if one is up."""
    record = home.read_record(settings.home)
    if record is not None:
        raise LauncherError(f"A farm is up already in {settings.home} (process {record.pid}): {record.url}")
    with Farm(settings, terminal.no_progress if as_json else terminal.progress) as farm:
        with suppress(OSError, ValueError):  # nobody reads it: the farm serves nevertheless
            if as_json:
                terminal.answer_json({"url": farm.url, "home": str(settings.home), "pid": os.getpid()})
            else:
                terminal.out.print(f"\n  The farm is up: [bold cyan]{farm.url}[/]\n", highlight=False)
                terminal.progress(
                    "Its workers are starting and scan the models folder; jobs submitted now wait for them."
                )
                terminal.progress(
                    f"Its data lies in {settings.home}; `farm logs -f` shows what it does. Ctrl-C stops it."
                )
        farm.serve()
