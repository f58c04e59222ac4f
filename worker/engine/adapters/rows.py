"""Low-rank adapters as rows' affairs: in one call of a network each row has its own adapters, and nothing is merged.

A row with several adapters takes part in as many products, one after the other in the order of its prompt, so what a
row gets depends neither on its company nor on the order of the rows. On a CPU each row has products of its own, whose
shapes are the same in any company, so that they round alike. On a card rows whose adapters have one rank share a
batched product, for which each row gathers its own matrices, and rows with one adapter share a plain one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engine.adapters.low_rank import Factors, LowRank
from worker.engine.architectures.conditioning import Applied
from worker.engine.devices import Device
from worker.engine.transfers import to_device

Change = Callable[[nn.Module, Tensor, Tensor], None]
"""Adds the share of adapters to the answer of a layer [rows, ..., out] or [rows, out, h, w], in place."""


class _Row(NamedTuple):
    """One row with one adapter, on a CPU."""

    place: int  # in the call
    down: Tensor  # [in, rank], or of a convolution that sees more than a point [rank, in, kh, kw]
    up: Tensor  # [rank, out]
    weight: float


def _add_by_row(rows: Sequence[_Row], layer: nn.Module, x: Tensor, answer: Tensor) -> None:
    wide = _points(layer, answer)
    given = _points(layer, x) if rows[0].down.dim() == 2 else None
    for place, down, up, weight in rows:
        narrow = torch.mm(given[place], down) if given else _convolved(layer, x[place : place + 1], down)
        wide[place].addmm_(narrow, up, alpha=weight)


def _points(layer: nn.Module, rows: Tensor) -> Sequence[Tensor]:
    """Return views [points, width] of each of `rows` [rows, ..., width] or [rows, width, h, w] of a layer.

    Pictures have their channels last in memory.
    """
    last = rows.permute(0, 2, 3, 1) if isinstance(layer, nn.Conv2d) else rows
    return last.view(len(last), -1, last.shape[-1]).unbind()


def _convolved(layer: nn.Module, picture: Tensor, down: Tensor) -> Tensor:
    """Return the product [points, rank] of one picture [1, in, h, w], as `layer` pads and wraps."""
    narrow: Tensor = layer._conv_forward(picture, down, None)  # type: ignore[operator]  # noqa: SLF001 - torch's own seam
    return narrow[0].permute(1, 2, 0).reshape(-1, len(down))


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows that share a product at one layer of a card, with one adapter of each."""

    rows: slice | Tensor  # their places in the call
    factors: Sequence[Factors]  # of each row
    weights: Tensor  # [rows, rank] or [rows, 1]

    def add(self, layer: nn.Module, x: Tensor, answer: Tensor) -> None:
        added = self._added(layer, x[self.rows])
        if isinstance(self.rows, slice):
            answer[self.rows].add_(added)
        else:
            answer.index_add_(0, self.rows, added)

    def _added(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what the adapters add to the answer of `layer` to their rows `x` [rows, ..., in] or [rows, in, h, w].

        Pictures that were taken from a call lie in memory as all of it would, because kernels depend on that.
        """
        if isinstance(layer, nn.Conv2d):
            narrow = self._convolved(layer, x.contiguous(memory_format=torch.channels_last))
            return self._raised(narrow.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
        return self._raised(self._product(x, [one.down for one in self.factors]))

    def _raised(self, narrow: Tensor) -> Tensor:
        """Return `narrow` [rows, ..., rank], weighed, at the layer's width [rows, ..., out]."""
        weights = self.weights.to(narrow.dtype).view(len(narrow), *(1 for _ in narrow.shape[2:]), -1)
        return self._product(narrow * weights, [one.up for one in self.factors])

    @staticmethod
    def _product(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """Return each row of `x` [rows, ..., in] times its own of `matrices` [out, in]."""
        if all(one is matrices[0] for one in matrices):
            return functional.linear(x, matrices[0])
        flat = x.reshape(len(x), -1, x.shape[-1])
        return torch.bmm(flat, torch.stack(list(matrices)).mT).view(*x.shape[:-1], -1)

    def _convolved(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """Return each row of `x` [rows, in, h, w] convolved with its own factors, as `layer` pads and wraps."""
        parts, first = [], 0
        for _, same in groupby(self.factors, key=id):
            behind = first + len(list(same))
            parts.append(layer._conv_forward(x[first:behind], self.factors[first].down, None))  # noqa: SLF001 - torch's own seam
            first = behind
        return torch.cat(parts)


@contextmanager
def adapted(network: nn.Module, name: str, rows: Sequence[Sequence[Applied]], device: Device) -> Iterator[None]:
    """Within the block, each row of a call of `network` has its own adapters; afterwards the network is as before.

    `name` is diffusers' name of the network. For one thread at a time: the engine's.
    """
    changes = _by_row(name, rows) if device.kind == "cpu" else _in_groups(name, rows, device)
    before = {}
    for path, change in changes.items():
        layer = network.get_submodule(path)
        before[path] = vars(layer).get("forward")
        vars(layer)["forward"] = partial(_changed, layer, layer.forward, change)
    try:
        yield
    finally:
        for path, forward in before.items():
            attributes = vars(network.get_submodule(path))
            attributes.pop("forward")  # makes the method of the class visible again
            if forward is not None:
                attributes["forward"] = forward


def _changed(layer: nn.Module, forward: Callable[[Tensor], Tensor], change: Change, x: Tensor) -> Tensor:
    """Return the answer of `layer` to `x` with what adapters add to it.

    In place, so that it lies in memory as without adapters: the next layer's kernel depends on that.
    """
    answer = forward(x)
    change(layer, x, answer)
    return answer


def _by_row(name: str, rows: Sequence[Sequence[Applied]]) -> dict[str, Change]:
    """Return the changes of layers, which add the adapters of each row in the order of its prompt."""
    found: dict[str, list[_Row]] = defaultdict(list)
    for place, row in enumerate(rows):
        for applied in row:
            if isinstance(applied.adapter, LowRank) and applied.weight:
                for path, (down, up) in applied.adapter.transposed(name, applied.rank).items():
                    found[path].append(_Row(place, down, up, applied.weight))
    return {path: partial(_add_by_row, of_layer) for path, of_layer in found.items()}


def _in_groups(name: str, rows: Sequence[Sequence[Applied]], device: Device) -> dict[str, Change]:
    return {path: partial(_add_groups, groups) for path, groups in _groups(name, rows, device).items()}


def _add_groups(groups: Sequence[_Group], layer: nn.Module, x: Tensor, answer: Tensor) -> None:
    for group in groups:
        group.add(layer, x, answer)


def _groups(name: str, rows: Sequence[Sequence[Applied]], device: Device) -> Mapping[str, Sequence[_Group]]:
    """Return the groups of each layer that an adapter changes, in the order in which they are added."""
    groups: dict[str, list[_Group]] = defaultdict(list)
    for turn in range(max(map(len, rows), default=0)):
        having: dict[LowRank, list[tuple[int, Applied]]] = defaultdict(list)
        for place, applied in ((place, row[turn]) for place, row in enumerate(rows) if len(row) > turn):
            if isinstance(applied.adapter, LowRank) and applied.weight:
                having[applied.adapter].append((place, applied))
        companies: dict[tuple[str, int], list[LowRank]] = defaultdict(list)
        for adapter in having:
            for path, factors in adapter.networks.get(name, {}).items():
                companies[path, factors.rank].append(adapter)
        members = cache(partial(_members, having, device))
        for (path, rank), adapters in companies.items():
            layers = {adapter: adapter.networks[name][path] for adapter in adapters}
            places, owners, weights = members(tuple(adapters), rank)
            groups[path].append(_Group(places, [layers[owner] for owner in owners], weights))
    return groups


def _members(
    having: Mapping[LowRank, Sequence[tuple[int, Applied]]], device: Device, adapters: tuple[LowRank, ...], rank: int
) -> tuple[slice | Tensor, Sequence[LowRank], Tensor]:
    """Return the rows that have one of `adapters`, rising, the adapter of each, and its weights."""
    found = {place: (adapter, applied) for adapter in adapters for place, applied in having[adapter]}
    places = tuple(sorted(found))
    owners, uses = zip(*(found[place] for place in places), strict=True)
    return _places(device, places), owners, _weights(device, uses, rank)


def _places(device: Device, places: tuple[int, ...]) -> slice | Tensor:
    """Return rising places of a call; neighbours, as the rows of one picture are, need no copy."""
    first, behind = places[0], places[-1] + 1
    return slice(first, behind) if behind - first == len(places) else to_device(torch.tensor(places), device)


def _weights(device: Device, uses: Sequence[Applied], rank: int) -> Tensor:
    """Return the weight of each rank of each row [rows, rank], or of all of its ranks [rows, 1]."""
    weights = torch.tensor([[one.weight] for one in uses])
    if any(one.rank is not None for one in uses):
        used = torch.tensor([[rank if one.rank is None else one.rank] for one in uses])
        weights = weights * (torch.arange(rank) < used)
    return to_device(weights, device)
