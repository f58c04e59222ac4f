"""An upload as Replicate's clients see a file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from api.schemas.jobs import UploadBody, upload_link


class FileBody(BaseModel):
    """A picture to start from."""

    id: str
    name: str
    content_type: str = "image/png"
    size: int
    etag: str
    checksums: dict[str, str]
    metadata: dict[str, Any] = {}
    created_at: datetime
    expires_at: datetime | None = Field(None, description="Null: it is kept while jobs use it, and some days more.")
    urls: dict[str, str]

    @classmethod
    def from_upload(cls, upload: UploadBody, name: str, root: str) -> Self:
        """Return the file that an upload is; links begin with `root`."""
        return cls(
            id=upload.id,
            name=name,
            size=upload.bytes,
            etag=upload.id,
            checksums={"sha256": upload.id},
            created_at=datetime.now(UTC),
            urls={"get": f"{root}{upload_link(upload.id)}"},
        )
