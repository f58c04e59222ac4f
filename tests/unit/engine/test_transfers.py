"""Reads from a card: off the engine's stream and thread, asleep, once a picture. On the pretended card."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.params.groups import Hires
from shared.params.img2img import Img2Img
from shared.params.render import RenderParams
from tests.support import card_time
from tests.support.card_ledger import Ledger
from tests.support.checkpoints import fitting_decoder, plain_sample
from tests.support.waiting import until
from worker.engine import devices, vae
from worker.engine.answers.pixels import to_pixels
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.images import previews
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Step
from worker.engine.pipelines import denoise_pass
from worker.engine.pipelines.film import Reel, developed
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import Picture, render
from worker.engine.requests import ToPixels, Work
from worker.engine.transfers import beside, fetched
from worker.engine.vae import decoded, encoded
from worker.progress import preview_queue
from worker.progress.preview_queue import PreviewQueue
from worker.render.preview_decoders import PreviewDecoders

SECONDS = 120
ASLEEP = "waits for an event, asleep"
READERS = "engine work reads"


@pytest.fixture(scope="module")
def card(pretended: Ledger) -> Device:
    return devices.device("cuda:0")


@pytest.fixture(scope="module")
def half(tiny_path: Path, card: Device) -> Weights:
    return load.load(tiny_path, card, torch.float16)


@pytest.fixture
def ledger(pretended: Ledger) -> Iterator[Ledger]:
    """A card on which nothing goes wrong."""
    pretended.settle()
    pretended.clear()
    yield pretended
    assert pretended.errors == []


@pytest.fixture
def engine(card: Device) -> Iterator[Engine]:
    engine = Engine(card)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def few(params: RenderParams) -> RenderParams:
    """A picture of two steps, where only its reads are looked at."""
    return params.model_copy(update={"steps": 2})


def sleeps(ledger: Ledger) -> Counter[str]:
    """How often a thread slept until the card was there, by the thread."""
    return Counter({entry.thread: times for entry, times in ledger.notes.items() if entry.what == ASLEEP})


def of_readers(ledger: Ledger) -> int:
    return sum(times for entry, times in ledger.notes.items() if entry.thread == READERS and entry.what == ASLEEP)


def rendered(engine: Engine, weights: Weights, params: RenderParams, **more: Any) -> Picture:
    picture: Picture = engine.render(render(params, Kit(weights, **more))).result(SECONDS)
    return picture


def noise(height: int, width: int) -> Tensor:
    """A latent on the card, sent there without waiting."""
    latent = torch.randn((4, height, width), generator=torch.Generator().manual_seed(3))
    return latent.to("cuda:0", non_blocking=True)


def on(thread: str, work: Callable[[], Any]) -> Any:
    """What `work` returns on a thread of this name."""
    found: list[Any] = []
    other = Thread(target=lambda: found.append(work()), name=thread)
    other.start()
    other.join(SECONDS)
    return found[0]


# Pictures.


def test_a_picture_is_waited_for_once_asleep_and_off_the_engines_thread(
    engine: Engine, half: Weights, few: RenderParams, ledger: Ledger
) -> None:
    picture = rendered(engine, half, few)
    assert picture.shape == (64, 64, 3)
    assert not ledger.waits
    assert of_readers(ledger) == 1


def test_it_is_the_picture_that_lies_on_the_card(engine: Engine, half: Weights, ledger: Ledger) -> None:
    latent = noise(8, 6)
    (pixels,) = to_pixels([ToPixels(half, latent)])
    assert isinstance(pixels, Tensor)
    expected = np.rint((pixels.cpu().numpy().clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    picture = engine.render(decoded(half, latent)).result(SECONDS)
    assert np.array_equal(picture, expected)


def test_each_way_through_the_vae_is_waited_for_once(
    engine: Engine, half: Weights, few: RenderParams, ledger: Ledger
) -> None:
    source = np.zeros((64, 64, 3), np.uint8)
    painted_over = few.model_copy(update={"img2img": Img2Img(picture="a" * 64, denoising=0.5)})
    rendered(engine, half, painted_over, source=source)
    assert (of_readers(ledger), len(ledger.waits)) == (2, 0)  # there and back
    ledger.clear()
    larger = few.model_copy(update={"steps": 1, "hires": Hires(scale=1.5, upscaler="Lanczos", denoising=0.5)})
    rendered(engine, half, larger)
    assert (of_readers(ledger), len(ledger.waits)) == (3, 0)


def test_tiles_are_not_waited_for(
    engine: Engine, half: Weights, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae, "LARGEST_AREA", 192 * 192)
    monkeypatch.setattr(vae, "TILE_SIDE", 192)
    picture = engine.render(decoded(half, noise(32, 28))).result(SECONDS)
    assert picture.shape == (256, 224, 3)
    assert not ledger.waits
    assert of_readers(ledger) == 1


def test_a_picture_is_not_lost_where_there_is_room_for_its_steps_but_not_for_its_decoding(
    engine: Engine, half: Weights, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae, "SMALLER_SIDES", (256, 160))
    monkeypatch.setattr(vae, "OVERLAP", 64)
    params = RenderParams(prompt="sea", checkpoint="tiny", width=256, height=224, steps=1, cfg_scale=1, seed=7)
    expected = rendered(engine, half, params)
    whole = ledger.peak - ledger.live
    monkeypatch.setattr(ledger, "capacity", ledger.live + whole * 3 // 4)
    picture = rendered(engine, half, params)
    assert ledger.ooms == 1
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(float) - expected).mean() < 30, "tones differ, places do not"
    assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.9


def fill_at(step: str, ledger: Ledger, left_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have others take the card's memory except for `left_bytes` when a step of decoding comes to it."""
    original = getattr(vae, step)

    def filled(given: Any, *more: Any, **options: Any) -> Any:
        if (given if isinstance(given, Tensor) else given[0]).is_cuda:
            monkeypatch.setattr(ledger, "capacity", ledger.live + left_bytes)
        return original(given, *more, **options)

    monkeypatch.setattr(vae, step, filled)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above 96 x 96 pixels goes through the VAE in tiles."""
    monkeypatch.setattr(vae, "LARGEST_AREA", 96 * 96)
    monkeypatch.setattr(vae, "TILE_SIDE", 96)
    monkeypatch.setattr(vae, "OVERLAP", 32)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("step", "side"), [("joined", 16), ("levels", 16), ("levels", 8)])
def test_a_decoded_picture_for_which_there_is_no_room_any_more_is_finished_on_the_host(
    engine: Engine,
    half: Weights,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step: str,
    side: int,
) -> None:
    latent = noise(side, side)
    expected = engine.render(decoded(half, latent)).result(SECONDS)
    fill_at(step, ledger, 0, monkeypatch)
    picture = engine.render(decoded(half, latent)).result(SECONDS)
    assert ledger.ooms == 1
    assert np.abs(picture.astype(int) - expected).max() <= 1
    assert not ledger.waits


@pytest.mark.usefixtures("small_tiles")
def test_a_latent_whose_tiles_cannot_be_joined_on_the_card_is_joined_on_the_host(
    engine: Engine, half: Weights, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise(128, 128)[:3]
    expected = engine.render(encoded(half, pixels)).result(SECONDS)
    fill_at("joined", ledger, expected.nbytes, monkeypatch)
    found = engine.render(encoded(half, pixels)).result(SECONDS)
    assert found.is_cuda
    assert ledger.ooms == 2, "while it was joined, and while its values were looked at"
    torch.testing.assert_close(found.cpu(), expected.cpu())


def test_the_pictures_of_a_film_are_waited_for_once_each(
    engine: Engine, half: Weights, params: RenderParams, ledger: Ledger
) -> None:
    reel = Reel()
    engine.render(render(params, Kit(half)), on_step=reel.take).result(SECONDS)
    ledger.clear()
    pictures = engine.render(developed(Kit(half), "none", reel.shots())).result(SECONDS)
    assert of_readers(ledger) == len(pictures) == 3
    assert not ledger.waits


def test_a_read_waits_for_no_work_on_the_host(engine: Engine, half: Weights, ledger: Ledger) -> None:
    """However many images draw their noise: their threads are others."""
    closed = Event()

    def busy() -> Any:
        yield Work(lambda: closed.wait(SECONDS))

    runs = [engine.render(busy()) for _ in range(100)]
    try:
        assert engine.render(decoded(half, noise(8, 8))).result(SECONDS).shape == (64, 64, 3)
        assert not any(run.done for run in runs)
    finally:
        closed.set()


def test_what_fails_beside_the_engine_is_left_only_when_the_card_is_done_with_it(card: Device, ledger: Ledger) -> None:
    def fail(given: Tensor) -> None:
        given.mul(2)
        raise ArithmeticError

    def tried() -> None:
        given = torch.ones(1024, device="cuda:0")
        read = beside(card, partial(fail, given))
        del given
        with suppress(ArithmeticError):
            read()

    tried()
    torch.ones(1024, device="cuda:0")  # may be given the same memory: the ledger would tell
    assert not ledger.waits


def test_a_read_sees_what_was_queued_before_it_and_leaves_pinned_memory_to_others(card: Device, ledger: Ledger) -> None:
    value = torch.arange(4, device="cuda:0").float() * 2
    read = beside(card, lambda: fetched(value + 1))
    value.add(5)  # queued later
    found = on("reader", read)
    assert found.tolist() == [1, 3, 5, 7]
    assert not found.is_pinned()
    assert not ledger.waits


@pytest.mark.parametrize(("is_beside", "turns"), [(True, 2), (False, 3)])
def test_a_read_stands_behind_no_turn_that_the_engine_queued_later(
    card: Device, ledger: Ledger, *, is_beside: bool, turns: int
) -> None:
    """A picture made behind two turns is there after two, though a thread has time for it only in the second one."""
    turn = 0.121
    with card_time.running(ledger, busy=card_time.Turns(turn)) as clock:
        pixels = torch.ones(3, 512, 512, dtype=torch.uint8, device="cuda:0")
        read = partial(fetched, pixels)
        if is_beside:
            read = beside(card, read)
        clock.spend(1.5 * turn)
        read()
        assert clock.now() == pytest.approx(turns * turn, rel=0.1)


def test_where_the_host_pins_no_more_a_read_is_slower_and_the_same(
    engine: Engine, half: Weights, few: RenderParams, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rendered(engine, half, few)
    monkeypatch.setattr(ledger, "pinnable", 0)
    assert np.array_equal(rendered(engine, half, few), expected)
    assert {entry.thread for entry in ledger.waits} == {READERS}


def test_on_a_cpu_nothing_is_copied(cpu: Device) -> None:
    value = torch.ones(3)
    read = beside(cpu, lambda: fetched(value))
    assert read() is value


# Previews.


@pytest.fixture
def previewer(tmp_path: Path, card: Device) -> PreviewDecoders:
    """One that knows a decoder of latents which are the colours themselves."""
    path = tmp_path / "decoder.safetensors"
    save_file(fitting_decoder(plain_sample()), path)
    files: Any = SimpleNamespace(decoders=lambda: ["d"], find=lambda *_: SimpleNamespace(path=path))
    decoder: Future[nn.Module] = Future()
    decoder.set_result(load.load_decoder(path, card, torch.float16))
    return PreviewDecoders(files, lambda _: decoder, 3600)


def test_a_preview_sleeps_and_is_made_beside_the_renders(
    half: Weights, card: Device, previewer: PreviewDecoders, ledger: Ledger
) -> None:
    denoised, half = noise(8, 8), replace(half, sample=plain_sample().to("cuda:0"))
    maps = PreviewDecoders(None, lambda _: Future(), 3600)
    mapped = on("preview", beside(card, partial(maps.picture, denoised, half), "previews"))
    assert mapped.shape == (8, 8, 3)
    first = on("preview", beside(card, partial(previewer.picture, denoised, half), "previews"))  # tries the decoder
    ledger.clear()
    again = on("preview", beside(card, partial(previewer.picture, denoised, half), "previews"))
    assert again.shape == (64, 64, 3)
    assert np.array_equal(first, again)
    assert not ledger.waits
    assert sleeps(ledger) == {"preview": 1}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PreviewQueue, list[bytes]]]:
    """The queue of previews, which rests for an hour after its first one, and the previews that it showed."""
    monkeypatch.setattr(preview_queue, "SECONDS", 3600.0)
    shown: list[bytes] = []
    stage = PreviewQueue(lambda *told: shown.append(told[-1]))
    stage.start()
    yield stage, shown
    stage.stop()


@pytest.fixture
def _no_cycles_found() -> Iterator[None]:
    """Objects in a cycle stay, as they may for minutes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def previewed(engine: Engine, weights: Weights, params: RenderParams, stage: PreviewQueue, by: PreviewDecoders) -> None:
    """Render a picture whose steps are shown."""
    claim: Any = SimpleNamespace(job_id=1, index=0)

    def show(step: Step) -> None:
        stage.put(claim, beside(weights.device, partial(by.picture, step.denoised, weights), "previews"))

    engine.render(render(params, Kit(weights)), on_step=show).result(SECONDS)
    stage.drop(claim)


@pytest.mark.usefixtures("_no_cycles_found")
@pytest.mark.parametrize(
    ("decodes", "breaks"),
    [pytest.param(False, False, marks=pytest.mark.nightly), (True, False), (False, True)],
    ids=["mapped", "decoded", "failed"],
)
def test_a_checkpoint_leaves_the_card_at_once_after_previews(
    params: RenderParams,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    *,
    decodes: bool,
    breaks: bool,
) -> None:
    engine, (stage, shown), ledger = (request.getfixturevalue(name) for name in ("engine", "stage", "ledger"))
    by = request.getfixturevalue("previewer") if decodes else PreviewDecoders(None, lambda _: Future(), 3600)
    monkeypatch.setattr("worker.render.preview_decoders.LEAST_FIT", -1e9)
    by.picture(noise(8, 8), request.getfixturevalue("half"))  # tries the decoder, which stays
    made: list[object] = []
    plain = previews._bytes

    def bytes_of(pixels: Tensor) -> Any:
        made.append(None)
        return 1 / 0 if breaks else plain(pixels)

    monkeypatch.setattr(previews, "_bytes", bytes_of)
    before = ledger.live
    weights = load.load(request.getfixturevalue("tiny_path"), engine.device, torch.float16)
    previewed(engine, weights, params, stage, by)
    until(lambda: made)
    del weights
    until(lambda: ledger.live == before)
    assert bool(shown) is not breaks


# Noise, which goes the other way.


def drawn(weights: Weights, params: RenderParams) -> denoise_pass.Draws:
    """The noise of a picture, its work done here."""
    asks = denoise_pass.drawn(denoise_pass.planned(params, weights))
    work = next(asks)
    try:
        asks.send(work.function() if isinstance(work, Work) else None)
    except StopIteration as end:
        return end.value
    raise AssertionError("noise asks for one thing")


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE"])
def test_of_all_noise_of_a_picture_little_is_pinned_at_a_time(
    half: Weights, tiny: Weights, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """Pinned memory comes in powers of two and never goes back to the system."""
    draw_bytes = 4 * 8 * 8 * 4
    monkeypatch.setattr(denoise_pass, "PINNED_BYTES", 4 * draw_bytes)
    many = RenderParams(prompt="sea", checkpoint="tiny", width=64, height=64, steps=12, seed=7, sampler=sampler)
    on_card, expected = drawn(half, many), drawn(tiny, many)
    queries = denoise_pass.planned(many, tiny).plan.queries
    assert len(queries) >= 11
    assert torch.equal(on_card.first.cpu(), expected.first)
    for query in queries:
        assert torch.equal(on_card.step(*query).cpu(), expected.step(*query))
        torch.cuda.synchronize()
        assert sum(ledger.pinned.values()) <= 2 * denoise_pass.PINNED_BYTES
    assert {entry.what for entry in ledger.notes} == set()  # no copy of pageable memory among it


@pytest.mark.parametrize("sampler", ["DPM adaptive", "Euler a", "DPM++ SDE"])
def test_noise_of_a_large_picture_is_not_waited_for(half: Weights, ledger: Ledger, sampler: str) -> None:
    """More than 64 KiB of pageable memory a driver copies by itself, and may wait for the card's queue with that."""
    params = RenderParams(prompt="sea", checkpoint="tiny", width=768, height=512, steps=3, seed=7, sampler=sampler)
    draws = drawn(half, params)
    assert draws.step(2.0, 1.0).nbytes > 64 * 1024
    assert not ledger.waits
    assert not ledger.notes


def test_a_draw_larger_than_a_block_is_pinned_by_itself(
    half: Weights, params: RenderParams, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoise_pass, "PINNED_BYTES", 100)
    draws = drawn(half, params.model_copy(update={"sampler": "Euler a"}))
    assert sum(ledger.pinned.values()) == 4 * 8 * 8 * 4
    assert draws.step(1.0, 0.5).shape == (4, 8, 8)
