"""`python -m tests.support.stub_worker`: the worker as it is, with the stub card."""

from __future__ import annotations

from functools import partial

from tests.support.stub_card import StubCard
from worker.__main__ import end, main
from worker.process import run_worker

if __name__ == "__main__":
    end(main(module="tests.support.stub_worker", run_worker=partial(run_worker, make_card=StubCard)))
