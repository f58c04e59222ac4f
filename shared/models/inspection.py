"""What a scan learns about a model file: from its content, and from the folder that it lies in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.models.components import Components
from shared.models.kinds import Kind

Prediction = Literal["noise", "velocity"]
"""What a checkpoint's network predicts of a noisy latent: its noise, or the velocity between noise and picture."""

Networks = Mapping[str, Mapping[str, int]]
"""The networks of a file by diffusers' names for them: how many of its numbers are stored in each number format."""


@dataclass(frozen=True)
class Inspection:
    """What the content of a model file is; `reason` says why it cannot be used, for people."""

    kind: Kind
    architecture: str | None = None
    native_size: int | None = None  # pixels of a side
    reason: str | None = None
    note: str | None = None  # what is odd about a file that can be used
    description: str | None = None  # digest of what its description adds to its weights; None: nothing
    has_vae: bool = True
    prediction: Prediction | None = None  # of a checkpoint
    is_inpainting: bool = False  # its network sees a mask and the masked picture beside the latent
    has_zero_terminal_snr: bool = False  # it was trained to begin from noise alone
    networks: Networks = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)  # shared.models.details.Details, as JSON


@dataclass(frozen=True)
class Scanned:
    """One file or diffusers folder as a scan saw it; without `inspection` if only an earlier scan looked into it."""

    path: str  # shared.models.folders.ModelPath.name
    name: str
    size: int
    mtime_ns: int
    sha256: str | None
    inspection: Inspection | None
    weights: str | None = None  # SHA-256 of the weights alone; None: the same
    parts: str | None = None  # digest of the name, size and time of each file that belongs to it
    components: Components | None = None  # its networks; None: not looked for yet


def identity(weights: str, description: str | None) -> str:
    """Return the hash that a file is known by: of its weights, and of its description if that adds something.

    Weights without a description, or with one that adds nothing to them, keep the hash that all programs know.
    """
    return hashlib.sha256(f"{weights} {description}".encode()).hexdigest() if description else weights
