"""Loads on a card, as far as a pretended one shows them: where weights lie, what waits for what, and what is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread, current_thread
from weakref import ref

import pytest
import torch
from torch import Tensor

from shared.errors import ModelFileError, OutOfMemory, RenderError
from shared.params.render import RenderParams
from tests.support.card_ledger import Ledger
from tests.support.checkpoints import without_vae, write_tiny
from tests.support.conditioned import network
from tests.support.waiting import until
from worker.engine import devices, transfers
from worker.engine.answers.answer import answer
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import load as checkpoints
from worker.engine.loading import upload
from worker.engine.loading.converted import Converted
from worker.engine.loading.flat import Layout
from worker.engine.loading.host_cache import HostCache
from worker.engine.loading.loader import Loader
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import ToPixels

HALF = torch.float16
SMALL = 4096  # bytes: the table of positions, and what previews know
PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture
def ledger(pretended: Ledger) -> Iterator[Ledger]:
    pretended.clear()
    yield pretended
    torch.cuda.synchronize()
    assert pretended.errors == []


@pytest.fixture
def card(ledger: Ledger) -> Device:
    return devices.device("cuda:0")


@pytest.fixture
def loader(card: Device) -> Iterator[Loader]:
    loader = Loader(card)
    loader.start()
    yield loader
    loader.stop()


@pytest.fixture
def load(loader: Loader, card: Device, tiny_path: Path) -> Callable[..., Weights]:
    """Load the tiny checkpoint as a worker does; `on_converted` hears of its buffers."""

    def load(dtype: torch.dtype = HALF, **options: object) -> Weights:
        return loader.run(partial(checkpoints.load, tiny_path, card, dtype, **options))

    return load


def weights_of(weights: Weights) -> dict[str, Tensor]:
    return {f"{part}.{name}": one for part in PARTS for name, one in network(weights, part).state_dict().items()}


def assert_same(one: Weights, other: Weights) -> None:
    expected = weights_of(other)
    for name, weight in weights_of(one).items():
        assert torch.equal(weight.cpu(), expected[name].cpu()), name


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.nightly)])
def test_a_card_gets_what_a_cpu_gets_in_its_own_format_and_layout(
    load: Callable[..., Weights], tiny: Weights, dtype: torch.dtype
) -> None:
    loaded, expected = weights_of(load(dtype)), weights_of(tiny)
    assert loaded.keys() == expected.keys()
    for name, weight in loaded.items():
        form = torch.bfloat16 if name.startswith("vae") else dtype
        assert weight.is_cuda
        assert torch.equal(weight.cpu(), expected[name].to(form)), name
        if weight.dim() == 4:
            assert weight.is_contiguous(memory_format=torch.channels_last), name


def test_a_checkpoint_takes_its_buffers_and_next_to_nothing_else(load: Callable[..., Weights], ledger: Ledger) -> None:
    before, held = ledger.live, list[Converted]()
    weights = load(on_converted=held.append)
    buffers = sum(layout.bytes for layout in held[0].layouts.values())
    assert len(held[0].buffers) == 3
    assert buffers <= ledger.live - before < buffers + SMALL
    assert weights.bytes <= buffers < 1.01 * weights.bytes
    assert ledger.peak - before < buffers + 2 * weights.bytes + 2**21, (
        "a chunk in the file's format, and a tiny picture"
    )
    del weights, held
    until(lambda: ledger.live == before)


def test_loads_beside_pictures_make_no_thread_wait_that_serves_them(
    load: Callable[..., Weights], card: Device, ledger: Ledger
) -> None:
    weights, engine = load(), Engine(card)
    engine.start()
    ledger.clear()
    params = RenderParams(prompt="sea", checkpoint="tiny", width=64, height=64, steps=4, seed=3)
    runs = [engine.render(render(params.model_copy(update={"seed": seed}), Kit(weights))) for seed in range(2)]
    assert_same(load(), weights)
    loading = ledger.waits_of("loading")
    assert all(run.result(60).any() for run in runs)
    engine.stop()
    assert ledger.waits_of("engine") == []
    assert len(loading) <= 4, loading


def test_a_decode_in_float32_leaves_the_weights_in_their_buffer(
    load: Callable[..., Weights], card: Device, ledger: Ledger
) -> None:
    """As it goes where half precision fails: nothing of a checkpoint is made again, in pieces of memory of its own."""
    weights = load(torch.bfloat16)
    before, own = ledger.live, dict(weights.vae.named_parameters())
    request = ToPixels(weights, torch.zeros(4, 8, 8, device=card.torch), is_precise=True)
    (pixels,) = answer([request], is_exact=False)
    assert pixels.dtype == torch.float32
    del pixels, request
    after = dict(weights.vae.named_parameters())
    assert all(after[name].dtype == torch.bfloat16 and after[name] is own[name] for name in own)
    assert ledger.live == before


def test_the_engines_stream_is_told_before_it_uses_what_was_loaded(
    load: Callable[..., Weights], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pretended card is for: without that it says so."""
    monkeypatch.setattr(checkpoints, "hand_over", lambda *_: None)
    weights = load()
    weights.sample.clone()
    assert ledger.errors
    ledger.errors.clear()


def test_a_checkpoint_without_a_vae_loads_is_kept_and_comes_back(
    load: Callable[..., Weights], loader: Loader, card: Device, tmp_path: Path
) -> None:
    vae, path = load().vae, write_tiny(tmp_path / "bare.safetensors")
    without_vae(path)
    held, cache, key = list[Converted](), HostCache(2**30, card), ("bare", HALF)
    first = loader.run(partial(checkpoints.load, path, card, HALF, on_converted=held.append))
    for keeping in (
        lambda: cache.keep(key, lambda: held[0]),
        lambda: checkpoints.prefetch(path, card, HALF, cache, key),
    ):
        loader.run(lambda keeping=keeping: steps(keeping()))
        kept = cache.get(key)
        assert kept
        again = loader.run(partial(checkpoints.load_cached, path, kept, card))
        assert again.vae is None
        assert again.sample.device == first.sample.device == card.torch
        assert torch.equal(again.latent_rgb, first.latent_rgb)
        assert torch.equal(again.unet.conv_in.weight.cpu(), first.unet.conv_in.weight.cpu())
        cache.forget(key)
    engine = Engine(card)
    engine.start()
    params = RenderParams(prompt="sea", checkpoint="bare", width=64, height=64, steps=2, seed=3)
    picture = engine.render(render(params, Kit(again.with_vae(vae)))).result(60)
    engine.stop()
    assert picture.any()


# Memory after a failed load.


def fails_at(monkeypatch: pytest.MonkeyPatch, what: str, kind: type[Exception]) -> None:
    def breaks(*_: object) -> None:
        raise kind("what a card or a file may say")

    monkeypatch.setattr(checkpoints, what, breaks)


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        (torch.OutOfMemoryError, OutOfMemory),
        pytest.param(RuntimeError, ModelFileError, marks=pytest.mark.nightly),
        pytest.param(ModelFileError, ModelFileError, marks=pytest.mark.nightly),
    ],
)
def test_a_load_that_fails_leaves_nothing_on_the_card(
    load: Callable[..., Weights],
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    raised: type[RenderError],
) -> None:
    before = ledger.live
    for what in ("latent_rgb", "Tokenizer", "hand_over"):
        fails_at(monkeypatch, what, kind)
        with pytest.raises(raised) as caught:
            load()
        assert ledger.live == before, what
        del caught
        monkeypatch.undo()
    assert load().vae is not None


def test_a_card_without_room_says_so_and_keeps_what_it_has(
    load: Callable[..., Weights], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load()
    before = ledger.live
    for room in (2**18, 2**20, 3 * 2**20, 7 * 2**20):
        monkeypatch.setattr(ledger, "capacity", before + room)
        with pytest.raises(OutOfMemory, match=r"not enough memory for the checkpoint tiny\.safetensors"):
            load()
        assert ledger.live == before
    assert weights_of(weights)


def test_what_the_card_is_asked_for_is_told_before_it_is_asked(load: Callable[..., Weights], ledger: Ledger) -> None:
    before, told = ledger.live, list[tuple[int, int]]()
    weights = load(make_room=lambda needed: told.append((needed, ledger.live)))
    ((needed, live),) = told
    assert live == before
    assert ledger.peak - before <= needed + 2**20, "beside it a tiny picture of the VAE's"
    assert ledger.live - before < needed
    del weights


# Chunks.


@pytest.mark.parametrize("chunk_bytes", [64, 1000, 2**20])
def test_weights_of_every_form_go_through_chunks_of_every_size(
    card: Device, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(upload, "CHUNK_BYTES", chunk_bytes)
    numbers = torch.randn(5, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    weights = {
        "convolution": numbers,
        "product": numbers.flatten(1).half(),
        "turned": numbers.flatten(1).T,
        "one": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
        "long": torch.randn(400, generator=torch.Generator().manual_seed(1)).double(),
        "whole": torch.arange(12).reshape(3, 4),
        "odd": torch.ones(3, dtype=torch.bool),
        "last": numbers.contiguous(memory_format=torch.channels_last),
    }
    layout = Layout.of_weights(weights, HALF)
    buffer = torch.empty(layout.bytes, dtype=torch.uint8, device=card.torch)
    upload.upload(weights, layout.views(buffer), card)
    for name, view in layout.views(buffer).items():
        assert torch.equal(view.cpu(), weights[name].half()), name
    rows = [piece.source.nbytes for piece in upload.pieces(weights, layout.views(buffer), chunk_bytes)]
    assert max(rows) <= max(chunk_bytes, 7 * 3 * 3 * 4)
    assert ledger.errors == []


def test_a_layout_does_not_depend_on_the_order_of_the_weights() -> None:
    weights = {"b": torch.zeros(300), "a": torch.zeros(5, 7, 3, 3), "c": torch.zeros(0, 4), "d": torch.tensor(1.0)}
    layouts = [Layout.of_weights({name: weights[name] for name in order}, HALF) for order in ("abcd", "dcba", "bdac")]
    assert layouts[0] == layouts[1] == layouts[2]
    spans = sorted((at.start, at.start + math.prod(at.shape)) for at in layouts[0].places.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "no weight lies on another"
    assert all(at.start * HALF.itemsize % 256 == 0 for at in layouts[0].places.values())
    assert spans[-1][1] * HALF.itemsize <= layouts[0].bytes


def test_a_host_that_pins_nothing_loads_as_well(
    load: Callable[..., Weights], ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tiny: Weights
) -> None:
    monkeypatch.setattr(ledger, "pinnable", 0)
    weights = load()
    assert torch.equal(weights.unet.conv_in.weight.cpu(), tiny.unet.conv_in.weight.half())


# What the host keeps.


def steps(work: Iterator[None]) -> int:
    return sum(1 for _ in work)


@pytest.fixture
def held(load: Callable[..., Weights]) -> Converted:
    """The tiny checkpoint on the card."""
    found: list[Converted] = []
    load(on_converted=found.append)
    return found[0]


@pytest.fixture(params=[2**30, pytest.param(0, marks=pytest.mark.nightly)], ids=["pinned", "pageable"])
def pinnable(request: pytest.FixtureRequest, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes the host pins."""
    monkeypatch.setattr(ledger, "pinnable", request.param)
    return int(request.param)


def test_what_the_host_keeps_comes_back_as_it_was(
    loader: Loader, held: Converted, tiny_path: Path, tiny: Weights, pinnable: int
) -> None:
    card, expected = devices.device("cuda:0"), weights_of(tiny)
    cache = HostCache(2**30, card)
    loader.run(lambda: steps(cache.keep(("a", HALF), lambda: held)))
    loader.run(lambda: steps(checkpoints.prefetch(tiny_path, card, HALF, cache, ("b", HALF))))
    for name in ("a", "b"):
        kept = cache.get((name, HALF))
        assert kept
        assert all(buffer.is_pinned() is bool(pinnable) for buffer in kept.buffers.values())
        weights = loader.run(partial(checkpoints.load_cached, tiny_path, kept, card))
        for key, weight in weights_of(weights).items():
            form = torch.bfloat16 if key.startswith("vae") else HALF
            assert torch.equal(weight.cpu(), expected[key].to(form)), (name, key)
        assert torch.allclose(weights.latent_rgb, held.tables[0], atol=1e-5)
        assert weights.sample.is_cuda


def test_the_longest_unused_leaves_the_host_and_nothing_goes_past_its_bound(
    loader: Loader, card: Device, held: Converted, ledger: Ledger
) -> None:
    one = HostCache(2**40, card)
    loader.run(lambda: steps(one.keep(("a", HALF), lambda: held)))
    cache, pinned = HostCache(2 * one.bytes, card), sum(ledger.pinned.values())
    for name in "abacdca":
        loader.run(lambda name=name: cache.get((name, HALF)) or steps(cache.keep((name, HALF), lambda: held)))
        assert cache.bytes <= cache.most_bytes
        assert sum(ledger.pinned.values()) - pinned <= cache.most_bytes
    assert [name for name in "abcd" if (name, HALF) in cache] == ["a", "c"]
    small = HostCache(one.bytes - 1, card)
    assert loader.run(lambda: steps(small.keep(("a", HALF), lambda: held))) == 0
    assert small.bytes == 0


def test_what_is_given_up_on_the_way_was_never_kept(
    card: Device, held: Converted, tiny_path: Path, ledger: Ledger
) -> None:
    cache, pinned = HostCache(2**30, card), sum(ledger.pinned.values())
    for work in (
        cache.keep(("a", HALF), lambda: held),
        checkpoints.prefetch(tiny_path, card, HALF, cache, ("a", HALF)),
    ):
        next(work)
        next(work)
        work.close()
        del work
        assert ("a", HALF) not in cache
        assert sum(ledger.pinned.values()) == pinned
    assert cache.bytes == 0


def test_what_leaves_the_card_while_it_is_kept_is_let_go_at_once(
    card: Device, load: Callable[..., Weights], ledger: Ledger
) -> None:
    before, cache, on_card = ledger.live, HostCache(2**30, card), list[Converted]()
    load(on_converted=on_card.append)
    held = ref(on_card[0])
    work = cache.keep(("a", HALF), held)
    next(work)
    next(work)
    on_card.clear()
    assert held() is None
    until(lambda: ledger.live == before)
    assert steps(work) == 1
    assert ("a", HALF) not in cache


# The loader's thread.


def test_loads_go_one_after_the_other_on_one_thread_and_stream(loader: Loader) -> None:
    def where() -> tuple[str, int]:
        return current_thread().name, torch.cuda.current_stream().stream_id

    places = {loader.run(where) for _ in range(3)}
    assert len(places) == 1
    assert places != {where()}


def test_an_error_is_told_to_whoever_wants_the_load(loader: Loader) -> None:
    with pytest.raises(ModelFileError, match="torn"):
        loader.run(lambda: (_ for _ in ()).throw(ModelFileError("torn")))
    assert loader.run(lambda: 7) == 7


def test_spare_work_goes_on_between_loads_and_is_dropped_by_the_next(loader: Loader) -> None:
    done, closed, gate, begun = list[int](), Event(), Event(), Event()

    def spare(count: int) -> Iterator[None]:
        try:
            for number in range(count):
                done.append(number)
                yield
        finally:
            closed.set()

    loader.add_spare(spare(3))
    assert closed.wait(10)
    assert done == [0, 1, 2]
    closed.clear()
    loader.add_spare(spare(10**9))
    until(lambda: len(done) > 5)
    assert loader.run(closed.is_set)
    assert not loader.has_spare

    def hold() -> None:
        begun.set()
        gate.wait(10)

    Thread(target=loader.run, args=(hold,), daemon=True).start()
    begun.wait(10)
    loader.add_spare(spare(5))
    gate.set()
    until(lambda: not loader.has_spare)


def test_spare_work_that_breaks_fails_nobody(loader: Loader) -> None:
    def breaks() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    loader.add_spare(breaks())
    until(lambda: not loader.has_spare)
    assert loader.run(lambda: 7) == 7


def test_a_loader_that_has_stopped_says_so(card: Device) -> None:
    loader = Loader(card)
    loader.start()
    loader.stop()
    with pytest.raises(RenderError, match="stopped"):
        loader.run(lambda: 7)


@pytest.mark.parametrize("kind", [torch.AcceleratorError, torch.OutOfMemoryError])
def test_a_loader_whose_thread_fails_tells_everyone_why(
    card: Device, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    loader, gate = Loader(card), Event()

    def fails(_: Device) -> None:
        gate.wait(10)
        raise kind("no stream")

    monkeypatch.setattr(transfers, "own_stream", fails)
    loader.start()
    waiting = loader.ask(lambda: 7)
    loader.ask(lambda: 8).cancel()
    gate.set()
    with pytest.raises(kind, match="no stream"):
        waiting.result(10)
    with pytest.raises(kind, match="no stream"):
        loader.run(lambda: 7)
    loader.stop()


def test_a_load_that_nobody_wants_any_more_is_left_out(loader: Loader) -> None:
    gate, done = Event(), list[int]()
    first = loader.ask(lambda: gate.wait(10))
    second, third = loader.ask(lambda: done.append(2)), loader.ask(lambda: done.append(3))
    assert second.cancel()
    gate.set()
    third.result(10)
    assert first.result(10)
    assert done == [3]
