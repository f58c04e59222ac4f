"""The first day with a card, rehearsed on a pretended one: nothing is mixed, waits where it must not, or stays."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import company
from bench.company import Job
from shared.errors import Cancelled, RenderError
from shared.params.controlnet import ControlUnit
from shared.params.groups import Refiner
from tests.gpu.rehearsal import CANCELLED, FAILING, Afternoon, Outcome, jobs
from tests.support import control_nets, controlled, ip_adapters, small_checkpoints
from tests.support.card_ledger import Ledger
from tests.support.checkpoints import write_inpainting, write_tiny
from tests.support.small_checkpoints import KINDS
from worker.engine.devices import device
from worker.engine.loading import load as checkpoints
from worker.engine.loading.loader import Loader
from worker.engine.pipelines.inputs import ControlInput

pytestmark = [pytest.mark.gpu, pytest.mark.nightly]

READERS = {"engine work", "engine work reads", "preview"}
ASLEEP = {
    "engine/transfers.py:read_into": "what a thread brings to the host, beside the engine's stream",
    "engine/transfers.py:_after": "what a read had begun when it failed",
}
"""Where these threads may wait for the card: nowhere else, and there they sleep."""

LOADS = {
    "engine/images/previews.py:latent_rgb": "what the map of previews is fitted to",
    "engine/images/previews.py:sample": "the known picture",
}
"""Where the loader's thread may wait, on the stream of its own."""

PACED = {"engine/transfers.py:Pace.turn"}
"""Where the engine's thread may wait for the end of an earlier turn."""


BY_DAY = {("sdxl", torch.bfloat16)}  # the refiner takes over from SDXL in float16
"""The kinds of small checkpoints, and their formats, that every run of the tests renders."""


@pytest.fixture
def ledger(pretended: Ledger) -> Iterator[Ledger]:
    """The ledger. In the end nothing is on the card that was not there before, though nobody looked for garbage."""
    gc.collect()
    pretended.settle()
    pretended.clear()
    before = pretended.live
    gc.disable()
    yield pretended
    live = pretended.live
    gc.enable()
    gc.collect()
    assert live == before


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")


@pytest.fixture(scope="module")
def inpainting_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inpainting(tmp_path_factory.mktemp("checkpoints") / "inpainting.safetensors")


def rehearsed(
    path: Path, dtype: torch.dtype, mixed: list[Job], card: str = "cuda:0", refiner: Path | None = None
) -> list[Outcome]:
    with Afternoon(path, device(card), dtype, refiner) as afternoon:
        found = afternoon.beside_a_load(mixed)
        assert afternoon.previews
    return found


def assert_sound(ledger: Ledger, found: list[Outcome]) -> None:
    """All pictures came out, and nothing on the way would have failed on a card, or waited where it must not."""
    assert [one for one in found if isinstance(one, Exception)] == []
    assert ledger.errors == []
    assert ledger.waits_of("engine") == []
    places = {entry.place for entry in ledger.waits}
    assert {place.partition(" <- ")[0] for place in places} <= LOADS.keys()
    assert {entry.thread for entry in ledger.waits} <= {"loading"}
    waited = {entry for entry in ledger.notes if entry.what.startswith("waits for an event")}
    assert {entry.place for entry in waited if entry.thread in READERS} <= ASLEEP.keys()
    assert {entry.what for entry in waited if entry.thread != "engine"} <= {"waits for an event, asleep"}
    notes = {entry for entry in ledger.notes if entry.thread == "engine"}
    assert {entry.place for entry in notes if entry.what.startswith("waits for an event")} <= PACED
    assert not [entry for entry in notes if "pageable" in entry.what]


@pytest.mark.parametrize("count", [len(company.KINDS), pytest.param(8, marks=pytest.mark.nightly)])
def test_jobs_of_all_kinds_in_flight_in_half_precision(ledger: Ledger, tiny_path: Path, count: int) -> None:
    assert_sound(ledger, rehearsed(tiny_path, torch.float16, jobs(count)))


def assert_painted_as_on_a_cpu(ledger: Ledger, path: Path, mixed: Callable[[Afternoon], list[Job]]) -> None:
    """Pictures in float16 are soundly made, and are what the CPU paints, as far as the format holds: decibels."""

    def found_on(card: str, dtype: torch.dtype) -> list[Outcome]:
        with Afternoon(path, device(card), dtype) as afternoon:
            return afternoon.together(mixed(afternoon))

    found = found_on("cuda:0", torch.float16)
    assert_sound(ledger, found)
    expected = found_on("cpu", torch.float32)
    apart = [company.distance(*pair).psnr for pair in zip(expected, found, strict=True)]
    assert min(apart) > 30, apart


def test_pictures_that_fail_or_are_cancelled_leave_nothing_behind(ledger: Ledger, tiny_path: Path) -> None:
    first, *_ = jobs(1)
    mixed = [Job(kind, first.params) for kind in (FAILING, CANCELLED, first.kind)]
    failed, cancelled, picture = rehearsed(tiny_path, torch.float16, mixed)
    assert isinstance(failed, RenderError)
    assert isinstance(cancelled, Cancelled)
    assert_sound(ledger, [picture])


def test_memory_of_an_evicted_checkpoint_is_given_away_only_after_its_last_step(
    ledger: Ledger, tiny_path: Path
) -> None:
    loader, load = Loader(device("cuda:0")), partial(checkpoints.load, tiny_path, device("cuda:0"), torch.float16)
    loader.start()
    weights = loader.run(load)
    x = torch.zeros(1, 4, 8, 8, device="cuda:0", dtype=torch.float16)
    weights.unet.conv_in(x)  # which nobody waits for
    del weights, x
    loader.run(load)
    loader.stop()
    assert ledger.errors == []


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("dtype", "least", "median"), [(torch.float32, 50, 60), (torch.float16, 14, 30), (torch.bfloat16, 10, 22)], ids=str
)
def test_all_samplers_in_all_formats(
    ledger: Ledger, tiny_path: Path, dtype: torch.dtype, least: float, median: float
) -> None:
    """They are what the CPU paints too, as far as the format holds: decibels."""
    mixed = jobs(24)
    found = rehearsed(tiny_path, dtype, mixed)
    assert_sound(ledger, found)
    expected = rehearsed(tiny_path, torch.float32, mixed, "cpu")
    apart = sorted(company.distance(*pair).psnr for pair in zip(expected, found, strict=True))
    assert apart[0] > least
    assert apart[len(apart) // 2] > median


@pytest.mark.nightly
def test_a_checkpoint_for_inpainting_in_half_precision(ledger: Ledger, inpainting_path: Path) -> None:
    mixed = [job for job in jobs(16) if job.kind != "hires"]
    assert_sound(ledger, rehearsed(inpainting_path, torch.float16, mixed))


def architecture_cases() -> Iterator[object]:
    """Yield each kind of small checkpoint with each half precision; only a few of them by day."""
    for kind in KINDS:
        for dtype in (torch.float16, torch.bfloat16):
            marks = () if (kind, dtype) in BY_DAY else pytest.mark.nightly
            yield pytest.param(kind, dtype, marks=marks, id=f"{kind} in {str(dtype).removeprefix('torch.')}")


def jobs_of_all_kinds() -> list[Job]:
    """One job of each kind, guided and in tiles among them, the first with a long prompt."""
    mixed = jobs(16)
    return [next(job for job in mixed if job.kind == kind) for kind in company.KINDS]


@pytest.mark.parametrize(("kind", "dtype"), [*architecture_cases()])
def test_every_architecture_in_both_half_precisions(
    ledger: Ledger, small_file: Callable[[str], Path], kind: str, dtype: torch.dtype
) -> None:
    assert_sound(ledger, rehearsed(small_file(kind), dtype, jobs_of_all_kinds()))


@pytest.mark.nightly
@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 30), (torch.bfloat16, 20)], ids=str)
@pytest.mark.parametrize("kind", ["sdxl", "sdxl-velocity", "sd2-velocity"])
def test_other_architectures_paint_in_half_precision_what_the_cpu_paints(
    ledger: Ledger, small_file: Callable[[str], Path], kind: str, dtype: torch.dtype, least: float
) -> None:
    """As far as the format holds: decibels."""
    sound = [job for job in jobs_of_all_kinds() if job.kind != "hires"]
    found = rehearsed(small_file(kind), dtype, sound)
    expected = rehearsed(small_file(kind), torch.float32, sound, "cpu")
    apart = [company.distance(*pair).psnr for pair in zip(expected, found, strict=True)]
    assert min(apart) > least, apart


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_the_refiner_of_sdxl_takes_over_on_a_card(
    ledger: Ledger, small_file: Callable[[str], Path], dtype: torch.dtype
) -> None:
    (job,) = jobs(1)
    refiner = Refiner(checkpoint="refiner", switch_at=0.5)
    mixed = [Job(job.kind, job.params.model_copy(update={"steps": 4, "refiner": one})) for one in (refiner, None)]
    found = rehearsed(small_file("sdxl"), dtype, mixed, refiner=small_file("sdxl-refiner"))
    assert_sound(ledger, found)
    assert company.distance(*found).psnr < 60, "only the refiner differs"


@pytest.mark.nightly
def test_pictures_with_adapters_of_their_own_share_calls_on_a_card(
    ledger: Ledger, small_file: Callable[[str], Path]
) -> None:
    tags = ("", "<lora:0>", "<lora:1:-0.5>", "<lora:0:0.3> <lora:2:1.5>", "<lora:2:te=1:unet=0@0,1@1:dyn=3>")
    job = next(one for one in jobs(8) if one.kind == "text to image")
    plain = {"steps": 3, "sampler": "Euler", "cfg_scale": 3.0, "tiling": "none"}
    params = [job.params.model_copy(update={**plain, "prompt": f"sea {tag}"}) for tag in tags]

    def mixed(afternoon: Afternoon) -> list[Job]:
        adapters = afternoon.adapters(4, 4, 9)
        return [Job(job.kind, one, adapters=adapters) for one in params]

    assert_painted_as_on_a_cpu(ledger, small_file("sdxl"), mixed)


@pytest.mark.nightly
def test_pictures_with_learned_words_and_hypernetworks_share_calls_on_a_card(
    ledger: Ledger, small_file: Callable[[str], Path], tmp_path: Path
) -> None:
    job = next(one for one in jobs(8) if one.kind == "text to image")
    plain = {"steps": 2, "sampler": "Euler", "cfg_scale": 3.0, "tiling": "none"}
    prompts = ("sea", "an ink sea", "sea <hypernet:haze:0.8>", "ink sea <hypernet:haze:-0.5>")
    params = [job.params.model_copy(update={**plain, "prompt": prompt}) for prompt in prompts]

    def mixed(afternoon: Afternoon) -> list[Job]:
        adapters = afternoon.learn(tmp_path)
        return [Job(job.kind, one, adapters=adapters) for one in params]

    assert_painted_as_on_a_cpu(ledger, small_file("sd1"), mixed)


@pytest.mark.nightly
def test_pictures_with_control_nets_of_their_own_share_calls_on_a_card(
    ledger: Ledger, small_file: Callable[[str], Path], tmp_path: Path
) -> None:
    base = small_checkpoints.build("sdxl")
    plain = control_nets.write(control_nets.build(base), tmp_path / "plain")
    union = control_nets.write(control_nets.build_union(base), tmp_path / "union")
    job = next(one for one in jobs(8) if one.kind == "text to image")
    changes = {"steps": 3, "sampler": "Euler", "cfg_scale": 3.0, "tiling": "none", "prompt": "sea"}
    params = job.params.model_copy(update=changes)
    picture = controlled.picture(params, 0)

    def mixed(afternoon: Afternoon) -> list[Job]:
        nets = {"plain": afternoon.control_net(plain), "union": afternoon.control_net(union)}

        def unit(name: str, **how: object) -> ControlInput:
            options = ControlUnit.model_validate({"model": name, "picture": "0" * 64, "weight": 0.5, **how})
            return ControlInput(options, nets[name], picture)

        edges = unit("plain", preprocessor="canny", mode="control")
        sets = [
            (),
            (unit("plain"),),
            (edges, unit("union", shows="depth")),
            (unit("union", shows="pose", end=0.5),),
        ]
        return [Job(job.kind, params, controls=one) for one in sets]

    assert_painted_as_on_a_cpu(ledger, small_file("sdxl"), mixed)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_pictures_with_image_prompts_of_their_own_share_calls_on_a_card(
    ledger: Ledger, small_file: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    base = small_checkpoints.build(kind)
    eyes = ip_adapters.write_encoder(ip_adapters.encoder(), tmp_path / "eyes")
    forms = ("plain", "plus", "full")
    files = {form: ip_adapters.write(ip_adapters.build(base, form), tmp_path / form) for form in forms}
    job = next(one for one in jobs(8) if one.kind == "text to image")
    changes = {"steps": 3, "sampler": "Euler", "cfg_scale": 3.0, "tiling": "none", "prompt": "sea"}
    params = job.params.model_copy(update=changes)

    def mixed(afternoon: Afternoon) -> list[Job]:
        prompts = {
            form: afternoon.image_prompt(files[form], eyes, controlled.picture(params, at), weight=0.5, end=0.7)
            for at, form in enumerate(forms)
        }
        plain, plus, full = (prompts[form] for form in forms)
        sets = [(), (plain,), (plus,), (plus, plain), (full,), (plain, plain)]
        return [Job(job.kind, params, ip_adapters=one) for one in sets]

    assert_painted_as_on_a_cpu(ledger, small_file(kind), mixed)


def test_a_vae_is_never_in_float16_on_a_card(small_file: Callable[[str], Path], pretended: Ledger) -> None:
    loader, card = Loader(device("cuda:0")), device("cuda:0")
    load = partial(checkpoints.load, small_file("sdxl"), card, torch.float16)
    loader.start()
    assert next(loader.run(load).require_vae().parameters()).dtype == torch.bfloat16
    loader.stop()
