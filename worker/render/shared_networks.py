"""The networks on a card by their content, so that the load of a model takes over those that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from torch import Tensor, nn

from shared.models.components import Components
from worker.engine.architectures.prediction import Prediction
from worker.engine.loading.sharing import Resident, Sharing, Tables

_NONE: Final[Mapping[float, Tables]] = {}


class SharedNetworks:
    """Knows each network as long as anything holds it. For the loader's thread; `there` also for others."""

    def __init__(self) -> None:
        self._networks: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()  # by the digest of their content
        self._buffers: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()
        self._tables: WeakKeyDictionary[nn.Module, Mapping[float, Tables]] = WeakKeyDictionary()
        self._predictions: WeakKeyDictionary[nn.Module, Prediction | None] = WeakKeyDictionary()

    def sharing(self, components: Components, sizes: dict[str, int], unknown: str) -> Sharing:
        """Return what the load of a model with these networks may take over.

        After it `sizes` holds the bytes of each, by a key that equal networks share, or one of `unknown`.
        """
        digests = {name: one.digest for name, one in components.items() if one.digest}
        residents = {name: self._resident(network) for name, network in self.there(components).items()}
        return Sharing(residents, partial(self._add, digests, sizes, unknown))

    def there(self, components: Components) -> dict[str, nn.Module]:
        """Return those of a model's networks that are there, by their names."""
        known = {name: self._networks.get(one.digest) for name, one in components.items() if one.digest}
        return {name: network for name, network in known.items() if network is not None}

    def _resident(self, network: nn.Module) -> Resident:
        tables, prediction = self._tables.get(network, _NONE), self._predictions.get(network)
        return Resident(network, self._buffers.get(network), tables, prediction)

    def _add(
        self, digests: Mapping[str, str], sizes: dict[str, int], unknown: str, loaded: Mapping[str, Resident]
    ) -> None:
        for name, resident in loaded.items():
            network, digest = resident.network, digests.get(name, "")
            other = self._networks.get(digest)
            is_second = other not in {None, network}  # in another number format, or not known enough to be shared
            if digest and (other is None or not is_second or not self._tables.get(other)):
                self._networks[digest] = network
            self._tables[network], self._predictions[network] = resident.tables, resident.prediction
            if resident.buffer is not None:
                self._buffers[network] = resident.buffer
            sizes[digest if digest and not is_second else f"{unknown} {name}"] = bytes_of(network)


def bytes_of(network: nn.Module) -> int:
    """Return the bytes of a network's weights."""
    return sum(weight.nbytes for weight in network.parameters())
