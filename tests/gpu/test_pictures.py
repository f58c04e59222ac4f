"""Pictures of all kinds on a card: what the CPU paints, in company what they are alone, and exact anywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import company
from bench.company import Job
from shared.errors import RenderError
from tests.gpu.rehearsal import Afternoon, jobs
from tests.support.card_ledger import Ledger
from tests.support.checkpoints import write_tiny
from worker.engine.devices import device
from worker.engine.pipelines.render import Picture

pytestmark = pytest.mark.gpu

CARD = "cuda:0"
ILLEGAL_ADDRESS = 700  # CUDA's code of an error that leaves a process nothing but to end


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")


@pytest.fixture(scope="module")
def kinds() -> list[Job]:
    """One job of each kind, none exact."""
    mixed = [job for job in jobs(16) if not job.params.exact]
    return [next(job for job in mixed if job.kind == kind) for kind in company.KINDS]


def painted(path: Path, card: str, dtype: torch.dtype, mixed: list[Job], in_flight: int = 1) -> list[Picture]:
    with Afternoon(path, device(card), dtype) as afternoon:
        found = afternoon.together(mixed, in_flight)
    pictures = [one for one in found if isinstance(one, np.ndarray)]
    assert len(pictures) == len(mixed), found
    return pictures


def decibels(some: list[Picture], others: list[Picture]) -> list[float]:
    return [company.distance(*pair).psnr for pair in zip(some, others, strict=True)]


def test_pictures_of_all_kinds_are_in_float32_what_the_cpu_paints(tiny_path: Path, kinds: list[Job]) -> None:
    expected = painted(tiny_path, "cpu", torch.float32, kinds)
    found = painted(tiny_path, CARD, torch.float32, kinds)
    assert min(decibels(expected, found)) > 30


@pytest.mark.nightly
def test_pictures_of_all_kinds_are_in_company_nearly_what_they_are_alone(tiny_path: Path, kinds: list[Job]) -> None:
    """Half precision rounds by how many rows share a call: on a card, not where it is pretended."""
    alone = painted(tiny_path, CARD, torch.float16, kinds)
    together = painted(tiny_path, CARD, torch.float16, kinds, in_flight=len(kinds))
    assert min(decibels(alone, together)) > 25


def exact_sum(path: Path) -> str:
    """Return the SHA-256 of an exact picture's pixels."""
    job, *_ = (job for job in jobs(16) if job.params.exact)
    (picture,) = painted(path, CARD, torch.float16, [job])
    return hashlib.sha256(picture.tobytes()).hexdigest()


@pytest.mark.nightly
def test_an_exact_picture_is_the_same_to_the_bit_in_another_process(tiny_path: Path) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from tests.support import pretended_card;"
        "torch.cuda.is_available() or pretended_card.install();"
        "from tests.gpu.test_pictures import exact_sum; print(exact_sum(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(tiny_path)]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert child.stdout.split()[-1:] == [exact_sum(tiny_path)], child.stderr


@pytest.fixture
def lost(pretended: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A card that fails for good at the first convolution."""

    def fail(name: str, _: object) -> None:
        if name == "convolution":
            error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            error.error_code = ILLEGAL_ADDRESS
            raise error

    monkeypatch.setattr(pretended, "on_kernel", fail)
    return pretended


def test_a_lost_card_ends_its_engine_and_all_its_pictures_say_so(
    tiny_path: Path, kinds: list[Job], pretended: Ledger, request: pytest.FixtureRequest
) -> None:
    with Afternoon(tiny_path, device(CARD), torch.float16) as afternoon:
        request.getfixturevalue("lost")
        found = afternoon.together(kinds[:1] * 3)
        assert [isinstance(one, RenderError) for one in found] == [True] * 3
        assert "the card was lost" in str(found[0])
        assert not afternoon.engine.is_running
