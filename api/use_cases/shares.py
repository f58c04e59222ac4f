"""The use cases of share links. As in `api.use_cases.jobs` each function opens its own transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.schemas.jobs import ImageBody, JobBody
from api.schemas.shares import ShareBody, ShareRequest, SharesBody
from api.services import Services
from api.use_cases import images
from api.use_cases.images import Stored
from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.principal import Principal, Role
from shared.accounts.scope import Scope
from shared.db.sessions import transact
from shared.db.states import ImageState
from shared.errors import NotFound
from shared.jobs import shares
from shared.media.storage import Kind
from shared.quantities import counted
from shared.queue import queries
from shared.queue.queries import MOST_IMAGES, Span


@dataclass(frozen=True)
class Shared:
    """What a link shows: a job, and those of its pictures that may be looked at."""

    job: JobBody
    pictures: tuple[ImageBody, ...]


def every(services: Services, who: Principal) -> SharesBody:
    """Return the owner's links that have not ended."""
    found = transact(services.sessions, lambda session: shares.every(session, who.owner))
    return SharesBody(shares=[ShareBody.of(one) for one in found])


def make(services: Services, who: Principal, wanted: ShareRequest, base: str) -> ShareBody:
    """Make a link and return it with its address, this once. Raises NotFound, Refused."""

    def make_it(session: Session) -> shares.Made:
        made = shares.make(session, who.owner, wanted.job, wanted.index, wanted.days)
        shown = f"job {wanted.job}" if wanted.index is None else f"image {wanted.index} of job {wanted.job}"
        detail = f"{shown}, {counted(wanted.days, 'day')}"
        audit.note(session, who, Action.SHARE_MADE, f"link {made.share.id}", whose=who.owner, detail=detail)
        return made

    return ShareBody.with_link(transact(services.sessions, make_it), base)


def revoke(services: Services, who: Principal, share_id: int) -> None:
    """End a link at once. Raises NotFound."""

    def revoke_it(session: Session) -> None:
        shares.revoke(session, who.owner, share_id)
        audit.note(session, who, Action.SHARE_REVOKED, f"link {share_id}", whose=who.owner)

    transact(services.sessions, revoke_it)


def shown(services: Services, token: str) -> Shared:
    """Return what a link shows. Raises NotFound."""
    share = transact(services.sessions, lambda session: shares.find(session, token))
    first = Span(limit=MOST_IMAGES, states=(ImageState.SUCCEEDED,))
    span = first if share.index is None else Span(share.index - 1, 1, (ImageState.SUCCEEDED,))
    view = transact(services.sessions, lambda session: queries.job(session, Scope(share.owner), share.job_id, span))
    body = JobBody.from_view(view)
    kept = (image for image in body.images if share.index in {None, image.index} and not image.deleted_at)
    return Shared(body, tuple(kept))


def stored(services: Services, token: str, index: int, kind: Kind) -> Stored:
    """Return a file of a picture that a link shows. Raises NotFound."""
    share = transact(services.sessions, lambda session: shares.find(session, token))
    if share.index not in {None, index}:
        raise NotFound("This link does not show that picture.")
    return images.stored(services, Principal(share.owner, Role.VIEWER), share.job_id, index, kind)
