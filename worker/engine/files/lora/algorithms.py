"""The algorithms of the LoRA family: which parameters a layer of each has, and which sizes of them fit together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import torch
from torch import Tensor

from shared.errors import ModelFileError

MOST_RANK: Final = 1280
"""No layer of these networks has a higher rank: their widest matrices are 1280 across."""
RANK_BY_ROWS: Final = 128
"""Layers of a higher rank are merged: by rows 128 ranks cost a third of a row, and 256 a half (decision 34)."""


class Parameters(dict[str, Tensor]):
    """The parameters of one layer; one that is missing is named."""

    def __missing__(self, name: str) -> Tensor:
        raise ModelFileError(f"has no {name}")


class Sizes(NamedTuple):
    """What the parameters of a layer say about it. None: nothing."""

    rank: int | None = None
    outputs: int | None = None
    inputs: int | None = None  # of a convolution perhaps times the points of its kernel


class Algorithm(NamedTuple):
    """One algorithm: `label` for people, the parameters of which any tells it, those that may be beside them."""

    label: str
    telltales: frozenset[str]
    optional: frozenset[str]
    sizes: Callable[[Parameters], Sizes]


@dataclass(frozen=True, eq=False)
class Layer:
    """What a file holds for one layer. Raises ModelFileError if that fits no algorithm, or not together."""

    name: str  # as the file has it
    parameters: Parameters
    default_alpha: float | None = None  # stated for the whole file
    is_rank_stabilised: bool = False  # alpha is divided by the root of the rank (Kalajdzievski 2023, arXiv:2312.03732)
    algorithm: Algorithm = field(init=False)
    sizes: Sizes = field(init=False)
    scale: float = field(init=False)  # of the product: alpha by rank

    def __post_init__(self) -> None:
        """Find the algorithm, and check the parameters."""
        try:
            object.__setattr__(self, "algorithm", _algorithm(self.parameters))
            object.__setattr__(self, "sizes", self.algorithm.sizes(self.parameters))
            object.__setattr__(self, "scale", self._scale())
            _require(not self.sizes.rank or self.sizes.rank <= MOST_RANK, f"is of rank {self.sizes.rank}: {_BOUND}")
        except ModelFileError as error:
            raise ModelFileError(f"its layer {shortened(self.name)} {error}") from error

    @property
    def label(self) -> str:
        """What people call the algorithm."""
        is_butterfly = "oft_blocks" in self.parameters and self.parameters["oft_blocks"].dim() == 4
        is_decomposed = self.algorithm is LORA and not DECOMPOSED.isdisjoint(self.parameters)
        return "BOFT" if is_butterfly else "DoRA" if is_decomposed else self.algorithm.label

    @property
    def is_low_rank(self) -> bool:
        """Whether it adds the product of two factors to a layer, and does nothing else."""
        return self.algorithm is LORA and self.parameters.keys() <= {"down", "up", "alpha"}

    def on(self, device: torch.device) -> Layer:
        """Return the same in float32 on a device; single numbers stay on the host."""
        moved = {
            name: one if name in _NUMBERS else one.to(device, torch.float32) for name, one in self.parameters.items()
        }
        return replace(self, parameters=Parameters(moved))

    def _scale(self) -> float:
        stored = self.parameters.get("alpha")
        alpha = self.default_alpha if stored is None else float(stored)
        _require(alpha is None or math.isfinite(alpha), f"has an alpha of {alpha}, not a finite number")
        rank = self.sizes.rank
        if not alpha or not rank:  # trainers mean no scaling by an alpha of 0
            return 1.0
        return alpha / (math.sqrt(rank) if stored is None and self.is_rank_stabilised else rank)


def shortened(name: str) -> str:
    """Return a name of a file for an error message."""
    cut = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in cut)


_LONGEST_NAME: Final = 120
_BOUND: Final = f"at most {MOST_RANK} is read, the highest that a layer of Stable Diffusion has"


def _algorithm(parameters: Mapping[str, Tensor]) -> Algorithm:
    found = next((one for one in ALGORITHMS if not one.telltales.isdisjoint(parameters)), None)
    if found is None:
        raise ModelFileError(f"has {_listed(parameters)} alone, which changes nothing")
    if surplus := parameters.keys() - found.telltales - found.optional:
        raise ModelFileError(f"is {found.label}, and has {_listed(surplus)} too")
    for name, one in parameters.items():
        if name in _NUMBERS:
            is_right = one.numel() == 1 and not one.is_complex()
            _require(is_right, f"has a {name} of {one.numel()} numbers; 1 is right")
        else:
            _require(one.is_floating_point(), f"has a {name} of {str(one.dtype).removeprefix('torch.')}, not of floats")
            _require(1 <= one.dim() <= 4 and one.numel() > 0, f"has a {name} of the shape {tuple(one.shape)}")
    return found


def _require(is_right: bool, what: str) -> None:  # noqa: FBT001 - the condition itself
    if not is_right:
        raise ModelFileError(what)


def _listed(names: Mapping[str, Tensor] | set[str]) -> str:
    return " and ".join(sorted(names))


def shapes(parameters: Mapping[str, Tensor]) -> str:
    """Return the names and shapes of parameters for an error message."""
    return ", ".join(f"{name} {tuple(one.shape)}" for name, one in parameters.items() if name not in _NUMBERS)


def _product(parameters: Parameters, *names: str, is_turned: bool = False) -> Sizes:
    """Return the sizes of the product of the two matrices of these names, both turned if `is_turned`."""
    first, second = (parameters[name] for name in names)
    given = shapes({name: parameters[name] for name in names})
    _require(first.dim() > 1 < second.dim(), f"has factors that are not matrices: {given}")
    outputs, rank = (first.shape[1], len(first)) if is_turned else (len(first), first.shape[1:].numel())
    _require(len(second) == rank, f"has factors that do not multiply: {given}")
    return Sizes(rank, outputs, second.shape[1:].numel())


def _lora(parameters: Parameters) -> Sizes:
    sizes = _product(parameters, "up", "down")
    if "mid" in parameters:
        _require_core(parameters["mid"], sizes.rank, "mid")
        _require(sizes.inputs == parameters["down"].shape[1], f"has a mid, and a down of more: {shapes(parameters)}")
    _require_decomposed(parameters, sizes)
    return sizes._replace(inputs=parameters["down"].shape[1])


def _loha(parameters: Parameters) -> Sizes:
    is_core = "hada_t1" in parameters or "hada_t2" in parameters
    first, second = (_product(parameters, f"hada_w{n}_a", f"hada_w{n}_b", is_turned=is_core) for n in (1, 2))
    if is_core:
        _require_core(parameters["hada_t1"], first.rank, "hada_t1")
        _require_core(parameters["hada_t2"], second.rank, "hada_t2")
    _require(first == second, f"has two products of unequal sizes: {shapes(parameters)}")
    _require_decomposed(parameters, first)
    return first


def _lokr(parameters: Parameters) -> Sizes:
    first, second = _kronecker_factor(parameters, "lokr_w1"), _kronecker_factor(parameters, "lokr_w2")
    outputs, inputs = ((one or 0) * (other or 0) for one, other in zip(first[1:], second[1:], strict=True))
    sizes = Sizes(second.rank or first.rank, outputs, inputs)
    _require_decomposed(parameters, sizes)
    return sizes


def _kronecker_factor(parameters: Parameters, name: str) -> Sizes:
    if name in parameters:
        _require(f"{name}_a" not in parameters, f"has a {name} both whole and as a product")
        whole = parameters[name]
        _require(whole.dim() > 1, f"has a {name} of the shape {tuple(whole.shape)}")
        return Sizes(None, len(whole), whole.shape[1])
    core = parameters.get("lokr_t2") if name == "lokr_w2" else None
    sizes = _product(parameters, f"{name}_a", f"{name}_b", is_turned=core is not None)
    if core is not None:
        _require_core(core, sizes.rank, "lokr_t2")
    return sizes


def _require_core(core: Tensor, rank: int | None, name: str) -> None:
    is_right = core.dim() == 4 and core.shape[:2] == (rank, rank)
    _require(is_right, f"has a {name} of the shape {tuple(core.shape)}; [{rank}, {rank}, height, width] is right")


def _require_decomposed(parameters: Parameters, sizes: Sizes) -> None:
    """Raise ModelFileError unless the lengths of DoRA are those of the rows or of the columns."""
    for name in DECOMPOSED & parameters.keys():
        count = parameters[name].numel()
        is_right = count == sizes.outputs or (name == "dora_scale" and max(parameters[name].shape) == count)
        _require(is_right, f"has a {name} of {count} numbers for {sizes.outputs} outputs: {shapes(parameters)}")


def _oft(parameters: Parameters) -> Sizes:
    _require(len({"oft_blocks", "oft_diag"} & parameters.keys()) == 1, "has both oft_blocks and oft_diag")
    name = "oft_blocks" if "oft_blocks" in parameters else "oft_diag"
    blocks = parameters[name]
    is_right = 3 <= blocks.dim() <= (4 if name == "oft_blocks" else 3) and blocks.shape[-1] == blocks.shape[-2]
    _require(is_right, f"has {name} of the shape {tuple(blocks.shape)}; [blocks, size, size] is right")
    _require(blocks.shape[-1] <= MOST_RANK, f"has blocks of {blocks.shape[-1]}; at most {MOST_RANK} is read")
    outputs = blocks.shape[-3] * blocks.shape[-1]
    if "rescale" in parameters:
        count = parameters["rescale"].numel()
        _require(count == outputs, f"has a rescale of {count} numbers for {outputs} outputs")
    return Sizes(outputs=outputs)


def _glora(parameters: Parameters) -> Sizes:
    is_old = glora_is_old(parameters)
    after, before = ("b2", "b1") if is_old else ("b1", "b2")
    sizes = _product(parameters, after, before)
    inner = _product(parameters, *(("a2", "a1") if is_old else ("a1", "a2")))
    inputs = parameters[before].shape[1]
    fits = inner.rank == sizes.rank and inner.outputs == inner.inputs == inputs
    _require(fits, f"has factors that do not multiply: {shapes(parameters)}")
    if "bm" in parameters:
        _require_core(parameters["bm"], sizes.rank, "bm")
    return sizes._replace(inputs=inputs)


def glora_is_old(parameters: Parameters) -> bool:
    """Return whether GLoRA's factors are in the order of LyCORIS before version 2.1, the narrowing one first."""
    a1, a2, b1, b2 = (parameters[name].shape for name in ("a1", "a2", "b1", "b2"))
    may_be_new = a1[1:2] == a2[:1] == b1[1:2] == b2[:1]
    may_be_old = a1[:1] == a2[1:2] == b1[:1] == b2[1:2]
    return may_be_old and (not may_be_new or a1[0] < a1[1])


def _ia3(parameters: Parameters) -> Sizes:
    count = parameters["weight"].numel()
    return Sizes(inputs=count) if parameters["on_input"].any() else Sizes(outputs=count)


def _difference(parameters: Parameters) -> Sizes:
    whole = parameters.get("diff")
    return Sizes() if whole is None else Sizes(None, len(whole), whole.shape[1] if whole.dim() > 1 else None)


def _norm(parameters: Parameters) -> Sizes:
    return Sizes(outputs=parameters["w_norm" if "w_norm" in parameters else "b_norm"].numel())


DECOMPOSED: Final = frozenset({"dora_scale", "magnitude"})
"""The lengths of rows, which layers of DoRA have (Liu et al. 2024, arXiv:2402.09353)."""
_NUMBERS: Final = frozenset({"alpha", "on_input"})
_OFTEN: Final = frozenset({"alpha", "diff_b"})
LORA: Final = Algorithm("LoRA", frozenset({"down", "up"}), frozenset({"mid"}) | DECOMPOSED | _OFTEN, _lora)
LOHA: Final = Algorithm(
    "LoHa", frozenset({f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}),
    DECOMPOSED | _OFTEN, _loha,
)  # fmt: skip
LOKR: Final = Algorithm(
    "LoKr", frozenset({f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}),
    DECOMPOSED | _OFTEN, _lokr,
)  # fmt: skip
OFT: Final = Algorithm("OFT", frozenset({"oft_blocks", "oft_diag"}), frozenset({"rescale"}) | _OFTEN, _oft)
GLORA: Final = Algorithm("GLoRA", frozenset({"a1", "a2", "b1", "b2"}), frozenset({"bm"}) | _OFTEN, _glora)
IA3: Final = Algorithm("IA3", frozenset({"on_input"}), frozenset({"weight", "alpha"}), _ia3)
NORM: Final = Algorithm("norms", frozenset({"w_norm", "b_norm"}), frozenset({"alpha"}), _norm)
DIFFERENCE: Final = Algorithm("full difference", frozenset({"diff", "diff_b"}), frozenset({"alpha"}), _difference)
ALGORITHMS: Final = (LORA, LOHA, LOKR, OFT, GLORA, IA3, NORM, DIFFERENCE)
