"""The catalogue in memory: whether a file of it has changed is a shorter question than what all of them are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.models import first_scan
from shared.models.catalogue import Catalogue

# PostgreSQL writes the number of the transaction that made it into each row (xmin), so that every change is another
# version, by whichever process. A server that allows only the digests of FIPS 140 has no md5().
_NOW: Final = text(f"""
    SELECT (
               SELECT encode(sha256(convert_to(string_agg(xmin::text, ' ' ORDER BY path), 'UTF8')), 'hex')
               FROM model_files
           ) AS version,
           ({first_scan.AWAITED_SINCE}) AS awaited_since
""")  # noqa: S608 - a constant


@dataclass(frozen=True)
class _Kept:
    """The catalogue that was read while its files had this version, or were about to have a later one."""

    version: str | None
    catalogue: Catalogue


class KeptCatalogue:
    """The catalogue, read again only when it has changed. Safe for many threads."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def read(self, session: Session) -> Catalogue:
        """Return the catalogue as it is now, as `Catalogue.read` does."""
        version, awaited_since = session.execute(_NOW, first_scan.NAMES).one()
        kept = self._kept
        if kept is None or kept.version != version or not kept.catalogue.has_usable:
            kept = _Kept(version, Catalogue.read(session))
        elif kept.catalogue.awaited_since != awaited_since:
            kept = _Kept(version, replace(kept.catalogue, awaited_since=awaited_since))
        self._kept = kept
        return kept.catalogue
