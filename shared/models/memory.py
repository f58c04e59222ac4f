"""What an image needs of a card's memory: estimated, until a card has measured it.

An estimate is meant as the least, so that no card is left out that could have done it: where memory runs short, the
engine asks for fewer rows at a time. It is for cards, which compute in half precision unless they are told otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

_PARAMETERS: Final = {"sd1": 1_070_000_000}  # U-Net, text encoder and VAE; a file may hold averages of them besides
_PARAMETER_BYTES: Final = 2
_CELL_BYTES: Final = 48 * 1024  # of what lies between the layers, a cell of the latent

Place = tuple[str, int]
"""A checkpoint (SHA-256) and a memory class."""


def estimate(size: int, architecture: str | None, memory_class: int) -> int:
    """Return what an image of this class needs at least, by the size of its checkpoint's file."""
    parameters = _PARAMETERS.get(architecture or "")
    weights = size if parameters is None else min(size, parameters * _PARAMETER_BYTES)
    cells = (1 << memory_class) // 2  # a class begins at half of its most
    return weights + cells * _CELL_BYTES


_NEEDS = text("""
    SELECT place.checkpoint, place.memory_class, need.bytes, file.size, file.architecture
    FROM unnest(CAST(:checkpoints AS text[]), CAST(:classes AS bigint[])) AS place (checkpoint, memory_class)
    LEFT JOIN memory_needs AS need
      ON need.checkpoint = place.checkpoint
     AND need.memory_class = place.memory_class
    LEFT JOIN LATERAL (
        SELECT size, architecture
        FROM model_files
        WHERE sha256 = place.checkpoint
        LIMIT 1
    ) AS file ON true
""")


def needs(session: Session, places: Collection[Place]) -> dict[Place, int]:
    """Return what images of these places need, in bytes; a place of which nothing is known is left out."""
    if not places:
        return {}
    checkpoints, classes = zip(*sorted(places), strict=True)
    rows = session.execute(_NEEDS, {"checkpoints": list(checkpoints), "classes": list(classes)})
    found = {}
    for checkpoint, memory_class, measured, size, architecture in rows:
        if measured is not None:
            found[checkpoint, memory_class] = measured
        elif size is not None:
            found[checkpoint, memory_class] = estimate(size, architecture, memory_class)
    return found


_NOTE = text("""
    INSERT INTO memory_needs (checkpoint, memory_class, bytes)
    VALUES (:checkpoint, :memory_class, :bytes)
    ON CONFLICT (checkpoint, memory_class)
    DO UPDATE SET bytes = excluded.bytes WHERE memory_needs.bytes < excluded.bytes
""")


def note(session: Session, place: Place, measured: int) -> None:
    """Record what an image was measured to need: the most that was seen counts, and takes the estimate's place."""
    checkpoint, memory_class = place
    session.execute(_NOTE, {"checkpoint": checkpoint, "memory_class": memory_class, "bytes": measured})
