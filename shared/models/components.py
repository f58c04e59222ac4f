"""The networks of a model file as the catalogue records them, so that equal networks of several files can be found.

Two networks are equal if their digests are: over the network's form (its class, its configuration, and the name, stored
number format and shape of each of its weights as they are converted) and over the bytes of these weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

_BITS: Final = re.compile(r"\d+")


class Stretch(NamedTuple):
    """The bytes of one weight in a file. If `columns` are given they are a matrix that is converted by turning it."""

    file: str  # relative to the model's folder; "" for a single file
    start: int
    length: int
    columns: int = 0
    item_bytes: int = 0

    @property
    def end(self) -> int:
        return self.start + self.length


class Place(NamedTuple):
    """One network of a model file, and where its weights lie in it."""

    form: str  # digest of everything but the bytes
    stored: Mapping[str, int]  # number format -> bytes
    stretches: tuple[Stretch, ...] | None  # in the order of the weights' names; None: in a form that is not looked into

    @classmethod
    def of(cls, answer: Sequence[Any]) -> Self:
        """Return the place that an answer in JSON holds."""
        form, stored, stretches = answer
        return cls(form, stored, None if stretches is None else tuple(Stretch(*one) for one in stretches))


class Component(NamedTuple):
    """One network of a model file."""

    digest: str | None  # equal for equal networks; None: not known
    stored: Mapping[str, int]  # number format -> bytes

    @property
    def numbers(self) -> int:
        """How many numbers its weights are."""
        return sum(size * 8 // _bits(format_name) for format_name, size in self.stored.items())


Components = Mapping[str, Component]
"""By the network's name: unet, vae, text_encoder, text_encoder_2."""


def digest(form: str, weights: Iterable[bytes]) -> str:
    """Return the digest of a network of this form, by the hashes of its weights in the order of their names."""
    return hashlib.sha256(form.encode() + b"".join(weights)).hexdigest()


def recorded(components: Components | None, weights: str | None) -> dict[str, Any] | None:
    """Return what the catalogue holds of the networks of the file whose weights have this SHA-256."""
    if components is None:
        return None
    networks = {name: {"digest": one.digest, "bytes": dict(one.stored)} for name, one in components.items()}
    return {"weights": weights, "networks": networks}


def read(record: Mapping[str, Any] | None, weights: str | None) -> Components | None:
    """Return the networks that the catalogue holds of a file; None if it holds those of other weights.

    A worker of the version before records new weights and leaves the column as it is.
    """
    if record is None or record["weights"] != weights:
        return None
    return {name: Component(one["digest"], one["bytes"]) for name, one in record["networks"].items()}


def _bits(format_name: str) -> int:
    """`bfloat16` -> 16; `float8_e4m3fn` -> 8."""
    found = _BITS.search(format_name)
    return int(found[0]) if found else 8
