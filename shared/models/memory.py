"""The memory of a card that an image needs: estimated, until a card has measured it.

An estimate is a lower bound, so that no card is left out that could render it: if memory runs short, the engine asks
for fewer rows at a time. It is for cards, which compute in half precision unless a setting says otherwise.

A measurement is booked under the digest of the resident files, and the precision: an image with a refiner says nothing
about one without. The latest measurement counts, so the next one corrects a figure that was too large.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import partial
from typing import Final, Literal, NamedTuple, get_args

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.models.components import Components, read

Precision = Literal["half", "single"]
"""Whether a card computes with numbers of 16 bits or of 32."""

_PARAMETERS: Final = {"sd1": 1_070_000_000}  # U-Net, text encoder and VAE; a file may hold averages of them besides
_NUMBER_BYTES: Final[dict[Precision, int]] = {"half": 2, "single": 4}
_CELL_BYTES: Final = 48 * 1024  # of what lies between the layers, a cell of the latent


class Footprint(NamedTuple):
    """The footprint of an image in memory: the checkpoints that must be resident, and the size of the latent."""

    checkpoint: str  # SHA-256
    companions: str  # ModelSet.companions
    memory_class: int

    def digest(self, precision: Precision) -> str:
        """Return what measurements of these checkpoints in this precision are booked under."""
        return hashlib.sha256(f"{self.checkpoint} {self.companions} {precision}".encode()).hexdigest()


class Needs(NamedTuple):
    """Bytes of a card's memory that an image needs in each precision; None: not known."""

    half: int | None = None
    single: int | None = None


def estimate(
    size: int,
    architecture: str | None,
    memory_class: int,
    networks: Components | None = None,
    precision: Precision = "half",
) -> int:
    """Return what an image of this class needs at least: by the networks of its checkpoint, else by its file's size."""
    if networks:
        numbers = sum(network.numbers for network in networks.values())
        return numbers * _NUMBER_BYTES[precision] + working_bytes(memory_class)
    parameters = _PARAMETERS.get(architecture or "")
    weights = size if parameters is None else min(size, parameters * _NUMBER_BYTES["half"])
    return weights + working_bytes(memory_class)


def working_bytes(memory_class: int) -> int:
    """Return what an image of this class needs at least beside the weights."""
    return (1 << memory_class) // 2 * _CELL_BYTES  # a class begins at half of its most


_NEEDS = text("""
    SELECT place.checkpoint, place.companions, place.memory_class, half.bytes AS half, single.bytes AS single,
           file.size, file.architecture, file.components, file.weights_sha256
    FROM unnest(
        CAST(:checkpoints AS text[]), CAST(:companions AS text[]), CAST(:classes AS bigint[]),
        CAST(:half AS text[]), CAST(:single AS text[])
    ) AS place (checkpoint, companions, memory_class, half, single)
    LEFT JOIN memory_needs AS half
      ON half.checkpoint = place.half
     AND half.memory_class = place.memory_class
    LEFT JOIN memory_needs AS single
      ON single.checkpoint = place.single
     AND single.memory_class = place.memory_class
    LEFT JOIN LATERAL (
        SELECT size, architecture, components, weights_sha256
        FROM model_files
        WHERE sha256 = place.checkpoint
        LIMIT 1
    ) AS file ON true
""")


def needs(session: Session, footprints: Collection[Footprint]) -> dict[Footprint, Needs]:
    """Return what images of these footprints need; unknown footprints are left out."""
    if not footprints:
        return {}
    ordered = sorted(footprints)
    checkpoints, companions, classes = map(list, zip(*ordered, strict=True))
    given = {"checkpoints": checkpoints, "companions": companions, "classes": classes}
    digests = {precision: [one.digest(precision) for one in ordered] for precision in get_args(Precision)}
    found = {}
    for row in session.execute(_NEEDS, given | digests):
        half = single = None
        if row.size is not None:
            networks = read(row.components, row.weights_sha256)
            least = partial(estimate, row.size, row.architecture, row.memory_class, networks)
            half, single = least("half"), least("single")
        if row.half or row.single or half:
            place = Footprint(row.checkpoint, row.companions, row.memory_class)
            found[place] = Needs(row.half or half, row.single or single)
    return found


_MEASURED = text("""
    INSERT INTO memory_needs (checkpoint, memory_class, bytes)
    VALUES (:digest, :memory_class, :bytes)
    ON CONFLICT (checkpoint, memory_class)
    DO UPDATE SET bytes = excluded.bytes
    WHERE memory_needs.bytes <> excluded.bytes
""")


def book(session: Session, footprint: Footprint, measured: int, precision: Precision = "half") -> None:
    """Record what an image was measured to need; it takes the place of the estimate, and of what was booked before."""
    booked = {"digest": footprint.digest(precision), "memory_class": footprint.memory_class, "bytes": measured}
    session.execute(_MEASURED, booked)
