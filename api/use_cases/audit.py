"""The use case of the audit log; as in `api.use_cases.jobs` it opens its own transaction."""

from __future__ import annotations

from api.schemas.audit import AuditBody
from api.services import Services
from shared.accounts import audit
from shared.db.sessions import transact


def listed(services: Services, owner: str | None, action: str | None, cursor: int | None, limit: int) -> AuditBody:
    """Return a page of what people did, or of deeds about one owner. That the role allows it is the route's rule."""
    lines = transact(services.sessions, lambda session: audit.listed(session, owner, action, cursor, limit + 1))
    return AuditBody.of(lines, limit)
