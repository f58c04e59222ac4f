"""A user namespace for users that PostgreSQL refuses: root, and a user without a name."""

from __future__ import annotations

import os
import pwd
import subprocess

from cli.embedded.process import find_tool
from shared.errors import LauncherError


def prefix() -> list[str]:
    """Return what stands before PostgreSQL's command line: nothing for a normal user.

    A namespace and not another user: files stay their owner's and closed to all others, nothing is chowned, and
    binaries below a closed folder can still be read. Raises LauncherError where the machine forbids namespaces.
    """
    if os.geteuid() != 0 and _has_name():
        return []
    command = [find_tool("unshare"), "--user", "--map-user=65534", "--map-group=65534"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)  # noqa: S603
    if tried.returncode == 0:
        return command
    who = "root" if os.geteuid() == 0 else "a user without a name in /etc/passwd"
    raise LauncherError(
        f"PostgreSQL does not run as {who}, and this machine forbids the user namespace that would help "
        f"({tried.stderr.strip()}). Run the farm as a normal user, or set FARM_DATABASE_URL to a server of your own."
    )


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True
