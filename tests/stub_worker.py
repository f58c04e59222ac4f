"""`python -m tests.stub_worker`: the worker as it is, with the stub card."""

from __future__ import annotations

import sys

from tests.stub_card import StubCard
from worker.__main__ import main

if __name__ == "__main__":
    sys.exit(main(module="tests.stub_worker", make_card=StubCard))
