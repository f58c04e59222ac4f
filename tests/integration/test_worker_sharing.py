"""Checkpoints that hold equal networks: in memory once, counted once, and each picture as if it was alone."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from weakref import WeakSet, ref

import numpy as np
import pytest
import structlog.testing
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shared.db.sessions import transact
from shared.errors import ModelFileAway
from shared.models.catalogue import Catalogue
from shared.models.components import Component
from shared.queue.claim import Claim
from tests.support import small_checkpoints
from tests.support.card_ledger import Ledger
from tests.support.checkpoints import write_twin
from tests.support.rendering import Farm, as_in_every_farm, paint
from tests.support.waiting import until
from worker.engine.architectures.weights import Weights, network_bytes
from worker.engine.loading import load as checkpoints
from worker.engine.loading.sharing import Resident
from worker.engine.loop.engine import Engine
from worker.engine.loop.grouping import shared_by
from worker.engine.loop.runs import Ask, Run
from worker.engine.requests import Embed
from worker.in_flight import Cancellation
from worker.render.engine_card import EngineCard
from worker.render.model_cache import Model
from worker.render.shared_networks import SharedNetworks
from worker.supervisor.gpus import Address

MIB = 2**20
STEPS = 2


@pytest.fixture
def farm(settings, sessions) -> Farm:
    """Return a farm with two checkpoints that have only their U-Nets for themselves, and one of its own."""
    made = Farm(settings.models, sessions)
    as_in_every_farm(write_twin(settings.models / "twin.safetensors", settings.models / "base.safetensors"))
    return made


@pytest.fixture
def start(settings, sessions, monkeypatch) -> Iterator[Callable[..., EngineCard]]:
    monkeypatch.setattr(Engine, "warm_up", lambda *_: None)
    cards: list[EngineCard] = []

    def start(address: str = "cpu:0", **changed: object) -> EngineCard:
        card = Address(address, "GPU-1" if address.startswith("cuda") else "")
        cards.append(EngineCard(card, settings.model_copy(update=changed), sessions, lambda: None))
        return cards[-1]

    yield start
    for card in cards:
        card.stop()


@pytest.fixture
def claims(farm, sessions) -> dict[str, Claim]:
    """An image of each checkpoint, by name."""
    base = farm.claim()
    entries = transact(sessions, Catalogue.read).entries()
    stored = base.stored | {"steps": STEPS}
    return {file.name: replace(base, checkpoint=file.sha256, stored=stored) for file in entries}


def _vae_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the VAE in a checkpoint's file as a file of its own holds it."""
    prefix = "first_stage_model."
    whole = load_file(checkpoint)
    return {name.removeprefix(prefix): one for name, one in whole.items() if name.startswith(prefix)}


def resident(card: EngineCard) -> dict[Model, dict[str, int]]:
    """Return the bytes of each network of each model that is loaded."""
    return {model: dict(card._residency.networks(model)) for model in card._model_cache.models()}


def test_two_checkpoints_have_one_text_encoder_and_one_vae_which_count_once(start, claims):
    card = start()
    paint(card, claims["base"])
    alone = card._resident_bytes()
    paint(card, claims["twin"])
    first, second = resident(card).values()
    (unet,) = first.keys() - second.keys()
    assert [(one.kind, one.bytes) for one in card.models()] == [
        ("checkpoint", sum(first.values())),
        ("checkpoint", sum(second.values())),
    ]
    assert len(first.keys() & second.keys()) == 2
    assert card._resident_bytes() == alone + first[unet] < 1.2 * alone
    with card._model_cache.use(
        [Model("checkpoint", claims[name].checkpoint) for name in ("base", "twin")], Cancellation()
    ) as held:
        base, twin = held.values()
        assert base.vae is twin.vae
        assert base.text_encoders[0].network is twin.text_encoders[0].network
        assert base.unet is not twin.unet
        assert len(base.module_bytes().keys() | twin.module_bytes().keys()) == 4
        asks = [Ask(Run((_ for _ in ()), on_cancel=lambda _: None), 0, Embed(weights, ())) for weights in held.values()]
        assert shared_by(asks[0]) == shared_by(asks[1]), "their texts share calls of the encoder"
    paint(card, claims["refiner"])
    assert not resident(card)[Model("checkpoint", claims["refiner"].checkpoint)].keys() & first.keys()


@pytest.mark.nightly
def test_two_checkpoints_of_sdxl_have_both_text_encoders_and_the_vae_once(start, farm, settings, sessions):
    one, other = (small_checkpoints.build("sdxl", seed) for seed in (0, 1))
    write_file, write_folder = small_checkpoints.write_file, small_checkpoints.write_folder
    write_file(one, settings.models / "xl-base.safetensors")
    write_file(replace(one, unet=other.unet), settings.models / "xl-twin.safetensors")
    write_folder(replace(one, unet=other.unet), settings.models / "xl-folder")
    claim, card = farm.claim(), start()
    entries = {file.name: file.sha256 for file in transact(sessions, Catalogue.read).entries()}
    for name in ("xl-base", "xl-twin", "xl-folder"):
        paint(card, replace(claim, checkpoint=entries[name], stored=claim.stored | {"steps": 2}))
    base, twin, folder = resident(card).values()
    assert len(base) == len(twin) == len(folder) == 4
    assert len(base.keys() & twin.keys() & folder.keys()) == 3
    shared = sum(base[network] for network in base.keys() & twin.keys())
    together = {**base, **twin, **folder}
    assert (
        card._resident_bytes()
        == sum(together.values())
        == sum(map(sum, (base.values(), twin.values(), folder.values()))) - 2 * shared
    )


def test_a_picture_is_the_same_whether_its_checkpoint_shares_networks_or_not(start, claims, monkeypatch):
    names = ("base", "twin", "refiner")
    with monkeypatch.context() as patch:
        patch.setattr("worker.render.shared_networks.WeakValueDictionary.get", lambda *_: None)
        alone = start()
        expected = {name: paint(alone, claims[name]) for name in names}
    card = start()
    tiled = {name: replace(claims[name], stored=claims[name].stored | {"tiling": "both"}) for name in names}
    wanted = [claim for _ in range(2) for name in names for claim in (claims[name], tiled[name])]
    around = {name: paint(alone, tiled[name]) for name in names}
    with ThreadPoolExecutor(6) as slots:
        pictures = list(slots.map(lambda claim: paint(card, claim), wanted))
    for place, picture in enumerate(pictures):
        name = names[place % 6 // 2]
        assert np.array_equal(picture, (around if place % 2 else expected)[name]), (place, name)


def test_the_vae_of_another_file_is_the_one_that_a_checkpoint_holds(start, farm, claims, settings, sessions):
    save_file(_vae_of(settings.models / "base.safetensors"), settings.models / "equal.vae.safetensors")
    card, claim = start(), farm.claim(vae="equal.vae")
    claim = replace(claim, stored=claim.stored | {"steps": STEPS})
    built_in = paint(card, claims["base"])
    before = card._resident_bytes()
    assert np.array_equal(paint(card, claim), built_in)
    assert len(card._model_cache.models()) == 2
    assert card._resident_bytes() == before


def test_a_checkpoint_takes_over_its_vae_from_another_file_that_came_first(start, farm, settings, sessions):
    path = small_checkpoints.write_file(small_checkpoints.build("sd1"), settings.models / "small.safetensors")
    save_file(_vae_of(path), settings.models / "alone.vae.safetensors")
    card, with_vae = start(), farm.claim(vae="alone.vae")
    paint(card, with_vae)
    entries = {file.name: file.sha256 for file in transact(sessions, Catalogue.read).entries()}
    with structlog.testing.capture_logs() as logs:
        paint(card, replace(with_vae, checkpoint=entries["small"], stored=with_vae.stored | {"vae": "none"}))
    assert [one["shared"] for one in logs if one["event"] == "model loaded"] == [["vae"]]


def test_what_is_shared_stays_while_one_of_them_does_and_then_leaves(start, claims, pretended: Ledger):
    gc.collect()
    pretended.clear()
    before = pretended.live
    card = start("cuda:0", resident_bytes=2**40, host_cache_bytes=2**30)
    paint(card, claims["base"])
    until(lambda: not card._loads._loader.has_spare)
    one = pretended.live - before
    paint(card, claims["twin"])
    until(lambda: not card._loads._loader.has_spare)
    assert pretended.live - before < 1.3 * one, "a U-Net, and nothing else, came to it"
    card._residency.budget = lambda: 0
    twin = paint(card, claims["twin"])
    paint(card, claims["refiner"])
    until(lambda: pretended.live - before < one + MIB, what="the two others to leave the card")
    assert np.array_equal(paint(card, claims["twin"]), twin), "from the host's memory"
    until(lambda: not card._loads._loader.has_spare)
    assert np.array_equal(paint(card, claims["twin"]), twin)
    assert pretended.errors == []


def test_the_host_keeps_a_checkpoint_right_that_took_over_networks_of_another_form(
    start, farm, settings, sessions, pretended: Ledger
):
    small = small_checkpoints.build("sd1")
    small_checkpoints.write_file(small, settings.models / "one.safetensors")
    small_checkpoints.write_folder(small, settings.models / "two")
    claim = farm.claim()
    entries = {file.name: file.sha256 for file in transact(sessions, Catalogue.read).entries()}
    quick = claim.stored | {"steps": 2, "cfg_scale": 1.0}
    one, two = (replace(claim, checkpoint=entries[name], stored=quick) for name in ("one", "two"))
    card = start("cuda:0", resident_bytes=2**40, host_cache_bytes=2**30)
    with structlog.testing.capture_logs() as logs:
        expected = paint(card, one)
        first = paint(card, two)
        until(lambda: not card._loads._loader.has_spare)
        card._drop_unused()
        again = paint(card, two)
    loads = [one for one in logs if one["event"] == "model loaded"]
    assert [one["origin"] == "host cache" for one in loads] == [False, False, True]
    assert {"text_encoder", "vae"} <= set(loads[1]["shared"])
    assert np.array_equal(first, expected)
    assert np.array_equal(again, expected)
    assert pretended.errors == []


def test_what_a_model_shares_with_the_one_that_leaves_for_it_is_not_read_again(start, claims):
    card = start(resident_bytes=0)
    paint(card, claims["base"])
    with card._model_cache.use([Model("checkpoint", claims["base"].checkpoint)], Cancellation()) as held:
        (base,) = held.values()
        encoder, vae, unet = ref(base.text_encoders[0].network), ref(base.vae), ref(base.unet)
    del base, held
    with structlog.testing.capture_logs() as logs:
        paint(card, claims["twin"])
    assert [one["shared"] for one in logs if one["event"] == "model loaded"] == [["text_encoder", "vae"]]
    assert card.resident() == [claims["twin"].checkpoint]
    gc.collect()
    assert encoder() is not None
    assert vae() is not None
    assert unet() is None
    paint(card, claims["refiner"])
    gc.collect()
    assert (encoder(), vae()) == (None, None)


def test_an_estimate_counts_numbers_in_the_format_that_the_card_computes_in(start, claims, settings):
    card, model = start(), Model("checkpoint", claims["base"].checkpoint)
    card._loads.weigh(model)
    estimated = card._residency.bytes_of([model])
    size = (settings.models / "base.safetensors").stat().st_size
    assert 1.9 * size < estimated < 2.1 * size, "the file is float16, and a CPU computes in float32"
    paint(card, claims["base"])
    assert card._residency.bytes_of([model]) == estimated


@pytest.mark.parametrize("cycles", [4, pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])])
def test_switches_between_three_checkpoints_keep_no_network_of_those_that_left(start, claims, cycles):
    card = start(resident_bytes=0)
    order = [claims[name] for name in ("base", "twin", "refiner")]
    networks: WeakSet[nn.Module] = WeakSet()
    for cycle in range(cycles):
        claim = order[cycle % 3]
        with card._model_cache.use([Model("checkpoint", claim.checkpoint)], Cancellation()) as held:
            (weights,) = held.values()
            networks.update([weights.unet, weights.vae, *(encoder.network for encoder in weights.text_encoders)])
            del held, weights
            if cycle % 4 == 0:
                paint(card, replace(claim, stored=claim.stored | {"steps": 1, "cfg_scale": 1.0}))
        assert card.resident() == [claim.checkpoint]
        gc.collect()
        assert len(networks) == 3, "those of the checkpoint that is here"
        assert card._resident_bytes() == sum(network_bytes(network) for network in networks)


def test_a_file_that_is_replaced_during_its_load_leaves_nothing_to_take_over(start, claims, settings, monkeypatch):
    card, path, real = start(), settings.models / "base.safetensors", checkpoints.load

    def load(read: Path, *rest: object) -> Weights:
        if read == path:
            weights = load_file(path)
            weights["first_stage_model.decoder.conv_out.bias"] += 0.5
            save_file(weights, path)
        return real(read, *rest)

    expected = paint(card, claims["twin"])
    card._drop_unused()
    gc.collect()
    monkeypatch.setattr(checkpoints, "load", load)
    with pytest.raises(ModelFileAway, match="changed while it was loaded") as failure:
        paint(card, claims["base"])
    assert len(card._loads._shared._networks) == 0, "even while the error is held"
    assert np.array_equal(paint(card, claims["twin"]), expected)
    del failure


def test_a_vae_that_is_replaced_during_its_load_leaves_nothing_to_take_over(start, farm, settings, monkeypatch):
    farm.vae("own.vae", colour=0.5)
    card, real = start(), checkpoints.load_vae
    claim = farm.claim(vae="own.vae")

    def load(path: Path, *rest: object) -> object:
        save_file({**load_file(path), "decoder.conv_out.bias": torch.zeros(3)}, path)
        return real(path, *rest)

    monkeypatch.setattr(checkpoints, "load_vae", load)
    with pytest.raises(ModelFileAway, match="changed while it was loaded") as failure:
        paint(card, claim)
    assert len(card._loads._shared._networks) == 3, "those of its checkpoint, even while the error is held"
    del failure


def test_an_image_that_waits_holds_no_network(start, claims):
    card = start(resident_bytes=0)
    ends = {name: Event() for name in ("base", "refiner")}

    def hold(name: str) -> None:
        with card._model_cache.use([Model("checkpoint", claims[name].checkpoint)], Cancellation()):
            ends[name].wait(60)

    with ThreadPoolExecutor(3) as slots:
        first = slots.submit(hold, "base")
        until(lambda: card.resident() == [claims["base"].checkpoint])
        second = slots.submit(hold, "refiner")
        until(lambda: len(card._model_cache._waiting) == 1)
        third = slots.submit(paint, card, claims["twin"])
        until(lambda: len(card._model_cache._waiting) == 2)
        ends["base"].set()
        first.result(60)
        until(lambda: card.resident() == [claims["refiner"].checkpoint])
        gc.collect()
        there = sum(network_bytes(network) for network in card._loads._shared._counted.values())
        ends["refiner"].set()
        second.result(60)
        third.result(60)
    assert there == card._residency.bytes_of([Model("checkpoint", claims["refiner"].checkpoint)])


def test_a_network_counts_under_one_key_as_long_as_it_lives():
    """A VAE without tables, a second one with them that a checkpoint needed, and a checkpoint that takes that over."""
    shared, vae = SharedNetworks(), {"vae": Component("digest", {"float32": 8})}
    alone, own = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    tables = {0.2: (torch.zeros(5, 3), torch.zeros(4, 8, 8))}
    sizes: list[dict[str, int]] = [{}, {}, {}]
    shared.sharing(vae, sizes[0], "file").on_loaded({"vae": Resident(alone)})
    shared.sharing(vae, sizes[1], "first").on_loaded({"vae": Resident(own, tables=tables)})
    taken = shared.sharing(vae, sizes[2], "second")
    assert taken.residents["vae"].network is own
    taken.on_loaded(taken.residents)
    assert sizes == [{"digest": 8}, {"first vae": 8}, {"first vae": 8}]
    assert shared.counted_as(["first vae"]) == shared.counted_as(["digest"]) == [own]
    del own, taken
    gc.collect()
    assert shared.counted_as(["digest", "first vae"]) == [alone]


def test_unused_models_that_leave_during_an_image_are_no_need_of_it(start, claims, pretended, monkeypatch):
    card = start("cuda:0", resident_bytes=2**40, host_cache_bytes=2**30)
    for name in ("refiner", "base", "base"):
        paint(card, claims[name])
    needed = max(card._meter._together)
    on_step = EngineCard._on_step

    def drop(self, progress, kit, reel, step):
        if step.index == 2:
            self._drop_unused()
        on_step(self, progress, kit, reel, step)

    monkeypatch.setattr(EngineCard, "_on_step", drop)
    paint(card, claims["base"])
    assert card.resident() == [claims["base"].checkpoint]
    assert card._meter._together[-1] < 1.2 * needed
    until(lambda: card.host_bytes == card._loads.cache.bytes > 0)
