"""`farm storage adopt`: a person's word that a storage is this farm's, where the farm itself cannot tell."""

from __future__ import annotations

from cli import terminal
from shared.db.farm import farm_id
from shared.db.sessions import connect_once, sessions
from shared.errors import FieldError, Refused
from shared.maintenance.restored_database import keep_ids_ahead
from shared.media.storage import Storage
from shared.settings import Settings


def adopt(settings: Settings, *, yes: bool, as_json: bool) -> None:
    """Mark the storage as this farm's. Raises Refused where another farm's marker lies there, unless `yes`."""
    engine = connect_once(settings.database)
    try:
        factory = sessions(engine)
        mine, storage = farm_id(factory).value, Storage(settings.storage)
        theirs = storage.marker()
        if theirs not in {None, mine} and not yes:
            message = f"The storage {settings.storage} belongs to another farm: its marker names {theirs or 'nobody'}."
            raise Refused(
                message, (FieldError("--yes", "is missing", "--yes: that farm will store nothing there again"),)
            )
        storage.mark(mine)
        keep_ids_ahead(factory, storage)
    finally:
        engine.dispose()
    if as_json:
        terminal.answer_json({"storage": settings.storage, "farm": mine, "was": theirs})
    else:
        terminal.answer(f"The storage {settings.storage} is this farm's; waiting pictures are stored within seconds.")
