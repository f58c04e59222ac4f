"""The catalogue: which model files the farm knows, and what a name means. `shared.models.recording` writes it.

A checkpoint is a `.safetensors` or `.ckpt` file (a `.yaml` of the same name belongs to it), or a diffusers folder,
which holds a `model_index.json`. A VAE is a file with nothing else in it, wherever it lies; `name.vae.*` beside the
checkpoint `name` belongs to that. A tiny decoder, for previews, is such a file too. Subfolders are searched, and links
are followed, also out of the models folder: people keep large files elsewhere, and a person who may write into that
folder may choose its checkpoints. Hidden files are ignored.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, Self

from sqlalchemy import ColumnElement, func, select, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared.db.tables import ModelFile, Worker
from shared.errors import FieldError, NotLooked, Refused
from shared.models import first_scan
from shared.models.architectures import label, shares_latents, starts_from_noise
from shared.models.details import Details
from shared.models.kinds import KINDS, Kind
from shared.params.codecs import BUILT_IN_VAE
from shared.params.fields import AUTOMATIC_VAE
from shared.suggest import nearest

GONE: Final = "The file is gone."
SHORT: Final = 10
"""Characters of a hash by which people know a file."""
_PATIENCE: Final = timedelta(minutes=5)  # in which a disk that is away on one machine may come back
_TITLE: Final = re.compile(r"(?P<name>.+) \[(?P<hash>[0-9a-f]{10})\]")
_HASH: Final = re.compile(r"[0-9a-f]{8,64}")
_EARLY: Final = "The farm is still reading its models. Try again in a few seconds."
_SHOWN: Final = 5  # names that a refusal offers if none is similar


class Entry(NamedTuple):
    """What every reader of the catalogue needs of one of its rows, as it was read.

    What only scans and loads need of a row is long, and is read by them.
    """

    path: str  # shared.models.folders.ModelPath.name
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
    prediction: str | None  # shared.models.inspection.Prediction; a newer version may know others
    strikes: int
    usable: bool
    reason: str | None
    scanned_at: datetime
    stored_details: Mapping[str, Any] | None  # those that names and fitting need; `read` may bring all

    @property
    def details(self) -> Details:
        """The details in its content, as far as this version understands them."""
        return Details.read(self.stored_details)

    @property
    def short_hash(self) -> str:
        """The hash by which pictures of other programs name it; empty: none."""
        found = (self.stored_details or {}).get("short_hash")
        return found if isinstance(found, str) else ""

    @property
    def title(self) -> str:
        """`name [short hash]`, as parameters hold it."""
        return f"{self.name} [{self.sha256[:SHORT]}]" if self.sha256 else self.name

    @property
    def described(self) -> str:
        """`name (architecture)`, as refusals hold it; the name alone if the architecture is not known."""
        return f"{self.name} ({label(self.architecture)})" if self.architecture else self.name

    @property
    def stem(self) -> str:
        """The path without the file's ending; a folder is called by its whole name."""
        is_folder = self.path.rpartition("/")[2] == self.name
        return self.path if is_folder else str(PurePosixPath(self.path).with_suffix(""))

    def spellings(self) -> set[str]:
        """Return its name, its path and its file's name, as they are written."""
        return {self.name, self.path, self.path.rpartition("/")[2]}

    def names(self) -> set[str]:
        """Return its name, its path and its file's name, casefolded."""
        return {name.casefold() for name in self.spellings()}

    def endings(self) -> set[str]:
        """Return the ends of its path from each of its folders on, with and without the file's ending, casefolded."""
        folders = self.path.rpartition("/")[0].casefold().split("/")
        ends = self.name.casefold(), self.path.rpartition("/")[2].casefold()
        return {"/".join([*folders[first:], end]) for first in range(len(folders)) for end in ends if folders[0]}

    def aliases(self) -> set[str]:
        """Return the other name that its metadata gives it, casefolded; empty: none."""
        alias = (self.stored_details or {}).get("alias")
        return {alias.casefold()} if isinstance(alias, str) else set()


Names = Callable[[Entry], Collection[str]]
_LONG: Final = "trigger_words"  # of details: a submission reads all files, and none of their words
_SHORT_DETAILS: Final = type_coerce(ModelFile.details.op("-")(_LONG), JSONB)
COLUMNS: Final = tuple(getattr(ModelFile, name) for name in Entry._fields[:-1])
"""The columns of an `Entry`, without its details."""


@dataclass(frozen=True)
class Catalogue:
    """All model files that the farm knows, read at one moment. It looks up names without the database."""

    files: tuple[Entry, ...]  # by name; those that are gone too
    awaited_since: datetime | None = None  # when the workers began that have still to look at the whole models folder
    has_workers: bool = True  # looked up only if no checkpoint can be used

    @classmethod
    def read(cls, session: Session, kind: Kind | None = None) -> Self:
        """Return the catalogue as it is now, or what it holds of one kind; without trigger words, which are long."""
        columns = select(*COLUMNS, _SHORT_DETAILS)
        wanted = columns if kind is None else columns.where(ModelFile.kind == kind)
        return cls.of(session, map(Entry._make, session.execute(wanted)))

    @classmethod
    def of(cls, session: Session, files: Iterable[Entry]) -> Self:
        """Return a catalogue of these files alone, with what the database says about the first scan."""
        files = sorted(files, key=lambda file: (file.name.casefold(), file.path))
        is_any = any(file.usable and file.kind == "checkpoint" for file in files)
        has_workers = is_any or session.scalar(select(Worker.id).limit(1)) is not None
        return cls(tuple(files), first_scan.awaited_since(session), has_workers)

    def entries(self, kind: Kind = "checkpoint", *, first: str = "") -> list[Entry]:
        """Return the files of this kind that lie in the models folder, usable or not.

        By name, but those that `first` means come first, and those that cannot start from noise last.
        """
        files, meant = [file for file in self._of_kind.get(kind, ()) if file.reason != GONE], self.meant(first, kind)

        def place(file: Entry) -> tuple[bool, bool, bool]:
            return file not in meant, file.name != first, not starts_from_noise(file.architecture)

        return sorted(files, key=place)

    def usable(
        self, kind: Kind = "checkpoint", *, first: str = "", allowed: Iterable[str] | None = None
    ) -> list[Entry]:
        """Return the entries of this kind that can be used, in the same order; of `allowed` names alone, if given."""
        files = [file for file in self.entries(kind, first=first) if file.usable]
        if allowed is None:
            return files
        paths = self.paths_of(allowed, kind)
        return [file for file in files if file.path in paths]

    def first(
        self, kind: Kind, fits: Callable[[Entry], bool], order: Callable[[Entry], int] = lambda _: 0
    ) -> Entry | None:
        """Return the usable file of this kind that fits and comes first in `order`, then by name; None: there is none.

        Raises NotLooked while the first scan may still find one.
        """
        found = min(filter(fits, self.usable(kind)), key=order, default=None)
        if found is None and self.awaited_since:
            raise NotLooked(_EARLY)
        return found

    def is_default_known(self, *, first: str = "") -> bool:
        """True if it is known which checkpoint a job without a name takes.

        It is unknown while the first scan goes on and has not found the checkpoint that `first` means.
        """
        usable, since = self.usable(first=first), self.awaited_since
        if not usable or usable[0] in self.meant(first, "checkpoint"):
            return bool(usable)
        return since is None or any(file.scanned_at < since for file in usable)

    def meant(self, text: str, kind: Kind) -> list[Entry]:
        """Return the files of `kind` that `text` means: also unusable ones, and those that are gone."""
        return next(filter(None, self._found(text.strip().casefold(), kind)), [])

    def paths_of(self, names: Iterable[str], kind: Kind) -> frozenset[str]:
        """Return the paths of the files of `kind` that any of these names means, as `meant` finds them."""
        return frozenset(file.path for text in names for file in self.meant(text, kind))

    def is_allowed(self, file: Entry, names: Iterable[str]) -> bool:
        """True if one of these names means the file."""
        return any(file in self.meant(text, file.kind) for text in names)

    def only(self, text: str, kind: Kind) -> Entry | None:
        """Return the usable file that a text means; None if there is none, or more than one."""
        usable = {file.sha256: file for file in self.meant(text, kind) if file.usable}
        return next(iter(usable.values())) if len(usable) == 1 else None

    def resolve(
        self,
        text: str,
        kind: Kind = "checkpoint",
        *,
        first: str = "",
        is_offered: Callable[[Entry], bool] = lambda _: True,
        words: Sequence[str] | None = None,
    ) -> Entry:
        """Return the usable file of `kind` that `text` means: its name, file, path, hash or title, whatever the case.

        The end of its path from a folder on means it too, and so does the other name in its metadata. Empty means, of
        checkpoints alone, the one that `first` means, else the first by name. Raises Refused with the nearest
        names, or with the reason why the file cannot be used; NotLooked while the first scan goes on. A refusal offers
        only files that `is_offered` is true of, and `words` that mean a file too; default: those of the kind.
        """
        refused = partial(_refused, kind, words=words)
        usable = self.usable(kind, first=first)
        if usable and not text and kind == "checkpoint":  # only that has a default
            if not self.is_default_known(first=first):
                raise NotLooked(_EARLY)
            return usable[0]
        found = (self.meant(text, kind) or self.meant(text, "other")) if text else []
        fit = sorted((file for file in found if file.usable), key=lambda file: not is_offered(file))
        if len({file.sha256 for file in fit}) == 1:
            return fit[0]
        if fit:
            paths = ", ".join(file.path for file in fit[:_SHOWN])
            raise refused(f"{text!r} names {len(fit)} {KINDS[kind].label}s: {paths}", fit)
        if all(file.reason == GONE for file in found) and self.awaited_since:
            raise NotLooked(_EARLY)
        offered = list(filter(is_offered, usable))  # only here: a refusal may ask about every file
        if found:
            raise refused(f"{found[0].name} cannot be used: {found[0].reason}", offered)
        if not usable and kind == "checkpoint":
            raise refused(self._nothing_usable(), [])
        if file := self.elsewhere(text, kind):
            raise refused(f"{file.name} is {KINDS[file.kind].description}, not {KINDS[kind].description}", offered)
        raise refused(f"There is no {KINDS[kind].label} {text[:80]!r}", _alike(text, offered) or offered)

    def elsewhere(self, text: str, kind: Kind) -> Entry | None:
        """Return a file of another kind that `text` means; None: there is none."""
        others = (file for other in KINDS if other != kind for file in self.meant(text, other) if file.reason != GONE)
        return next(others, None)

    def vae_for(self, text: str, checkpoint: Entry) -> Entry | None:
        """Return the VAE file that the parameter `vae` means for a checkpoint; None: the one built into that.

        Automatic is the file beside the checkpoint, if there is one of the same latent space. Raises Refused, also
        where that cannot be used: another VAE would paint another picture.
        """

        def fits(vae: Entry) -> bool:
            return shares_latents(vae.architecture, checkpoint.architecture)

        there = {file.path: file for file in self.entries("vae") if fits(file)}
        paths = (f"{checkpoint.stem}.vae{suffix}" for suffix in KINDS["vae"].suffixes)
        beside = next((there[path] for path in paths if path in there), None)
        has_automatic = checkpoint.has_vae if beside is None else beside.usable
        words = [*([AUTOMATIC_VAE] if has_automatic else []), *([BUILT_IN_VAE] if checkpoint.has_vae else [])]
        if text not in {AUTOMATIC_VAE, BUILT_IN_VAE}:
            named = self.resolve(text, "vae", is_offered=fits, words=words)
            if fits(named):
                return named
            message = f"{named.described} cannot decode the latents of {checkpoint.described}"
        elif text in words:
            return beside if text == AUTOMATIC_VAE else None
        elif text == AUTOMATIC_VAE and beside is not None:
            message = f"{beside.path} beside the checkpoint cannot be used: {beside.reason}"
        else:
            stem = PurePosixPath(checkpoint.path).stem
            message = f"{checkpoint.name} has no VAE inside: name one, or lay {stem}.vae.safetensors beside it"
        raise _refused("vae", message, filter(fits, self.usable("vae")), words)

    def copies(self, sha256: str) -> list[Entry]:
        """Return the usable files of this SHA-256, by path.

        A hash that no file has means the one identity with these weights: images of an older version name weights.
        """
        named = [file for file in self.files if file.sha256 == sha256]
        described = [file for file in self.files if file.weights_sha256 == sha256 and file.sha256]
        if not named and len({file.sha256 for file in described}) == 1:
            named = described
        return sorted(file for file in named if file.usable)

    def _found(self, text: str, kind: Kind) -> Iterator[list[Entry]]:
        """Yield the files that a casefolded text means in each way that it may mean one, the surest way first.

        A whole title comes first, because the name of one file may be the title of another; then a name, then a hash.
        The hash of weights comes behind that, because several descriptions may share the same weights, and the hash in
        its metadata last, because its author wrote it.
        """
        files = self._of_kind.get(kind, [])
        titled, is_hash = _TITLE.fullmatch(text), _HASH.fullmatch(text)
        begins = titled["hash"] if titled else text
        if text.endswith("]"):
            yield [file for file in files if file.sha256 is not None and file.title.casefold() == text]
        yield self._called(kind, Entry.names).get(text, [])
        if "/" in (ending := text.replace("\\", "/")):
            yield self._called(kind, Entry.endings).get(ending, [])
        yield self._called(kind, Entry.aliases).get(text, [])
        if not (titled or is_hash):
            return
        yield [file for file in files if (file.sha256 or "").startswith(begins)]
        of_weights = [file for file in files if (file.weights_sha256 or "").startswith(begins)]
        by_metadata = [file for file in files if file.short_hash.startswith(begins)]
        for found in (of_weights, by_metadata):
            if titled:
                yield [file for file in found if titled["name"] in file.names() | file.endings() | file.aliases()]
            yield found

    @cached_property
    def has_usable(self) -> bool:
        """True if a checkpoint can be used."""
        return any(file.usable for file in self._of_kind.get("checkpoint", ()))

    @cached_property
    def worked_out(self) -> dict[Hashable, Any]:
        """What others have worked out of these files and want to have again, each under a key of its own."""
        return {}

    @cached_property
    def _of_kind(self) -> dict[Kind, list[Entry]]:
        kinds: dict[Kind, list[Entry]] = {}
        for file in self.files:
            kinds.setdefault(file.kind, []).append(file)
        return kinds

    @cached_property
    def _called(self) -> Callable[[Kind, Names], Mapping[str, list[Entry]]]:
        """Returns the files of a kind by one sort of their names: a prompt may name many."""

        @cache
        def called(kind: Kind, names: Names) -> Mapping[str, list[Entry]]:
            found = defaultdict[str, list[Entry]](list)
            for file in self._of_kind.get(kind, []):
                for name in names(file):
                    found[name].append(file)
            return found

        return called

    def _nothing_usable(self) -> str:
        """Return the message of a farm without checkpoints: the reason, and the remedy."""
        if files := self.entries():
            what = f"{files[0].name} cannot be used: {files[0].reason}"
        elif not self.has_workers:
            what = "no worker is alive to look for one; start one with `farm worker`"
        else:
            what = "none lies in the models folder"
        return f"The farm has no usable checkpoint yet: {what.removesuffix('.')}"


def name_in(text: str) -> str:
    """Return the name in a title; of any other text, the text itself."""
    titled = _TITLE.fullmatch(text)
    return titled["name"] if titled else text


def names_of(session: Session, sha256: str) -> list[str]:
    """Return what the files of this SHA-256 are called (`ModelPath.name`), in order."""
    named = select(ModelFile.path).where(ModelFile.sha256 == sha256).order_by(ModelFile.path)
    return list(session.scalars(named))


def names_by_hash(session: Session, hashes: Collection[str]) -> dict[str, str]:
    """Return what the files of these SHA-256 are called, also those that are gone."""
    named = select(ModelFile.sha256, func.min(ModelFile.name)).where(ModelFile.sha256.in_(hashes))
    rows = session.execute(named.group_by(ModelFile.sha256)) if hashes else ()
    return {sha256: name for sha256, name in rows if sha256}


def identity_of(session: Session, sha256: str) -> str:
    """Return the identity that an image means by a hash: the hash itself, or the one identity with these weights.

    Images of an older version name weights.
    """
    if session.scalar(select(ModelFile.path).where(ModelFile.sha256 == sha256).limit(1)) is not None:
        return sha256
    described = select(ModelFile.sha256).where(ModelFile.weights_sha256 == sha256, ModelFile.sha256.is_not(None))
    found = session.scalars(described.distinct().limit(2)).all()
    return found[0] if len(found) == 1 and found[0] else sha256


def upscalers(session: Session, hashes: Collection[str]) -> frozenset[str]:
    """Return which of these SHA-256 are those of upscalers."""
    found = select(ModelFile.sha256).where(ModelFile.kind == "upscaler", ModelFile.sha256.in_(hashes))
    return frozenset(filter(None, session.scalars(found)))


def is_lately() -> ColumnElement[bool]:
    """Return the condition that a file was last seen, or found gone, so recently that its disk may only be away."""
    return ModelFile.scanned_at > func.now() - _PATIENCE


def _alike(text: str, files: Sequence[Entry]) -> list[Entry]:
    """Return the files with the names nearest to a text, or to the name in a title."""
    close = {*nearest(name_in(text.casefold()), {file.name for file in files})}
    return [file for file in files if file.name in close]


def _refused(kind: Kind, message: str, accepted: Iterable[Entry], words: Sequence[str] | None = None) -> Refused:
    """Return a refusal that offers files, and words that mean a file too; default: those of the kind."""
    offered = [file.title for file in islice(accepted, _SHOWN)] or [KINDS[kind].accepted]
    choices = [*(KINDS[kind].words if words is None else words), *offered]
    return Refused(message + ".", (FieldError(kind, message, " or ".join(choices)),))
