"""Names of pools: a pool is a tag on workers and jobs."""

from __future__ import annotations

import re
from typing import Final

DEFAULT_POOL: Final = "default"  # of jobs and workers that name no other
POOL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
POOL_NAMES: Final = "up to 32 small letters, digits, - and _, such as large-cards"
