"""The networks over pixels that spandrel knows: recognised by the names of their weights, and built strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shared.errors import ModelFileError
from worker.engine.cuda_errors import is_fatal, is_out_of_memory
from worker.engine.upscaling import torchvision_stand_in

torchvision_stand_in.install()

from spandrel import MAIN_REGISTRY, Architecture, ImageModelDescriptor, canonicalize_state_dict  # noqa: E402

MOST_SCALE: Final = 16
_MOST_LAYERS: Final = 1024  # of one list in a network, and of its parts; the deepest network has 64
_NUMBER: Final = re.compile(r"\d+")
_ON_META: Final = frozenset({torch.empty, torch.rand, torch.randn})
_FILLS_IN: Final = "LaMa"
_CODEFORMER: Final = "CodeFormer"
_RESTORERS: Final = frozenset({"GFPGAN", "RestoreFormer", _CODEFORMER})
_BESIDE: Final = "spandrel_extra_arches"
"""The package with CodeFormer, which the farm does not bring: its licence forbids commercial use."""
_SIGNED: Final[Mapping[str, Callable[[nn.Module, Tensor, float], Tensor]]] = {
    "GFPGAN": lambda network, pixels, _: network(pixels, randomize_noise=False)[0],  # with the noise of its file
    _CODEFORMER: lambda network, pixels, fidelity: network(pixels, weight=fidelity)[0],
}
"""By architecture: how a network is called that takes and gives values in -1..1, which spandrel leaves to its users."""
_LONGEST: Final = 200  # of a library's message that is repeated


def _add_codeformer() -> None:
    """Have spandrel know CodeFormer, if the person installed the package that has it."""
    if find_spec(_BESIDE) is None:
        return
    from spandrel_extra_arches import EXTRA_REGISTRY  # noqa: PLC0415 - only where it is installed

    own = [one for one in EXTRA_REGISTRY if one.architecture.id == _CODEFORMER]
    MAIN_REGISTRY.add(*own, ignore_duplicates=True)


_add_codeformer()


class PixelNetwork(nn.Module):
    """An upscaler or a face restorer: pixels [rows, 3, h, w] in 0..1 -> [rows, 3, scale * h, scale * w], float32."""

    def __init__(self, descriptor: ImageModelDescriptor[nn.Module]) -> None:
        super().__init__()
        self.network = descriptor.model.eval().requires_grad_(requires_grad=False)
        self._descriptor = descriptor  # pads pictures that the network cannot take as they are
        self.scale: int = descriptor.scale
        self.algorithm: str = descriptor.architecture.name
        self.restores_faces = descriptor.purpose == "FaceSR"
        self._signed = _SIGNED.get(descriptor.architecture.id)

    @property
    def half_formats(self) -> tuple[torch.dtype, ...]:
        """The number formats of 16 bits that it can compute in, the more precise one first."""
        known = {torch.float16: self._descriptor.supports_half, torch.bfloat16: self._descriptor.supports_bfloat16}
        return tuple(dtype for dtype, is_known in known.items() if is_known)

    @property
    def bytes(self) -> int:
        """The memory that its weights and tables take."""
        return sum(one.nbytes for one in (*self.parameters(), *self.buffers()))

    def forward(self, pixels: Tensor, fidelity: float = 0.5) -> Tensor:
        """`fidelity` is CodeFormer's: 0 paints the best face, 1 stays close to the picture."""
        pixels = pixels.to(next(self.network.parameters()).dtype)
        if self._signed:
            return ((self._signed(self.network, pixels * 2 - 1, fidelity).float() + 1) / 2).clamp(0, 1)
        enlarged: Tensor = self._descriptor(pixels)
        return enlarged.float()


def is_restorer(weights: Mapping[str, Tensor]) -> bool:
    """Return whether the architecture that has weights of these names restores faces."""
    architecture = recognised(weights)
    return architecture is not None and architecture.id in _RESTORERS


def recognised(weights: Mapping[str, Tensor]) -> Architecture[nn.Module] | None:
    """Return the architecture that has weights of these names; None if there is none."""
    named = canonicalize_state_dict(dict(weights))
    order = MAIN_REGISTRY.architectures("detection")
    return next((one.architecture for one in order if one.detect(named)), None)


def built(weights: Mapping[str, Tensor], *, is_outline: bool = False) -> PixelNetwork:
    """Return the network with these weights, on the CPU. Of an outline most weights lie nowhere: it only shows whether
    names and shapes fit, in little memory.

    Raises ModelFileError unless every weight is there, none is left over and each has its shape.
    """
    architecture = recognised(weights)
    if architecture is None and "idx_pred_layer.1.weight" in weights:
        raise ModelFileError(
            f"is a {_CODEFORMER} face restorer, whose licence forbids commercial use. So the farm does not bring "
            f"its architecture. If the licence suits you, install the package beside the worker (pip install --no-deps "
            f"{_BESIDE}) and start the worker again"
        )
    if architecture is None:
        raise ModelFileError("is not an upscaler or a face restorer of a known architecture")
    if architecture.id == _FILLS_IN:
        raise ModelFileError(
            f"is a {architecture.name} network, which fills in pictures: upscalers and face restorers are read"
        )
    _require_moderate(weights)
    with _fitting(architecture.name), _Outline() if is_outline else torch.device("cpu"):
        descriptor = architecture.load(canonicalize_state_dict(dict(weights)))
    channels = descriptor.input_channels, descriptor.output_channels
    if channels != (3, 3):
        raise ModelFileError(f"takes {channels[0]} and gives {channels[1]} colour channels: both should be 3")
    if not 1 <= descriptor.scale <= MOST_SCALE:
        raise ModelFileError(f"enlarges {descriptor.scale} times: networks up to {MOST_SCALE} times are read")
    return PixelNetwork(descriptor)


class _Outline(TorchFunctionMode):
    """Within its block, weights of new networks lie on the meta device; tables that they compute have values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = dict(kwargs or {})
        if func in _ON_META and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _require_moderate(weights: Mapping[str, Tensor]) -> None:
    """Raise ModelFileError for a name with a high number: a network has as many layers as the highest one says."""
    for name in weights:
        if any(len(number) > 4 or int(number) >= _MOST_LAYERS for number in _NUMBER.findall(name)):
            raise ModelFileError(f"numbers a layer {max(_NUMBER.findall(name), key=len)[:12]}: no network is so deep")


@contextmanager
def _fitting(label: str) -> Iterator[None]:
    """Within the block, any error of the library says that the weights do not fit the architecture."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or is_fatal(error) or is_out_of_memory(error):
            raise
        words = " ".join(str(error).split())[:_LONGEST]
        raise ModelFileError(
            f"looks like {label}, but its weights do not fit ({type(error).__name__}: {words})"
        ) from None
