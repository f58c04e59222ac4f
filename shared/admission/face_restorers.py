"""The face restorer that parameters name: a file of the catalogue, or refused with what would be right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from shared.errors import FieldError, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.models.kinds import KINDS
from shared.params.faces import CODEFORMER, Faces

_KIND: Final = "face-restorer"


class NamedRestorer(NamedTuple):
    """The file of a face restorer, or none, and what is wrong with its name and its options."""

    file: Entry | None
    problems: list[FieldError]


def named_restorer(catalogue: Catalogue, faces: Faces, at: str) -> NamedRestorer:
    """Return the face restorer of the options in the group `at`."""
    field = f"{at}.restorer"
    if not faces.restorer.strip():
        return NamedRestorer(None, [FieldError(field, "is empty", KINDS[_KIND].accepted)])
    try:
        file = by_family(catalogue, faces.restorer) or catalogue.resolve(faces.restorer, _KIND)
    except Refused as refused:
        return NamedRestorer(None, [replace(one, field=field) for one in refused.fields])
    return NamedRestorer(file, [*_without_effect(faces, file, at)])


def by_family(catalogue: Catalogue, text: str) -> Entry | None:
    """Return the last usable restorer, by name, of the architecture that `text` names; None: it names a file, or none.

    Other programs say no more than `GFPGAN`.
    """
    if catalogue.meant(text, _KIND):
        return None
    wanted = text.strip().casefold()
    files = (file for file in catalogue.usable(_KIND) if (file.details.algorithm or "").casefold() == wanted)
    return max(files, key=lambda file: (file.name.casefold(), file.path), default=None)


def _without_effect(faces: Faces, file: Entry, at: str) -> Iterator[FieldError]:
    if not faces.strength:
        yield FieldError(f"{at}.strength", "is 0, so no face would change", "a share above 0, or no faces at all")
    if file.details.algorithm != CODEFORMER and faces.fidelity != type(faces).model_fields["fidelity"].default:
        message = f"has no effect on {file.name}, which is a {file.details.algorithm or 'restorer of another kind'}"
        yield FieldError(f"{at}.fidelity", message, f"no fidelity, or a {CODEFORMER} as the restorer")
