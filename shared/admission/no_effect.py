"""What a job sets although it changes no picture of its checkpoints, because of their architectures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from shared.models.architectures import ARCHITECTURES, label
from shared.params import paths
from shared.params.render import RenderParams
from shared.params.table import Parameter, parameters


def notes(params: RenderParams, architectures: Collection[str | None]) -> Iterator[str]:
    """Yield sentences for the job's owner; none if an architecture is known to a newer version of the farm only."""
    known = [one for one in ARCHITECTURES if one in architectures]
    if len(known) < len(architectures):
        return
    families = _joined([label(one) for one in known])
    for flag, names in _idle(params, known).items():
        first, *others = [parameters()[name].label for name in names]
        what = _joined([first, *(f"{other[0].lower()}{other[1:]}" for other in others)])
        remedy = f" unless {parameters()[flag].label} ({flag}) is set" if flag else ""
        yield f"{what} {'have' if others else 'has'} no effect on {families}{remedy}."


def _idle(params: RenderParams, architectures: Collection[str]) -> dict[str, list[str]]:
    """Return the names of what is set without effect, by the flag that would give it one; no flag: nothing would.

    A group stands for its fields.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for name, parameter in parameters().items():
        if _is_set(params, parameter) and (flags := parameter.fact.architectures):
            needed = [flags[one] for one in architectures if one in flags]
            if all(flag and not paths.get(params, flag) for flag in needed):
                found[needed[0] if needed else ""][name.partition(".")[0]] = None
    return {flag: [*names] for flag, names in found.items()}


def _is_set(params: RenderParams, parameter: Parameter) -> bool:
    value = paths.get(params, parameter.name)
    return value is not None and value != parameter.default


def _joined(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
