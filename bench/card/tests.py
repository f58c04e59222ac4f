"""Part 2: the tests that want a card, and what of the engine only a card can show to be right."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from threading import current_thread
from typing import Final

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench import company
from bench.card import children, files, rendering
from bench.card.bench import Bench, Setting
from bench.card.packages import ROOT
from shared.prompts.tokenizer import TOKENS
from worker.engine.answers.calls import Calls
from worker.engine.answers.denoising import denoise
from worker.engine.architectures.weights import Weights
from worker.engine.loading import load
from worker.engine.requests import Denoise, Term
from worker.engine.sampling import philox

TESTS: Final = ROOT / "tests" / "gpu"
# These want a database's libraries, or a pretended card; part 3 holds pictures against each other by itself.
LEFT_OUT: Final = ("test_pictures.py", "test_planted_mistakes.py", "test_rehearsal.py")
CHUNKS: Final = (1, 2, 3)
HEADS: Final = (40, 80, 160)  # widths of Stable Diffusion 1's
ROUNDING: Final = 0.02  # of what the network says, from other kernels for other shapes
ATTENTION_ROUNDING: Final = 0.01  # of values of unit deviation


def run(bench: Bench) -> None:
    """Check values, and run the tests beside it."""
    with children.helper(bench, run_pytest) as tests:
        _values(bench)
        bench.now("pytest tests/gpu")
        _tests(bench, tests)


def _values(bench: Bench) -> None:
    bench.now("masked attention")
    _attention(bench)
    bench.now("padded contexts")
    weights = load.load(files.full(bench.setting), bench.card, torch.float16)
    _padding(bench, weights)
    bench.now("portable noise")
    _noise(bench)
    bench.now("all kinds of pictures, and who waits for the card")
    _kinds(bench)


def _attention(bench: Bench) -> None:
    """A row among longer ones gets what it gets by itself, for each width of a head."""
    for width in HEADS:
        worst = max(_attention_error(bench, width, chunks) for chunks in CHUNKS)
        bench.at_most(ATTENTION_ROUNDING, f"masked attention, heads of {width}: largest error", worst)


def _attention_error(bench: Bench, width: int, chunks: int) -> float:
    generator = torch.Generator().manual_seed(width + chunks)
    cells, real, longest = 64, chunks * TOKENS, max(CHUNKS) * TOKENS
    query, key, value = (torch.randn(1, 2, length, width, generator=generator) for length in (cells, longest, longest))
    wanted = scaled_dot_product_attention(query, key[:, :, :real], value[:, :, :real])
    bias = torch.zeros(1, 1, 1, longest)
    bias[..., real:] = -10_000.0
    on_card = [one.to(bench.card.torch, torch.float16) for one in (query, key, value)]
    mask = bias.to(bench.card.torch, torch.float16).expand(1, 2, cells, longest)
    found = scaled_dot_product_attention(*on_card, attn_mask=mask)
    return float((found.float().cpu() - wanted).abs().max())


@torch.inference_mode()
def _padding(bench: Bench, weights: Weights) -> None:
    """The U-Net's answer to a row is the same alone and padded among longer contexts."""
    requests = [_denoise(bench, weights, chunks) for chunks in CHUNKS]
    together = denoise(requests, is_exact=False, calls=Calls(halves=False))
    for chunks, request, found in zip(CHUNKS, requests, together, strict=True):
        (alone,) = denoise([request], is_exact=False, calls=Calls(halves=False))
        error = _relative(request.x, alone, found)
        bench.at_most(ROUNDING, f"{chunks * TOKENS} tokens, padded against alone", error)


def _relative(x: Tensor, alone: object, found: object) -> float:
    """How far two answers are apart, as a share of what the network said."""
    for answer in (alone, found):
        if isinstance(answer, Exception):
            raise answer
    assert isinstance(alone, Tensor)
    assert isinstance(found, Tensor)
    return float(((alone - found).norm() / (alone - x).norm()).cpu())


def _denoise(bench: Bench, weights: Weights, chunks: int) -> Denoise:
    generator = torch.Generator().manual_seed(chunks)
    cells, blank = weights.native_size // weights.latent.cell, weights.architecture.blank(weights.unet)
    shape = (chunks * blank.chunk, blank.context.shape[1])
    context = torch.randn(shape, generator=generator).to(blank.context)
    x = torch.randn(4, cells, cells, generator=generator).to(bench.card.torch)
    return Denoise(weights, x, 1.0, (Term(1.0, replace(blank, context=context)),), 1, 10)


def _noise(bench: Bench) -> None:
    """Portable noise is what a card draws by itself."""
    if bench.setting.pretends:
        bench.note("portable noise against the card's own", "a pretended card draws none")
        return
    shape, seed = (4, 64, 64), 1234
    drawn = torch.randn(
        shape, generator=torch.Generator(bench.setting.card).manual_seed(seed), device=bench.setting.card
    )
    apart = float((drawn.cpu() - torch.from_numpy(philox.normals(seed, 0, shape))).abs().max())
    bench.at_most(1e-5, "portable noise against the card's own", apart)


def _kinds(bench: Bench) -> None:
    """Every kind comes out in half precision, and the engine's thread waits for the card nowhere."""
    checkpoints = {company.NAME: load.load(files.demonstration(bench.setting), bench.card, torch.float16)}
    jobs = company.mix(min(16, bench.scale.jobs), 1, sides=bench.scale.job_sides, most_steps=bench.scale.job_steps)
    with rendering.serving(bench.card, halves=False) as engine:
        first = jobs[: bench.scale.repeats]  # these load kernels, which waits
        company.together(engine, checkpoints, first, 4)
        with waits_of_the_engine() as waits:
            pictures = company.together(engine, checkpoints, jobs, 8)
    flat = sum(int(picture.min() == picture.max()) for picture in pictures)
    bench.check(
        "text, img2img, inpainting, hires, tiled", not flat, f"{len(pictures) - flat} of {len(jobs)}", "all of them"
    )
    said = ", ".join(sorted(set(waits))) or "nowhere"
    bench.check("where the engine's thread waits for the card", not waits, said, "nowhere")


@contextmanager
def waits_of_the_engine() -> Iterator[list[str]]:
    """Yield a list that grows by the place of each wait of an engine's thread for the card, as torch reports them."""
    found: list[str] = []

    def tell(message: object, _: object, filename: str, line: int, *__: object, **___: object) -> None:
        if "synchronizing CUDA operation" in str(message) and current_thread().name.startswith("engine cuda"):
            found.append(f"{Path(filename).name}:{line}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = tell
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _tests(bench: Bench, tests: children.Helper) -> None:
    status, text = tests.answer(bench)
    lines = text.strip().splitlines() or [""]
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            bench.now(line)
    bench.check("pytest tests/gpu", status == 0, lines[-1].strip("= "), "all pass")


class _Card:
    """Stands for the conftest that is not read."""

    @pytest.fixture(scope="module")
    def pretended(self) -> None:
        """A test for a pretended card alone is skipped on a real one."""
        pytest.skip("for a pretended card")


def run_pytest(setting: Setting, pipe: Connection) -> None:
    """Run tests/gpu in this process; send the status and what it printed.

    No conftest above is read: it wants servers.
    """
    children.enter(setting)
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(ROOT), "--confcutdir", str(TESTS)]
    options += [f"--ignore={TESTS / name}" for name in LEFT_OUT]
    if setting.pretends:  # make test runs them; here it is whether they can be found without its servers
        options += ["--collect-only"]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and to import what is installed takes seconds
    with redirect_stdout(StringIO()) as printed:
        status = pytest.main([*options, str(TESTS)], plugins=[_Card()])
    pipe.send((int(status), printed.getvalue()))
