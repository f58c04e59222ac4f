"""`farm doctor`: look at the machine and the farm, and say what to do about what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from rich.markup import escape

from cli import farm_checks, machine_checks, terminal
from cli.findings import Finding, bad, fine, remark
from client import errors as client_errors
from shared.errors import FarmError, FieldError, Refused, SettingsError, explain
from shared.settings import PREFIX, Settings, load, replaced, unknown

Check = Callable[[Settings], Finding]

SETTINGS: Final = "settings"
CHECKS: Final[dict[str, Check]] = {
    "python": machine_checks.python,
    "torch": machine_checks.torch,
    "cards": machine_checks.cards,
    "portions": machine_checks.portions,
    "programs": machine_checks.programs,
    "namespace": machine_checks.namespace_,
    "home": machine_checks.home,
    "disk": machine_checks.disk,
    "database": farm_checks.database,
    "migrations": farm_checks.migrations,
    "redis": farm_checks.redis,
    "storage": farm_checks.storage,
    "api": farm_checks.api,
    "workers": farm_checks.workers,
    "chores": farm_checks.chores,
    "events": farm_checks.events,
    "models": farm_checks.models,
}
_MARKS: Final = {"fine": "[green]✓[/]", "note": "[yellow]•[/]", "bad": "[red]✗[/]"}


def examine(environ: Mapping[str, str], only: Sequence[str], *, as_json: bool) -> int:
    """Run the checks (all, or those named), print what they find, and return the exit status: 1 if anything is bad.

    Raises Refused for a check that does not exist.
    """
    _refuse_unknown(only)
    found = {}
    for name, finding in _findings(environ, only):
        found[name] = finding
        if not as_json:
            terminal.out.print(f"{_MARKS[finding.level]} {name:<10} {escape(finding.text)}")
            if finding.advice:
                terminal.out.print(f"  {'':<10} [bold]→[/] {escape(finding.advice)}")
    if as_json:
        terminal.answer_json({name: asdict(finding) for name, finding in found.items()})
    return int(any(finding.level == "bad" for finding in found.values()))


def check_settings(environ: Mapping[str, str]) -> Finding:
    """Are there FARM_* variables that are not settings, or were replaced? A misspelt name would go unnoticed."""
    strays, outdated = unknown(environ), replaced(environ)
    if not strays and not outdated:
        return fine(f"{sum(name.startswith(PREFIX) for name in environ)} FARM_* variables are set.")
    messages = [
        f"{name} is not a setting{f'; did you mean {near[0]}?' if near else '.'}" for name, near in strays.items()
    ]
    return remark(" ".join([*messages, *outdated]), "docs/configuration.md lists all settings.")


def _findings(environ: Mapping[str, str], only: Sequence[str]) -> Iterator[tuple[str, Finding]]:
    try:
        settings = load(environ)
    except SettingsError as error:
        yield SETTINGS, bad(str(error), "Correct the variable; the other checks need it.")
        return
    if not only or SETTINGS in only:
        yield SETTINGS, check_settings(environ)
    for name, check in CHECKS.items():
        if only and name not in only:
            continue
        try:
            yield name, check(settings)
        except (FarmError, client_errors.FarmError) as error:
            yield name, bad(explain(error), "")


def _refuse_unknown(only: Sequence[str]) -> None:
    names = [SETTINGS, *CHECKS]
    wrong = [name for name in only if name not in names]
    if wrong:
        fields = tuple(FieldError(name, "does not exist", ", ".join(names)) for name in wrong)
        raise Refused("There is no such check.", fields)
