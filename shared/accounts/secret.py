"""The secret that signs cookies, made once and kept where no setting names one."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from shared.errors import SettingsError


def kept_secret(home: Path) -> str:
    """Return the secret in `home`, made once: of processes that start at the same time, one makes it.

    Raises SettingsError if nothing can be stored.
    """
    try:
        secret_file = home / "secret"
        if not secret_file.exists():
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_secret(secret_file)
        return secret_file.read_text()
    except OSError as error:
        raise SettingsError(
            f"FARM_HOME={str(home)!r}: the secret that signs cookies cannot be kept there ({error.strerror}); "
            "make it writable, or set FARM_SECRET_KEY."
        ) from error


def _make_secret(secret_file: Path) -> None:
    """Make the file whole under its name, or leave the one that another process was first with."""
    draft = secret_file.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32))
    try:
        with suppress(FileExistsError):
            os.link(draft, secret_file)
    finally:
        draft.unlink()
