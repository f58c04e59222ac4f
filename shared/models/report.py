"""What one model file is, without a farm: its kind, its networks, the memory that they take, and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from shared.models import details, regular_files, scan
from shared.models.architectures import starts_from_noise
from shared.models.inspection import Inspection, Networks
from shared.models.kinds import KINDS
from shared.models.scan import Inspect

NUMBER_BYTES: Final = {"float16": 2, "float32": 4}
"""The number formats of a card in half and in single precision, and the bytes of a number in each."""


@dataclass(frozen=True)
class FileReport:
    """What one file or diffusers folder is."""

    path: str
    usable: bool
    kind: str
    reason: str | None = None  # why it cannot be used
    note: str | None = None  # what is odd about a file that can be used
    architecture: str | None = None
    prediction: str | None = None
    is_inpainting: bool = False
    has_zero_terminal_snr: bool = False
    native_size: int | None = None  # pixels of a side
    has_vae: bool | None = None  # of a checkpoint
    size: int | None = None  # bytes on disk
    needs: tuple[str, ...] = ()  # what else is needed to render with it
    networks: Networks = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)  # shared.models.details.Details, as JSON

    @classmethod
    def of(cls, path: Path, place: str, inspect: Inspect) -> Self:
        """Return the report of `path`; for its `place` see `ModelPath`. No file makes it raise.

        Raises NotConfined if `inspect` cannot start a process to read with.
        """
        try:
            size = scan.fingerprint(path).size
            found = scan.placed(inspect(path), place)
        except (TimeoutError, ChildProcessError) as error:
            return cls(str(path), usable=False, kind="other", reason=str(error))
        except OSError as error:
            return cls(str(path), usable=False, kind="other", reason=_unopened(path, error))
        is_checkpoint = found.kind == "checkpoint" and found.reason is None
        return cls(
            path=str(path),
            usable=found.reason is None,
            kind=found.kind,
            reason=found.reason,
            note=found.note,
            architecture=found.architecture,
            prediction=found.prediction,
            is_inpainting=found.is_inpainting,
            has_zero_terminal_snr=found.has_zero_terminal_snr,
            native_size=found.native_size,
            has_vae=found.has_vae if is_checkpoint else None,
            size=size,
            needs=_needs(path, found) if is_checkpoint else (),
            networks=found.networks,
            details=details.recorded(found.details),
        )

    def memory(self) -> dict[str, dict[str, int]]:
        """Return the bytes that each network's weights take on a card: by its name, then by the card's format."""
        numbers = {name: sum(formats.values()) for name, formats in self.networks.items()}
        return {name: {form: count * size for form, size in NUMBER_BYTES.items()} for name, count in numbers.items()}

    def to_json(self) -> dict[str, Any]:
        """Return it for programs, with the memory of its networks and of all of them together."""
        memory = self.memory()
        total = {form: sum(one[form] for one in memory.values()) for form in NUMBER_BYTES}
        return asdict(self) | {"memory_bytes": memory, "total_memory_bytes": total}


def _needs(path: Path, checkpoint: Inspection) -> tuple[str, ...]:
    """Return what a usable checkpoint lacks, in words."""
    stem = path.name if path.is_dir() else path.stem
    is_vae_beside = any(path.with_name(f"{stem}.vae{suffix}").exists() for suffix in KINDS["vae"].suffixes)
    needs = []
    if not checkpoint.has_vae and not is_vae_beside:
        needs.append(f"a VAE: {stem}.vae.safetensors beside it, or one that each job names")
    if not starts_from_noise(checkpoint.architecture):
        needs.append("a checkpoint that it takes over from as the refiner, or a picture to start from")
    return tuple(needs)


def _unopened(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there"
    if isinstance(error, regular_files.NotRegular):
        beside = "" if error.filename == str(path) else f"{Path(error.filename).name} beside it "
        return f"{beside}{error.strerror}"
    return f"cannot be read: {error.strerror or type(error).__name__}"
