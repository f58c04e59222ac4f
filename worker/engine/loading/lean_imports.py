"""diffusers and transformers without two things that they import and the farm has no use for.

scipy, for schedulers and for losses of training, and PyTorch's compiler, for marks on functions: a third of the
processor time that a reader of model files takes to start. Code that needs either imports it as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_COMPILER: Final = "torch._dynamo"
_MARKS: Final = ("allow_in_graph", "assume_constant_result", "disable")
_TRACING: Final = f"{_COMPILER}._trace_wrapped_higher_order_op"


@contextmanager
def lean() -> Iterator[None]:
    """Have both do without the two in what is imported within the block; of scipy afterwards, too."""
    with _without_compiler():
        vars(import_module("diffusers.utils.import_utils"))["_scipy_available"] = False  # it asks once, at its import
        vars(import_module("transformers.utils"))["is_scipy_available"] = lambda: False
        yield


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Have imports within the block find a stand-in for PyTorch's compiler, unless that has been imported."""
    if _COMPILER in sys.modules:
        yield
        return
    stand_ins = {name: ModuleType(name) for name in (_COMPILER, _TRACING)}
    vars(stand_ins[_COMPILER]).update({"__path__": []} | dict.fromkeys(_MARKS, _as_it_is))
    vars(stand_ins[_TRACING]).update(TransformGetItemToIndex=_transform)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _as_it_is(marked: object = None, *_: object, **__: object) -> object:
    """Return what is to be marked; or, for a mark with options, what returns it."""
    return _as_it_is if marked is None else marked


def _transform() -> Any:  # noqa: ANN401 - a class of the compiler, which is imported for who uses it after all
    return import_module(_TRACING).TransformGetItemToIndex()
