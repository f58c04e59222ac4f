"""`python -m tests.stub_worker`: the worker as it is, with the stub card."""

from __future__ import annotations

import sys
from functools import partial

from tests.stub_card import StubCard
from worker.__main__ import main
from worker.process import work

if __name__ == "__main__":
    sys.exit(main(module="tests.stub_worker", work=partial(work, make_card=StubCard)))
