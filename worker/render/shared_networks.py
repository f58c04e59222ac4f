"""The networks on a card by their content, so that the load of a model takes over those that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from torch import Tensor, nn

from shared.models.components import Components
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.weights import network_bytes
from worker.engine.loading.sharing import Resident, Sharing, Tables

_NONE: Final[Mapping[float, Tables]] = {}


class SharedNetworks:
    """Knows each network as long as anything holds it. For the loader's thread; `counted_as` also for others."""

    def __init__(self) -> None:
        self._networks: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()  # by the digest of their content
        self._counted: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()  # by the key that each counts under
        self._keys: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        self._buffers: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()
        self._tables: WeakKeyDictionary[nn.Module, Mapping[float, Tables]] = WeakKeyDictionary()
        self._predictions: WeakKeyDictionary[nn.Module, Prediction | None] = WeakKeyDictionary()

    def sharing(
        self, components: Components, sizes: dict[str, int], unknown: str, check: Callable[[], object] = lambda: None
    ) -> Sharing:
        """Return what the load of a model with these networks may take over.

        After it `sizes` holds the bytes of each, by a key that belongs to one network, made of `unknown` if its digest
        is not known or taken. `check` raises if the file has other networks by now; then none of them is known here.
        """
        digests = {name: one.digest for name, one in components.items() if one.digest}
        known = {name: self._networks.get(digest) for name, digest in digests.items()}
        residents = {name: self._resident(network) for name, network in known.items() if network is not None}
        return Sharing(residents, partial(self._add, digests, sizes, unknown, check))

    def sizes(self, networks: Mapping[str, nn.Module], unknown: str) -> dict[str, int]:
        """Return the bytes of each of `networks` by the key that it counts under; `unknown` makes one for a new one."""
        keys = {name: self._key(network, "", f"{unknown} {name}") for name, network in networks.items()}
        return {keys[name]: network_bytes(network) for name, network in networks.items()}

    def counted_as(self, keys: Iterable[str]) -> list[nn.Module]:
        """Return the networks that count under these keys, or that a load of these digests takes over."""
        found = [self._networks.get(key) or self._counted.get(key) for key in keys]
        return [network for network in found if network is not None]

    def _resident(self, network: nn.Module) -> Resident:
        tables, prediction = self._tables.get(network, _NONE), self._predictions.get(network)
        return Resident(network, self._buffers.get(network), tables, prediction)

    def _add(
        self,
        digests: Mapping[str, str],
        sizes: dict[str, int],
        unknown: str,
        check: Callable[[], object],
        loaded: Mapping[str, Resident],
    ) -> None:
        check()
        for name, resident in loaded.items():
            network, digest = resident.network, digests.get(name, "")
            other = self._networks.get(digest)
            # Another one is in another number format, or not known enough to be shared.
            if digest and (other is None or other is network or not self._tables.get(other)):
                self._networks[digest] = network
            self._tables[network], self._predictions[network] = resident.tables, resident.prediction
            if resident.buffer is not None:
                self._buffers[network] = resident.buffer
            sizes[self._key(network, digest, f"{unknown} {name}")] = network_bytes(network)

    def _key(self, network: nn.Module, digest: str, otherwise: str) -> str:
        """Return what a network counts under as long as it lives: its digest, unless another one has that already."""
        if network not in self._keys:
            self._keys[network] = digest if digest and digest not in self._counted else otherwise
            self._counted[self._keys[network]] = network
        return self._keys[network]
