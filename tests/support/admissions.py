"""Jobs as they are admitted, for tests of what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from types import MappingProxyType

from sqlalchemy.orm import Session

from shared.admission.admit import admit, prepare
from shared.admission.parse import digest, parse
from shared.media.decode import PictureReader
from shared.models.catalogue import Catalogue
from shared.models.model_set import ModelSet
from shared.params.job_spec import Axis, AxisValue, changed
from shared.params.render import RenderParams
from shared.params.scheduling import Scheduling
from shared.prompts.styles import Style
from shared.queue.submit import Admission, Cell
from shared.settings import Limits

CHECKPOINT = "c" * 64


def admitted(
    session: Session,
    given: object,
    owner: str = "ann",
    styles: Mapping[str, Style] = MappingProxyType({}),
    picture_reader: PictureReader | None = None,
) -> Admission:
    """Return what becomes of a JSON object on a farm with the usual limits. Raises Refused."""
    return admit(session, prepare(parse(given, owner, Limits()), styles, picture_reader), Catalogue.read(session))


def admission(
    owner: str,
    params: RenderParams,
    *,
    models: ModelSet | None = None,
    asked: RenderParams | None = None,
    **scheduling: object,
) -> Admission:
    """Return the admission of complete parameters; `asked` are those of the request, before a seed was drawn."""
    wanted = Scheduling(**scheduling)
    return Admission(owner, params, models or ModelSet(checkpoint=CHECKPOINT), wanted, digest(asked or params, wanted))


def sweep(
    owner: str,
    params: RenderParams,
    values: Mapping[str, Sequence[object]],
    files: Mapping[str, ModelSet] = MappingProxyType({}),
    **scheduling: object,
) -> Admission:
    """Return the admission of a job with an axis for each of `values`; `files` are models by title of a checkpoint."""
    axes = [Axis(field=name, values=tuple(AxisValue(title=str(one)) for one in some)) for name, some in values.items()]
    changes = [dict(zip(values, place, strict=True)) for place in product(*values.values())]
    cells = [Cell(one, changed(params, one), files.get(str(one.get("checkpoint")))) for one in changes]
    whole = params.model_copy(update={"count": len(cells)})
    return replace(admission(owner, whole, **scheduling), axes=tuple(axes), cells=tuple(cells))
