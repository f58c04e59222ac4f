"""`python -m api.cli`: the `farm` command where it is not installed."""

from __future__ import annotations

from api.cli.main import main

main()
