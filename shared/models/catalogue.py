"""The catalogue: which model files lie in the models folder. A worker scans and records, the API reads.

A checkpoint is a `.safetensors` or `.ckpt` file (a `.yaml` of the same name belongs to it), or a diffusers folder,
which holds a `model_index.json`. A VAE is a file with nothing else in it, wherever it lies; `name.vae.*` beside the
checkpoint `name` belongs to that. A tiny decoder, for previews, is such a file too. Subfolders are searched, and links
are followed, also out of the models folder: people keep large files elsewhere, and everybody who may write into that
folder may choose its checkpoints. Hidden files are ignored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Final, Literal, NamedTuple, Self

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.tables import NOW, ModelFile, Worker
from shared.errors import FieldError, NotLooked, Refused
from shared.models import first_scan
from shared.params.codecs import BUILT_IN_VAE
from shared.params.fields import AUTOMATIC_VAE
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


class Entry(NamedTuple):
    """One row of the catalogue, as it was read."""

    path: str  # relative to the models folder
    name: str
    kind: Kind
    architecture: str | None
    sha256: str | None
    weights_sha256: str | None
    size: int
    mtime_ns: int
    parts: str | None
    note: str | None
    native_size: int | None
    has_vae: bool
    strikes: int
    usable: bool
    reason: str | None
    scanned_at: datetime

    @property
    def title(self) -> str:
        """`name [short hash]`, as parameters hold it."""
        return f"{self.name} [{short_hash(self.sha256)}]" if self.sha256 else self.name

    @property
    def stem(self) -> str:
        """The path without the file's ending; a folder is called by its whole name."""
        is_folder = self.path.rpartition("/")[2] == self.name
        return self.path if is_folder else str(PurePosixPath(self.path).with_suffix(""))

    def is_called(self, text: str) -> bool:
        """True if the casefolded `text` is its name, its path or its file's name."""
        return text in {name.casefold() for name in (self.name, self.path, self.path.rpartition("/")[2])}


@dataclass(frozen=True)
class Catalogue:
    """All model files that the farm knows, read at one moment: it answers what a name means without the database."""

    files: tuple[Entry, ...]  # by name; those that are gone too
    awaited_since: datetime | None = None  # when the workers began that have still to look at the whole models folder
    has_workers: bool = True  # read only where no checkpoint can be used

    @classmethod
    def read(cls, session: Session) -> Self:
        """Return the catalogue as it is now."""
        rows = session.execute(select(*_COLUMNS))
        files = sorted((Entry._make(row) for row in rows), key=lambda file: (file.name.casefold(), file.path))
        is_any = any(file.usable and file.kind == "checkpoint" for file in files)
        has_workers = is_any or session.scalar(select(Worker.id).limit(1)) is not None
        return cls(tuple(files), first_scan.awaited_since(session), has_workers)

    def entries(self, kind: Kind = "checkpoint", *, first: str = "") -> list[Entry]:
        """Return the files of this kind that lie in the models folder, usable or not.

        By name, but those that are called `first` come first.
        """
        files = [file for file in self._of_kind.get(kind, ()) if file.reason != GONE]
        return sorted(files, key=lambda file: file.name != first)

    def usable(self, kind: Kind = "checkpoint", *, first: str = "") -> list[Entry]:
        """Return the entries of this kind that can be used, in the same order."""
        return [file for file in self.entries(kind, first=first) if file.usable]

    def is_default_known(self, *, first: str = "") -> bool:
        """True where it is known which checkpoint a job takes that names none.

        It is not while all that is usable was found by a look that goes on, and the first checkpoint is not among it.
        """
        usable, since = self.usable(first=first), self.awaited_since
        if not usable or usable[0].name == first:
            return bool(usable)
        return since is None or any(file.scanned_at < since for file in usable)

    def meant(self, text: str, kind: Kind) -> list[Entry]:
        """Return the files of `kind` that `text` means, usable or not, those that are gone among them."""
        files = self._of_kind.get(kind, ())
        found = ([file for file in files if means(file)] for means in _ways(text.strip().casefold()))
        return next(filter(None, found), [])

    def resolve(self, text: str, kind: Kind = "checkpoint", *, first: str = "") -> Entry:
        """Return the usable file of `kind` that `text` means: its name, file, path, hash or title, whatever the case.

        Empty means the one that is called `first`, else the first by name. Raises Refused that names those most alike,
        or says why it cannot be used; NotLooked before anybody knows what there is.
        """
        refused = partial(_refused, kind)
        usable = self.usable(kind, first=first)
        if usable and not text:
            if not self.is_default_known(first=first):
                raise NotLooked(_EARLY)
            return usable[0]
        found = (self.meant(text, kind) or self.meant(text, "other")) if text else []
        fit = [file for file in found if file.usable]
        if len({file.sha256 for file in fit}) == 1:
            return fit[0]
        if fit:
            paths = ", ".join(file.path for file in fit[:_SHOWN])
            raise refused(f"{text!r} names {len(fit)} {_NAMES[kind]}s: {paths}", fit)
        if all(file.reason == GONE for file in found) and self.awaited_since:
            raise NotLooked(_EARLY)
        if found:
            raise refused(f"{found[0].name} cannot be used: {found[0].reason}", usable)
        if not usable and kind == "checkpoint":
            raise refused(self._nothing_usable(), [])
        raise refused(f"There is no {_NAMES[kind]} {text[:80]!r}", _alike(text, usable) or usable)

    def vae_for(self, text: str, checkpoint: Entry) -> Entry | None:
        """Return the VAE file that the parameter `vae` means for a checkpoint; None: the one built into that.

        Automatic is the file beside the checkpoint, if there is one. Raises Refused, also where that cannot be used:
        another VAE would paint another picture.
        """
        if text not in {AUTOMATIC_VAE, BUILT_IN_VAE}:
            return self.resolve(text, "vae")
        there = {file.path: file for file in self.entries("vae")} if text == AUTOMATIC_VAE else {}
        paths = (f"{checkpoint.stem}.vae{suffix}" for suffix in VAE_SUFFIXES)
        beside = next((there[path] for path in paths if path in there), None)
        if beside is None and not checkpoint.has_vae:
            stem = PurePosixPath(checkpoint.path).stem
            message = f"{checkpoint.name} has no VAE inside: name one, or lay {stem}.vae.safetensors beside it"
            raise _refused("vae", message, self.usable("vae"))
        if beside is not None and not beside.usable:
            message = f"{beside.path} beside the checkpoint cannot be used: {beside.reason}"
            raise _refused("vae", message, [])
        return beside

    def copies(self, sha256: str) -> list[Entry]:
        """Return the usable files of this SHA-256, by path.

        A hash that no file has means the one identity with these weights: images of an older version name weights.
        """
        named = [file for file in self.files if file.sha256 == sha256]
        described = [file for file in self.files if file.weights_sha256 == sha256 and file.sha256]
        if not named and len({file.sha256 for file in described}) == 1:
            named = described
        return sorted(file for file in named if file.usable)

    def remembered(self) -> list[Scanned]:
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
            for file in self.files
        ]

    @cached_property
    def _of_kind(self) -> dict[Kind, list[Entry]]:
        kinds: dict[Kind, list[Entry]] = {}
        for file in self.files:
            kinds.setdefault(file.kind, []).append(file)
        return kinds

    def _nothing_usable(self) -> str:
        """Return what to tell a farm without checkpoints: what to do about it."""
        if files := self.entries():
            what = f"{files[0].name} cannot be used: {files[0].reason}"
        elif not self.has_workers:
            what = "no worker is alive to look for one; start one with `farm worker`"
        else:
            what = "none lies in the models folder"
        return f"The farm has no usable checkpoint yet: {what.removesuffix('.')}"


def record(session: Session, scanned: Sequence[Scanned], before: Catalogue | None = None) -> int:
    """Bring the catalogue to what a scan saw, and return how many rows that changed.

    `before` is the catalogue when the scan began; default: the current one. Only rows that the scan found changed are
    read again, and locked, so that a crash counted meanwhile is not lost.
    A file without an inspection, which the scan left to the next one, keeps its row.
    A file that is gone stays as unusable: its hash is remembered for when its disk is back, and jobs that name it learn
    why. A scan that saw no file at all may have read a disk that is not mounted: it takes for gone only files that no
    machine has seen for five minutes.
    """
    known = {file.path: file for file in (before or Catalogue.read(session)).files}
    looked_into = {seen.path: (seen, seen.inspection) for seen in scanned if seen.inspection}
    otherwise = {path for path, (seen, found) in looked_into.items() if not _is_recorded(known.get(path), seen, found)}
    rows = _locked_entries(session, otherwise)
    changed = [path for path in sorted(otherwise) if not _is_recorded(rows.get(path), *looked_into[path])]
    for path in changed:
        columns = _columns(*looked_into[path], rows.get(path))
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

    `mark_dead` locks them while it holds a worker's row. A transaction that holds a file's row locks no other table.
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
    """The condition that a model file was seen, or found gone, so recently that its disk may only be away."""
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


_COLUMNS: Final = tuple(getattr(ModelFile, name) for name in Entry._fields)


def _ways(text: str) -> Iterator[Callable[[Entry], bool]]:
    """Yield how a casefolded text may mean a file, the surest first.

    A whole title comes first, because a file may be called as another one is titled; then a name, then a hash; and what
    a file is, weights and description, before what its weights are: the same weights may be described in several ways.
    """
    titled, is_hash = _TITLE.fullmatch(text), _HASH.fullmatch(text)
    begins = titled["hash"] if titled else text
    yield lambda file: file.sha256 is not None and file.title.casefold() == text
    yield lambda file: file.is_called(text)
    if titled or is_hash:
        yield lambda file: (file.sha256 or "").startswith(begins)
    if titled:
        yield (
            lambda file: (file.weights_sha256 or "").startswith(begins) and text.startswith(f"{file.name.casefold()} [")
        )
    if titled or is_hash:
        yield lambda file: (file.weights_sha256 or "").startswith(begins)


def _alike(text: str, files: Sequence[Entry]) -> list[Entry]:
    """Return the files whose names are most like a text, or like the name in a title."""
    titled = _TITLE.fullmatch(text.casefold())
    close = {*nearest(titled["name"] if titled else text, {file.name for file in files})}
    return [file for file in files if file.name in close]


def _refused(kind: Kind, message: str, accepted: Collection[Entry]) -> Refused:
    titles = [file.title for file in accepted][:_SHOWN]
    if kind == "vae" and titles:
        titles = [AUTOMATIC_VAE, BUILT_IN_VAE, *titles]
    return Refused(message + ".", (FieldError(kind, message, " or ".join(titles) or _ANY[kind]),))


def _locked_entries(session: Session, paths: Collection[str]) -> dict[str, Entry]:
    """Lock the files of these paths, in their order, and return them as they are now."""
    if not paths:
        return {}
    files = select(*_COLUMNS).where(ModelFile.path.in_(paths)).order_by(ModelFile.path).with_for_update()
    return {file.path: file for file in map(Entry._make, session.execute(files))}


def _columns(seen: Scanned, inspection: Inspection, row: Entry | None) -> dict[str, object]:
    """Return what a scan says about a file. Strikes stay with it as long as it stays as it is."""
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


def _is_recorded(row: Entry | None, seen: Scanned, inspection: Inspection) -> bool:
    columns = _columns(seen, inspection, row)
    return row is not None and all(getattr(row, name) == value for name, value in columns.items())
