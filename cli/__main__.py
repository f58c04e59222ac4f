"""`python -m cli`: the `farm` command where it is not installed."""

from __future__ import annotations

from cli.main import main

main()
