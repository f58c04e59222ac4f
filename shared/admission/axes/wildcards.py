"""Wildcards: files with a text a line, which a prompt names as `__colour__`, or `__colours/warm__` in a subfolder.

Lines that begin with # are remarks. The farm's own folder comes first, then the examples that ship with it. No name
leads outside of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Self

from shared.admission.axes.notation import BadValues
from shared.errors import Unavailable
from shared.models import regular_files
from shared.suggest import nearest
from shared.wording import choices

SHIPPED: Final = Path(__file__).parents[2] / "wildcards"
NAME: Final = re.compile(r"[^\W_][\w -]{0,59}(?:/[^\W_][\w -]{0,59}){0,7}")
"""A name, with the subfolders around it."""

MOST_LINES: Final = 10_000
_MOST_BYTES: Final = 2**20
_SUFFIX: Final = ".txt"
_REMARK: Final = "#"
_MOST_NAMES: Final = 500  # that are looked at for one to suggest
_SHOWN: Final = 5


@dataclass(frozen=True)
class Wildcards:
    """The wildcards of a farm: the folders that they lie in, the first one first."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the wildcards in the farm's own folder, which may be missing, and the examples."""
        return cls((folder, SHIPPED))

    def lines(self, name: str) -> tuple[str, ...]:
        """Return the texts of a wildcard. Raises BadValues if there is none that can be used, Unavailable."""
        if not NAME.fullmatch(name):
            message = f"names the wildcard __{name}__, which is not the name of a file in the wildcards folder"
            raise BadValues(message, self._offered(name))
        path = next(filter(None, (_inside(folder, name) for folder in self.folders)), None)
        if path is None:
            raise BadValues(f"names the wildcard __{name}__, which is not there", self._offered(name))
        texts = (line.strip() for line in _text(path, name).splitlines())
        found = tuple(text for text in texts if text and not text.startswith(_REMARK))
        if not 1 <= len(found) <= MOST_LINES:
            message = f"names the wildcard __{name}__, whose file has {len(found):,} texts"
            raise BadValues(message, f"1 to {MOST_LINES:,} lines in the file {name}{_SUFFIX}")
        return found

    def names(self) -> Iterator[str]:
        """Yield the names of the wildcards that are there, each once."""
        seen: set[str] = set()
        for folder in self.folders:
            for path in sorted(islice(folder.rglob(f"*{_SUFFIX}"), _MOST_NAMES)):
                name = path.relative_to(folder).with_suffix("").as_posix()
                if name not in seen and NAME.fullmatch(name) and _inside(folder, name):
                    seen.add(name)
                    yield name

    def _offered(self, name: str) -> str:
        known = [*self.names()]
        shown = nearest(name, known) or known[:_SHOWN]
        such = choices([f"__{one}__" for one in shown]) if shown else f"colour{_SUFFIX} for __colour__"
        return f"a file in the wildcards folder ({self.folders[0].name}), such as {such}"


NO_WILDCARDS: Final = Wildcards((SHIPPED,))
"""Those of a farm without a folder of its own."""


def _inside(folder: Path, name: str) -> Path | None:
    """Return the file of that name in a folder; None if there is none, or a link leads out of the folder."""
    try:
        real = folder.resolve()
        path = (folder / f"{name}{_SUFFIX}").resolve()
        return path if path.is_relative_to(real) and path.exists() else None
    except (OSError, RuntimeError):  # a name that is too long, links in a circle
        return None


def _text(path: Path, name: str) -> str:
    """Return what a file holds. Raises BadValues, Unavailable."""
    try:
        with regular_files.opened(path) as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadValues(f"names the wildcard __{name}__, whose file is not UTF-8 text", "a text file") from None
    except OSError as error:
        raise Unavailable(f"The wildcard __{name}__ cannot be read: {error.strerror}.") from error
    if len(data) > _MOST_BYTES or "\x00" in text:
        message = f"names the wildcard __{name}__, whose file is too large, or no text"
        raise BadValues(message, f"a text file of at most {_MOST_BYTES // 2**20} MiB")
    return text
