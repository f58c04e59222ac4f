"""The model files without which a job cannot be rendered: which of them are missing, and where to put them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import Final, NamedTuple, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.tables import ModelFile
from shared.models.catalogue import GONE
from shared.models.kinds import KIND_OF_TAG, KINDS, Kind
from shared.models.model_set import ModelSet
from shared.params.codecs import split_title
from shared.params.facts import ValueKind
from shared.params.paths import field_name
from shared.params.render import RenderParams
from shared.params.table import parameters
from shared.prompts.adapters import BadTag, used

_WITHOUT_FIELD: Final[dict[str, Kind]] = {"hires_vae": "vae"}
"""The kinds of files by roles that no field of the parameters names."""
_SHORT: Final = 10  # characters of a hash by which people know a file


class MissingFile(NamedTuple):
    """A model file of a job that no worker can load."""

    kind: Kind
    name: str  # as the catalogue has it, else as the job does; a short hash if neither knows
    sha256: str
    reason: str  # in words that follow the name

    @property
    def folder(self) -> str:
        """The folder of the models folder that it belongs into; empty: the models folder itself."""
        return KINDS[self.kind].folder

    @property
    def words(self) -> str:
        """Two sentences: what is wrong, and what to do."""
        folder = f"the folder {self.folder} of " if self.folder else ""
        remedy = f"Put the file that it was submitted with into {folder}the models folder (FARM_MODELS)."
        return f"Its {KINDS[self.kind].label} cannot be loaded: {self.name}{self.reason}. {remedy}"


class _Needed(NamedTuple):
    kind: Kind
    sha256: str
    name: str  # as the job has it; empty: it names the file by its hash alone


def missing(session: Session, models: ModelSet, params: RenderParams) -> tuple[MissingFile, ...]:
    """Return the files of a job that the catalogue does not have as usable ones, each once."""
    needed: dict[str, _Needed] = {}
    for one in _needed(models, params):
        needed.setdefault(one.sha256, one)
    columns = ModelFile.sha256, ModelFile.name, ModelFile.usable, ModelFile.reason
    rows = session.execute(select(*columns).where(ModelFile.sha256.in_(needed)).order_by(ModelFile.path)).all()
    found = {row.sha256 for row in rows if row.usable}
    known = {row.sha256: (row.name, row.reason or "") for row in rows}
    lost = [one for sha256, one in needed.items() if sha256 not in found]
    return tuple(_missing(session, one, *known.get(one.sha256, ("", GONE))) for one in lost)


def _missing(session: Session, needed: _Needed, name: str, reason: str) -> MissingFile:
    shown = name or needed.name or needed.sha256[:_SHORT]
    if reason != GONE:
        why = f": {reason.rstrip('.')}"
    elif _is_another(session, needed.kind, name or needed.name):
        why = " is another file than when the job was submitted"
    else:
        why = " is on no machine any more" if name else " is on no machine"
    return MissingFile(needed.kind, shown, needed.sha256, why)


def _is_another(session: Session, kind: Kind, name: str) -> bool:
    """Return whether a usable file of this kind has the name by which the job knows another one."""
    called = func.lower(ModelFile.name) == split_title(name)[0].lower()
    found = select(ModelFile.path).where(ModelFile.kind == kind, called, ModelFile.usable)
    return session.scalar(found.limit(1)) is not None


@cache
def kinds_of_roles() -> Mapping[str, Kind]:
    """Return the kind of the files of each role that a field of the parameters names, and of those without a field."""
    named = {one.takes.role: cast("Kind", one.takes.kind) for one in parameters().values() if one.takes.role}
    return named | _WITHOUT_FIELD


def _needed(models: ModelSet, params: RenderParams) -> Iterator[_Needed]:
    """Yield the files of a set with the names that the job has for them."""
    for role, kind in kinds_of_roles().items():
        files = getattr(models, role, None) or ()
        files, names = [files] if isinstance(files, str) else files, _named(role, kind, params)
        yield from (_Needed(kind, sha256, names[at] if at < len(names) else "") for at, sha256 in enumerate(files))
    for key, sha256 in models.adapters.items():
        tag, _, name = key.partition(":")
        if tag in KIND_OF_TAG:  # a newer version may know more of them
            yield _Needed(KIND_OF_TAG[tag], sha256, name)
    merged = [name for tag, name in _tags(params) if tag == "lora" and f"{tag}:{name}" not in models.adapters]
    yield from (_Needed("lora", one.sha256, " or ".join(merged)) for one in models.merges)
    for path, sha256 in models.embeddings.items():
        yield _Needed("embedding", sha256, PurePosixPath(path).stem)


def _named(role: str, kind: Kind, params: RenderParams) -> Sequence[str]:
    """Return what parameters say in the fields of a role, in the order of its files."""
    fields = {one.name for one in parameters().values() if one.takes.role == role}
    return [
        text for path, text in params.of_kind(cast("ValueKind", kind)).items() if field_name(path) in fields and text
    ]


def _tags(params: RenderParams) -> list[tuple[str, str]]:
    """Return kind and name of each tag in the prompts of both passes, each once."""
    try:
        return list(
            dict.fromkeys((use.kind, use.name) for text in params.of_kind("prompt").values() for use in used(text))
        )
    except BadTag:
        return []
