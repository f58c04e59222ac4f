"""The catalogue: which model files lie in the models folder. A worker scans and records, the API reads.

A checkpoint is a `.safetensors` or `.ckpt` file (a `.yaml` of the same name belongs to it), or a diffusers folder,
which holds a `model_index.json`. A VAE is a file with nothing else in it, wherever it lies; `name.vae.*` beside the
checkpoint `name` belongs to that. A tiny decoder, for previews, is such a file too. Subfolders are searched, and links
are followed, also out of the models folder: people keep large files elsewhere, and who may write into that folder may
choose its checkpoints. Hidden files are none of ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Final, Literal

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.tables import NOW, ModelFile, Worker
from shared.errors import FieldError, NotLooked, Refused
from shared.models import first_scan
from shared.params.render import AUTOMATIC_VAE, BUILT_IN_VAE
from shared.suggest import nearest

Kind = Literal["checkpoint", "vae", "decoder", "other"]
"""What a model file is; other: of a kind that the farm cannot use, which its reason names."""

VAE_SUFFIXES: Final = (".safetensors", ".ckpt", ".pt")  # of a VAE's file; beside a checkpoint the first one counts
DECODER_SUFFIXES: Final = (".safetensors", ".pth", ".pt")  # of a tiny decoder's
GONE: Final = "The file is gone."
MOST_STRIKES: Final = 2  # of a file; a process may end once for another reason while it loads one
_STRUCK: Final = "reading it ended its process twice"
_AGAIN: Final = "replace the file, or touch it to have it tried again"
_PATIENCE: Final = timedelta(minutes=5)  # in which a disk that is away on one machine may come back
_REFRESHED: Final = timedelta(minutes=1)
_TITLE: Final = re.compile(r"(?P<name>.+) \[(?P<hash>[0-9a-f]{10})\]")
_HASH: Final = re.compile(r"[0-9a-f]{8,64}")
_ANY: Final[dict[Kind, str]] = {
    "checkpoint": (
        "a Stable Diffusion 1.x checkpoint in the models folder (FARM_MODELS), where workers look every few seconds"
    ),
    "vae": f"{AUTOMATIC_VAE}, {BUILT_IN_VAE}, or a VAE's file in the models folder (FARM_MODELS)",
    "decoder": "a tiny decoder in the models folder (FARM_MODELS)",
    "other": "a file in the models folder (FARM_MODELS)",
}
_NAMES: Final[dict[Kind, str]] = {"checkpoint": "checkpoint", "vae": "VAE", "decoder": "tiny decoder", "other": "file"}
_EARLY: Final = "The farm is still reading its models. Try again in a few seconds."
_SHOWN: Final = 5  # names that a refusal offers when nothing is alike


@dataclass(frozen=True)
class Inspection:
    """What a look into a model file found; `reason` says why it cannot be used, for people."""

    kind: Kind
    architecture: str | None = None
    native_size: int | None = None  # pixels of a side
    reason: str | None = None
    note: str | None = None  # what is odd about a file that can be used
    description: str | None = None  # digest of what is said of it beyond its weights; None: nothing
    has_vae: bool = True


@dataclass(frozen=True)
class Scanned:
    """One file or diffusers folder as a scan saw it; without `inspection` if only an earlier scan looked into it."""

    path: str  # relative to the models folder
    name: str
    size: int
    mtime_ns: int
    sha256: str | None
    inspection: Inspection | None
    weights: str | None = None  # SHA-256 of the weights alone; None: the same
    parts: str | None = None  # digest of the name, size and time of each file that belongs to it


def identity(weights: str, description: str | None) -> str:
    """Return what a file is known by: the hash of its weights, and of what describes them where that adds something.

    Weights that nobody describes, or in words that say what the weights alone do, keep the hash that all programs know.
    """
    return hashlib.sha256(f"{weights} {description}".encode()).hexdigest() if description else weights


def short_hash(sha256: str) -> str:
    """Return the ten characters by which people know a checkpoint."""
    return sha256[:10]


def title(file: ModelFile) -> str:
    """Return `name [short hash]`, as parameters hold it."""
    return f"{file.name} [{short_hash(file.sha256)}]" if file.sha256 else file.name


def entries(session: Session, kind: Kind = "checkpoint", *, first: str = "") -> list[ModelFile]:
    """Return what of this kind lies in the models folder, usable or not: by name, but what is called `first` first."""
    files = [file for file in _rows(session) if file.kind == kind and file.reason != GONE]
    return sorted(files, key=lambda file: file.name != first)


def remembered(session: Session) -> list[Scanned]:
    """Return what earlier scans recorded, so that a new worker need not hash it all again."""
    return [
        Scanned(
            file.path,
            file.name,
            file.size,
            file.mtime_ns,
            file.sha256,
            None,
            file.weights_sha256 or file.sha256,
            file.parts,
        )
        for file in _rows(session)
    ]


def record(session: Session, scanned: Sequence[Scanned]) -> int:
    """Bring the catalogue to what a scan saw, and return how many rows that changed.

    A file that the scan left to the next one, without an inspection, keeps its row.
    What is gone stays as unusable: its hash is remembered for when its disk is back, and jobs that name it learn why.
    A scan that saw nothing at all may have looked at a disk that is not mounted: it takes for gone only what no machine
    has seen for five minutes.
    """
    rows = {file.path: file for file in _rows(session)}
    looked_into = [(seen, seen.inspection) for seen in scanned if seen.inspection]
    fresh = sorted(
        (_columns(seen, found, rows.get(seen.path)) for seen, found in looked_into),
        key=lambda columns: str(columns["path"]),
    )
    changed = [columns for columns in fresh if not _is_recorded(rows.get(str(columns["path"])), columns)]
    for columns in changed:
        session.execute(
            insert(ModelFile)
            .values(**columns)
            .on_conflict_do_update(index_elements=[ModelFile.path], set_=columns | {"scanned_at": NOW})
        )
    here = {seen.path for seen in scanned}
    _refresh(session, here)
    return len(changed) + _mark_gone(session, here)


def strike(session: Session, files: Iterable[str], reason: str) -> int:
    """Count against the files of these SHA-256 that a process ended while it loaded them; return how many there are.

    The second time they cannot be used any more, until they change.
    """
    is_last = ModelFile.strikes + 1 >= MOST_STRIKES
    paths = _locked(session, ModelFile.sha256.in_(set(files)) & ModelFile.usable)
    session.execute(
        update(ModelFile)
        .where(ModelFile.path.in_(paths))
        .values(
            strikes=ModelFile.strikes + 1,
            usable=~is_last,
            reason=case((is_last, f"{_STRUCK}: {reason}; {_AGAIN}"), else_=ModelFile.reason),
        )
    )
    return len(paths)


def forgive(session: Session, sha256: str) -> None:
    """Forget the strikes of a file that was loaded after all: on any machine, also if it was refused meanwhile."""
    is_refused = ModelFile.reason.startswith(_STRUCK)
    paths = _locked(session, (ModelFile.sha256 == sha256) & (ModelFile.strikes > 0) & (ModelFile.usable | is_refused))
    if paths:
        forgiven = update(ModelFile).where(ModelFile.path.in_(paths))
        session.execute(forgiven.values(strikes=0, usable=True, reason=None))


def _locked(session: Session, fits: ColumnElement[bool]) -> list[str]:
    """Lock the files that `fits` is true of, and return their paths: in their order, so that nobody waits in a ring.

    A burial locks them while it holds a worker's row, and nobody who holds a file's row waits for another table's.
    """
    return list(session.scalars(select(ModelFile.path).where(fits).order_by(ModelFile.path).with_for_update()).all())


def identity_of(session: Session, sha256: str) -> str:
    """Return the identity that an image means by a hash: that, unless only weights have it, in one identity.

    Images of the version before name weights alone.
    """
    if session.scalar(select(ModelFile.path).where(ModelFile.sha256 == sha256).limit(1)) is not None:
        return sha256
    described = select(ModelFile.sha256).where(ModelFile.weights_sha256 == sha256, ModelFile.sha256.is_not(None))
    found = session.scalars(described.distinct().limit(2)).all()
    return found[0] if len(found) == 1 and found[0] else sha256


def is_lately() -> ColumnElement[bool]:
    """Tell of a model file whether it was last seen, or found gone, so short ago that its disk may only be away."""
    return ModelFile.scanned_at > func.now() - _PATIENCE


def _refresh(session: Session, here: set[str]) -> None:
    """Note that the files `here` were seen, once a minute."""
    seen = ModelFile.path.in_(here) & ModelFile.reason.is_distinct_from(GONE)
    paths = _locked(session, seen & (ModelFile.scanned_at < func.now() - _REFRESHED))
    if paths:
        session.execute(update(ModelFile).where(ModelFile.path.in_(paths)).values(scanned_at=NOW))


def _mark_gone(session: Session, here: set[str]) -> int:
    gone = ModelFile.path.not_in(here) & ModelFile.reason.is_distinct_from(GONE)
    if not here:
        gone &= ~is_lately()
    paths = _locked(session, gone)
    if paths:
        marked = update(ModelFile).where(ModelFile.path.in_(paths))
        session.execute(marked.values(usable=False, reason=GONE, scanned_at=NOW))
    return len(paths)


def resolve(session: Session, text: str, kind: Kind = "checkpoint", *, first: str = "") -> ModelFile:
    """Return the usable file of `kind` that `text` means: its name, file, path, hash or title, whatever the case.

    Empty means the one that is called `first`, else the first by name. Raises Refused that names those most alike, or
    says why it cannot be used; NotLooked before anybody knows what there is.
    """
    refused = partial(_refused, kind)
    files = entries(session, kind, first=first)
    usable = [file for file in files if file.usable]
    if usable and not text:
        if not _is_first_known(session, usable, first):
            raise NotLooked(_EARLY)
        return usable[0]
    found = (meant(session, text, kind) or meant(session, text, "other")) if text else []
    fit = [file for file in found if file.usable]
    if len({file.sha256 for file in fit}) == 1:
        return fit[0]
    if fit:
        paths = ", ".join(file.path for file in fit[:_SHOWN])
        raise refused(f"{text!r} names {len(fit)} {_NAMES[kind]}s: {paths}", fit)
    if all(file.reason == GONE for file in found) and first_scan.is_awaited(session):
        raise NotLooked(_EARLY)
    if found:
        raise refused(f"{found[0].name} cannot be used: {found[0].reason}", usable)
    if not usable and kind == "checkpoint":
        raise refused(_nothing_usable(session, files), [])
    alike = {name for file in usable for name in (file.name, title(file))}
    close = nearest(text, alike)
    raise refused(
        f"There is no {_NAMES[kind]} {text[:80]!r}",
        [file for file in usable if {file.name, title(file)} & {*close}] or usable,
    )


def of_hash(session: Session, sha256: str) -> ModelFile | None:
    """Return a file of this SHA-256, a usable one if there is any."""
    files = select(ModelFile).where(ModelFile.sha256 == sha256).order_by(ModelFile.usable.desc(), ModelFile.path)
    return session.scalars(files.limit(1)).one_or_none()


def is_default_known(session: Session, *, first: str = "") -> bool:
    """True where it is known which checkpoint a job takes that names none."""
    usable = [file for file in entries(session, first=first) if file.usable]
    return bool(usable) and _is_first_known(session, usable, first)


def _is_first_known(session: Session, usable: Sequence[ModelFile], first: str) -> bool:
    """True unless all that is usable was found by a look that goes on, and the first checkpoint is not among it."""
    if usable[0].name == first:
        return True
    since = first_scan.awaited_since(session)
    return since is None or any(file.scanned_at < since for file in usable)


def vae_for(session: Session, text: str, checkpoint: ModelFile) -> ModelFile | None:
    """Return the VAE file that the parameter `vae` means for a checkpoint; None: the one built into that.

    Automatic is the file beside the checkpoint, if there is one. Raises Refused, also where that cannot be used:
    another VAE would paint another picture.
    """
    if text == BUILT_IN_VAE:
        _require_vae_inside(session, checkpoint)
        return None
    if text != AUTOMATIC_VAE:
        return resolve(session, text, "vae")
    beside = {file.path: file for file in entries(session, "vae")}
    stem = checkpoint.path if _is_folder(checkpoint) else str(PurePosixPath(checkpoint.path).with_suffix(""))
    found = [beside[path] for suffix in VAE_SUFFIXES if (path := f"{stem}.vae{suffix}") in beside]
    if found and not found[0].usable:
        message = f"{found[0].path} beside the checkpoint cannot be used: {found[0].reason}"
        raise _refused("vae", message, [])
    if not found:
        _require_vae_inside(session, checkpoint)
    return found[0] if found else None


def _require_vae_inside(session: Session, checkpoint: ModelFile) -> None:
    """Raise Refused where there is no VAE inside."""
    if not checkpoint.has_vae:
        beside = PurePosixPath(checkpoint.path).stem
        message = f"{checkpoint.name} has no VAE inside: name one, or lay {beside}.vae.safetensors beside it"
        raise _refused("vae", message, [file for file in entries(session, "vae") if file.usable])


def meant(session: Session, text: str, kind: Kind) -> list[ModelFile]:
    """Return the files of `kind` that `text` means, usable or not, those that are gone among them.

    A whole title comes first, because a file may be called as another one is titled; then a name, then a hash; and what
    a file is, weights and description, before what its weights are: the same weights may be described in several ways.
    """
    files = [file for file in _rows(session) if file.kind == kind]
    wanted = text.strip().casefold()
    ways = ([file for file in files if means(wanted, file)] for means in _WAYS)
    return next(filter(None, ways), [])


def _is_folder(file: ModelFile) -> bool:
    """A folder is called by its whole name, a file by its stem."""
    return file.path.rpartition("/")[2] == file.name


def _is_title(text: str, file: ModelFile) -> bool:
    return file.sha256 is not None and text == title(file).casefold()


def _is_called(text: str, file: ModelFile) -> bool:
    return text in {name.casefold() for name in (file.name, file.path, file.path.rpartition("/")[2])}


def _is_titled(text: str, file: ModelFile) -> bool:
    return bool((titled := _TITLE.fullmatch(text)) and short_hash(file.sha256 or "") == titled["hash"])


def _has_hash(text: str, file: ModelFile) -> bool:
    return bool(_HASH.fullmatch(text) and (file.sha256 or "").startswith(text))


def _has_title_and_weights(text: str, file: ModelFile) -> bool:
    return _has_weights_of_title(text, file) and text.startswith(f"{file.name.casefold()} [")


def _has_weights_of_title(text: str, file: ModelFile) -> bool:
    return bool((titled := _TITLE.fullmatch(text)) and short_hash(file.weights_sha256 or "") == titled["hash"])


def _has_weights(text: str, file: ModelFile) -> bool:
    return bool(_HASH.fullmatch(text) and (file.weights_sha256 or "").startswith(text))


_WAYS: Final = (
    _is_title,
    _is_called,
    _is_titled,
    _has_hash,
    _has_title_and_weights,
    _has_weights_of_title,
    _has_weights,
)
"""How a text means a file, the surest first."""


def _refused(kind: Kind, message: str, accepted: Iterable[ModelFile]) -> Refused:
    titles = [title(file) for file in accepted][:_SHOWN]
    if kind == "vae" and titles:
        titles = [AUTOMATIC_VAE, BUILT_IN_VAE, *titles]
    return Refused(message + ".", (FieldError(kind, message, " or ".join(titles) or _ANY[kind]),))


def _nothing_usable(session: Session, files: Sequence[ModelFile]) -> str:
    """Return what to tell a farm without checkpoints: what to do about it."""
    if files:
        what = f"{files[0].name} cannot be used: {files[0].reason}"
    elif session.scalar(select(Worker.id).limit(1)) is None:
        what = "no worker is alive to look for one; start one with `farm worker`"
    else:
        what = "none lies in the models folder"
    return f"The farm has no usable checkpoint yet: {what.removesuffix('.')}"


def _rows(session: Session) -> list[ModelFile]:
    rows = session.scalars(select(ModelFile)).all()
    return sorted(rows, key=lambda file: (file.name.casefold(), file.path))


def _columns(seen: Scanned, inspection: Inspection, row: ModelFile | None) -> dict[str, object]:
    """Return what a scan says of a file. Strikes stay with it as long as it stays as it is."""
    is_same = row is not None and row.sha256 == seen.sha256 and row.parts in (None, seen.parts)
    strikes = row.strikes if row and is_same else 0
    if strikes >= MOST_STRIKES:
        inspection = replace(inspection, reason=(row and row.reason != GONE and row.reason) or f"{_STRUCK}; {_AGAIN}")
    return {
        "weights_sha256": seen.weights or seen.sha256,
        "parts": seen.parts,
        "note": inspection.note,
        "has_vae": inspection.has_vae,
        "strikes": strikes,
        "path": seen.path,
        "name": seen.name,
        "kind": inspection.kind,
        "architecture": inspection.architecture,
        "sha256": seen.sha256,
        "size": seen.size,
        "mtime_ns": seen.mtime_ns,
        "native_size": inspection.native_size,
        "usable": inspection.reason is None,
        "reason": inspection.reason,
    }


def _is_recorded(row: ModelFile | None, columns: dict[str, object]) -> bool:
    return row is not None and all(getattr(row, name) == value for name, value in columns.items())
