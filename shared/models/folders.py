"""The folders that model files lie in, as FARM_MODELS lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self


class ModelPath(NamedTuple):
    """Where a model file lies, and what the catalogue calls it."""

    path: Path
    name: str
    place: str  # the path in its folder behind that folder's own name: folders such as `loras` say what lies in them


@dataclass(frozen=True)
class ModelFolders:
    """One folder of model files or several, in the order in which a file is looked for, as a shell looks for programs.

    The catalogue calls a file by its path in its folder. If an earlier folder has a file there that differs in its
    ending at most, it is called by its whole path, so that neither hides the other.
    """

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, listed: str) -> Self:
        """Return the folders of a list such as `/srv/models:~/ComfyUI/models`. Raises ValueError if it names none."""
        named = [Path(one.strip()).expanduser().absolute() for one in listed.split(os.pathsep) if one.strip()]
        if not named:
            raise ValueError(f"must name a folder, or several with {os.pathsep} between them")
        return cls(tuple(dict.fromkeys(named)))

    @property
    def first(self) -> Path:
        """The folder that people are told to put files into."""
        return self.paths[0]

    def places(self, name: str) -> Iterator[Path]:
        """Yield each path at which a file may lie that the catalogue calls `name`: never one outside the folders."""
        paths = dict.fromkeys(folder / name for folder in self.paths)  # one alone if the name is a whole path
        return (path for path in paths if self.place(path) is not None)

    def __truediv__(self, name: str) -> Path:
        """Return where the file lies that the catalogue calls `name`: in the first folder that has it, or should."""
        return next((path for path in self.places(name) if path.exists()), self.first / name)

    def place(self, path: Path) -> str | None:
        """Return the place of a file, as a `ModelPath` has it; None if it lies in none of the folders."""
        inside = (folder for folder in self.paths if path.absolute().is_relative_to(folder))
        return next((path.absolute().relative_to(folder.parent).as_posix() for folder in inside), None)

    def __str__(self) -> str:
        return os.pathsep.join(map(str, self.paths))
