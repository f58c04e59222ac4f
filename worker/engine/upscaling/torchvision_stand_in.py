"""What spandrel imports from torchvision, for spandrel's modules alone and only where torchvision is not installed.

Torchvision comes in builds that fit one build of PyTorch. Beside another one it breaks the import of transformers, so
the farm does without it. Nothing is put into `sys.modules`: another library, in another thread too, finds no
torchvision.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from enum import Enum
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final, NoReturn

import torch
from torch import Tensor

_LIBRARY: Final = "spandrel"
_MISSING: Final = "torchvision"
_FUNCTIONAL: Final = "torchvision.transforms.functional"


class InterpolationMode(Enum):
    """The interpolation that LaMa asks for."""

    BILINEAR = "bilinear"


def rotate(*_: object, **__: object) -> NoReturn:
    """Raise NotImplementedError: only LaMa rotates, which fills in pictures and is not loaded."""
    raise NotImplementedError("torchvision, which rotates pictures, is not installed")


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return `tensor` [..., channels, h, w] less the mean of each channel, divided by its deviation."""
    means, deviations = (
        torch.tensor(values, dtype=tensor.dtype, device=tensor.device)[:, None, None] for values in (mean, std)
    )
    return (tensor - means) / deviations


def install() -> None:
    """Have spandrel's modules, which are still to be imported, find these names if there is no torchvision."""
    is_installed = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if not is_installed and find_spec(_MISSING) is None:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds spandrel's modules, and has them executed with an import statement of their own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _LIBRARY:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


def _import(name: str, *arguments: Any, **named: Any) -> ModuleType:  # noqa: ANN401 - those of any import statement
    if name == _FUNCTIONAL:
        return sys.modules[__name__]
    return builtins.__import__(name, *arguments, **named)
