"""Adapters on a worker's card: loaded before an image starts, held while it runs, and never a trace in a checkpoint."""

from __future__ import annotations

import gc
import os
import pkgutil
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog.testing
import torch
from safetensors.torch import save_file

from shared.db.sessions import Sessions, transact
from shared.errors import ModelFileAway, ModelFileError
from shared.models import recording
from shared.models.folders import ModelFolders
from shared.models.inspection import Inspection
from shared.models.model_set import Merge, ModelSet
from shared.models.scan import scan
from shared.prompts.adapters import used
from shared.queue.claim import Claim
from tests.support import lora_files, small_checkpoints
from tests.support.checkpoints import NATIVE_SIZE, inspected, located, write_tiny
from tests.support.rendering import Seen, paint
from tests.support.waiting import until
from worker.engine.adapters.low_rank import LowRank
from worker.engine.architectures.weights import Weights
from worker.engine.devices import device
from worker.engine.loading import load as checkpoints
from worker.in_flight import Cancellation
from worker.render.engine_card import EngineCard
from worker.render.model_cache import Model
from worker.supervisor.gpus import Address
from worker.supervisor.watchdog import suspects

MIB = 2**20
HOST_MIB = 48  # that the process may grow by over many images; a checkpoint has 8


class Claims:
    """Images of checkpoints and adapters in the models folder."""

    def __init__(self, models: ModelFolders, sessions: Sessions, base: Weights) -> None:
        self._models = models
        self._sessions = sessions
        self._base = base
        self._files: dict[str, str] = {}

    def lora(self, name: str, seed: int = 0, weights: Weights | None = None) -> Path:
        """Write an adapter for `weights`; None: for `base`."""
        tensors = lora_files.kohya(lora_files.drawn(weights or self._base, seed))
        return self._write(name, tensors)

    def difference(self, name: str, seed: int = 0, sides: tuple[int, int] | None = None) -> Path:
        """Write a full difference for `base`, which has to be merged; with other `sides` of its kernel it cannot be."""
        draw = torch.Generator().manual_seed(seed)
        path, layer = next(iter(lora_files.chosen(self._base.unet, ("conv_in",))))
        shape = layer.get_parameter("weight").shape
        shape = (*shape[:2], *(sides or shape[2:]))
        return self._write(name, {f"lora_unet_{path}.diff": torch.randn(shape, generator=draw)})

    def _write(self, name: str, tensors: Mapping[str, torch.Tensor]) -> Path:
        path = self._models / "Lora" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({key: one.half().contiguous() for key, one in tensors.items()}, path)
        return path

    def scan(self) -> None:
        def how(path: Path) -> Inspection:
            return Inspection("lora", "sd1") if path.parent.name == "Lora" else inspected(path)

        seen = scan(self._models, [], how, locate=located)
        transact(self._sessions, lambda session: recording.record(session, seen))
        self._files = {one.name: one.sha256 or "" for one in seen}

    def claim(
        self,
        prompt: str = "sea",
        *,
        checkpoint: str = "base",
        merges: Mapping[str, float] | None = None,
    ) -> Claim:
        """Return an image whose prompt names adapters by tags; those in `merges` are merged at a weight."""
        if not self._files:
            self.scan()
        named, at = {use.name for use in used(prompt)}, merges or {}
        models = ModelSet(
            checkpoint=self._files[checkpoint],
            adapters={f"lora:{name}": self._files[name] for name in named - at.keys()},
            merges=tuple(sorted(Merge(sha256=self._files[name], text_encoder=at[name], unet=at[name]) for name in at)),
        )
        stored = {"prompt": prompt, "width": NATIVE_SIZE, "height": NATIVE_SIZE, "steps": 1, "seed": 7, "exact": True}
        return Claim(
            image_id=5, job_id=17, index=0, attempt=1, owner="local", checkpoint=models.checkpoint, cost=1,
            stored=stored, worker_id=3, stored_models=models.to_stored(), companions=models.companions,
        )  # fmt: skip

    def lora_of(self, name: str) -> Model:
        return Model("lora", self._files[name])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Path, Weights]:
    """A tiny checkpoint, written and loaded once."""
    path = write_tiny(tmp_path_factory.mktemp("models") / "base.safetensors")
    return path, checkpoints.load(path, device("cpu"), torch.float32)


@pytest.fixture
def claims(settings, sessions, base) -> Claims:
    path, weights = base
    for suffix in (".safetensors", ".yaml"):
        shutil.copy(path.with_suffix(suffix), settings.models / f"base{suffix}")
    return Claims(settings.models, sessions, weights)


@pytest.fixture
def start(settings, sessions) -> Iterator[Callable[..., EngineCard]]:
    cards: list[EngineCard] = []

    def start(**changed: object) -> EngineCard:
        cards.append(EngineCard(Address("cpu:0"), settings.model_copy(update=changed), sessions, lambda: None))
        return cards[-1]

    yield start
    for card in cards:
        card.stop()


def is_alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and int(np.abs(one.astype(int) - other).max()) <= 1


def test_an_adapter_is_loaded_before_the_image_and_changes_no_other(start, claims):
    claims.lora("ink")
    card, seen = start(), Seen()
    plain, with_ink = claims.claim(), claims.claim("sea <lora:ink:0.1>")
    before = paint(card, plain)
    changed = card.render(with_ink, seen.watch(with_ink), Cancellation()).pixels
    assert seen.told[0].phase.startswith("loading LoRA ink from ")
    assert {one.phase for one in seen.told[1:]} == {"steps"}
    assert not np.array_equal(changed, before)
    assert np.array_equal(paint(card, plain), before)
    assert is_alike(paint(card, with_ink), changed)
    assert set(card._model_cache.models()) == {Model("checkpoint", plain.checkpoint), claims.lora_of("ink")}
    assert card.resident() == [plain.checkpoint]
    for stored_models in (None, {"checkpoint": plain.checkpoint}):  # of older versions, which know no adapters
        assert np.array_equal(paint(card, replace(with_ink, stored_models=stored_models)), before)


def test_adapters_leave_by_bytes_the_longest_unused_first_and_share_the_budget_with_all_models(start, claims):
    for number in range(3):
        claims.lora(f"ink{number}", number)
    card = start()
    paint(card, claims.claim("<lora:ink0:0.1>"))
    taken, lora = card._resident_bytes(), card._residency.bytes_of([claims.lora_of("ink0")])
    budget = int(taken + 1.5 * lora)
    card._residency.budget = lambda: budget
    for number in (1, 0, 2):
        paint(card, claims.claim(f"<lora:ink{number}:0.1>"))
        assert card._resident_bytes() <= budget
    left = [model for model in card._model_cache.models() if model.kind == "lora"]
    assert left == [claims.lora_of("ink0"), claims.lora_of("ink2")]
    gc.collect()
    alive = {one.sha256 for one in gc.get_objects() if type(one) is LowRank}
    assert claims.lora_of("ink1").sha256 not in alive


def test_an_adapter_that_does_not_fit_the_checkpoint_fails_that_image_alone(start, claims, settings):
    small_checkpoints.write_file(small_checkpoints.build("sd1"), settings.models / "wide.safetensors", with_yaml=True)
    wide = checkpoints.load(settings.models / "wide.safetensors", device("cpu"), torch.float32)
    claims.lora("ink")
    claims.lora("broad", weights=wide)
    card = start()
    with pytest.raises(ModelFileError, match=r"the LoRA broad does not fit this checkpoint"):
        paint(card, claims.claim("<lora:broad:0.1>"))
    good = paint(card, claims.claim("<lora:ink:0.1>"))
    with pytest.raises(ModelFileError, match=r"the LoRA ink does not fit this checkpoint"):
        paint(card, claims.claim("<lora:ink:0.1>", checkpoint="wide"))
    assert is_alike(paint(card, claims.claim("<lora:ink:0.1>")), good)


def test_an_adapter_that_was_touched_replaced_or_taken_away(start, claims):
    file, other = claims.lora("ink"), claims.lora("other", 1)
    card, claim = start(), claims.claim("<lora:ink:0.1>")
    os.utime(file)
    good = paint(card, claim)
    card._drop_unused()
    assert is_alike(paint(card, claim), good)
    card._drop_unused()
    whole = file.read_bytes()
    file.write_bytes(other.read_bytes())
    with pytest.raises(ModelFileAway, match=r"Lora/ink\.safetensors"):
        paint(card, claim)
    file.unlink()
    with pytest.raises(ModelFileAway, match=r"Lora/ink\.safetensors"):
        paint(card, claim)
    file.write_bytes(whole)
    assert is_alike(paint(card, claim), good)


def test_an_adapter_that_is_replaced_while_it_is_read_fails_that_load_alone(start, claims, monkeypatch):
    file = claims.lora("ink")
    card, claim = start(), claims.claim("<lora:ink:0.1>")
    on = LowRank.on

    def late(*given, **about):
        os.utime(file, (1, 1))
        return on(*given, **about)

    with monkeypatch.context() as patch:
        patch.setattr(LowRank, "on", late)
        with pytest.raises(ModelFileAway, match=r"ink\.safetensors changed while it was loaded") as raised:
            paint(card, claim)
    assert raised.value.sha256 == claims.lora_of("ink").sha256
    assert paint(card, claim).any()


def test_a_crash_while_an_adapter_is_loaded_is_blamed_on_its_file(start, claims, monkeypatch):
    claims.lora("ink")
    claims.difference("full")
    card, suspected = start(), []
    for reader in ("worker.engine.adapters.reading.load.read", "worker.render.loads.load_deltas"):
        read = pkgutil.resolve_name(reader)

        def watched(*given, read=read):
            suspected.append(suspects(card._watchdog.stages()))
            return read(*given)

        monkeypatch.setattr(reader, watched)
    paint(card, claims.claim("<lora:ink:0.1>", merges={"full": 0.5}))
    assert set(suspected) == {(claims.lora_of(name).sha256,) for name in ("ink", "full")}
    # The steps' own stage may end a moment after the picture is there.
    until(lambda: card._watchdog.stages() == ())


# Merged sets.


def test_a_merged_set_is_made_of_the_resident_checkpoint_and_leaves_no_trace_in_it(start, claims):
    claims.difference("full")
    card, plain, seen = start(), claims.claim(), Seen()
    before = paint(card, plain)
    merged = claims.claim("sea <lora:full:0.5>", merges={"full": 0.5})
    with structlog.testing.capture_logs() as logs:
        changed = card.render(merged, seen.watch(merged), Cancellation()).pixels
    assert seen.told[0].phase == "merging full into the checkpoint, about 5 s"
    assert not np.array_equal(changed, before)
    assert not np.array_equal(changed, paint(card, claims.claim(merges={"full": -0.5})))
    assert np.array_equal(paint(card, plain), before)
    assert card.resident() == [plain.checkpoint]
    (told,) = [one for one in logs if one["event"] == "adapters merged"]
    base, model = (
        next(one for one in card._model_cache.models() if one.kind == kind) for kind in ("checkpoint", "merged")
    )
    alone = card._residency.bytes_of([base])
    assert card._residency.bytes_of([base, model]) == alone + told["bytes"]
    assert 0 < told["bytes"] < alone, "the text encoder and the VAE are those of the checkpoint"
    assert told["seconds"] >= 0


def test_a_merged_adapter_that_does_not_fit_is_named(start, claims):
    claims.difference("full")
    claims.difference("long", sides=(7, 7))
    with pytest.raises(
        ModelFileError, match=r"the LoRA long does not fit this checkpoint: its layer lora_unet_conv_in"
    ):
        paint(start(), claims.claim(merges={"full": 0.5, "long": 1.0}))


def test_the_checkpoint_leaves_when_what_was_merged_is_all_that_fits(start, claims):
    claims.difference("full")
    card = start()
    paint(card, claims.claim())
    budget = card._resident_bytes()
    card._residency.budget = lambda: budget
    merged = claims.claim(merges={"full": 0.5})
    first = paint(card, merged)
    assert [model.kind for model in card._model_cache.models()] == ["merged"]
    assert card._resident_bytes() <= budget
    assert card.resident() == [merged.checkpoint]
    assert is_alike(paint(card, merged), first)
    paint(card, claims.claim())
    assert [model.kind for model in card._model_cache.models()] == ["checkpoint"]
    assert is_alike(paint(card, merged), first)


def test_what_a_merged_set_will_take_is_known_until_it_is_loaded(start, claims, monkeypatch):
    """Although others come and go just before its image waits for room."""
    claims.difference("full")
    card, claim, taken = start(), claims.claim(merges={"full": 0.5}), []
    paint(card, claims.claim())
    in_flight = card._meter.in_flight

    def after_others_left(footprint):
        assert card._drop_unused()
        (merged,) = (model for model in card._residency._networks if model.kind == "merged")
        taken.append(card._residency.bytes_of([merged]))
        return in_flight(footprint)

    monkeypatch.setattr(card._meter, "in_flight", after_others_left)
    assert paint(card, claim).any()
    assert taken[0] > 0


def test_a_merged_set_that_could_not_be_made_is_forgotten(start, claims):
    claims.difference("long", sides=(7, 7))
    card = start()
    with pytest.raises(ModelFileError, match="the LoRA long does not fit"):
        paint(card, claims.claim(merges={"long": 1.0}))
    assert not [model for model in card._residency._networks if model.kind == "merged"]


# Again and again.


def own_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("images", [10, pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])])
def test_a_checkpoint_is_bit_identical_after_many_images_of_many_adapters_and_memory_is_flat(start, claims, images):
    names = [f"ink{number}" for number in range(20)]
    for number, name in enumerate(names):
        (claims.difference if number % 5 == 4 else claims.lora)(name, number)
    card, plain = start(), claims.claim()
    before, budget = paint(card, plain), None

    def image(number: int) -> np.ndarray:
        name, weight = names[number % 20], 0.1 + number % 3 / 10
        if number % 5 == 4:
            return paint(card, claims.claim(f"sea <lora:{name}:{weight}>", merges={name: weight}))
        second = names[(number + 5) % 20]
        return paint(card, claims.claim(f"sea <lora:{name}:{weight}> <lora:{second}:-0.1>"))

    image(0)
    lora = card._residency.bytes_of([claims.lora_of("ink0")])
    budget = int(card._resident_bytes() * 1.5 + 4 * lora)
    card._residency.budget = lambda: budget
    grown = []
    with ThreadPoolExecutor(4) as slots:
        for first in range(0, images, 5):
            assert all(picture.any() for picture in slots.map(image, range(first, first + 5)))
            gc.collect()
            grown.append(own_bytes())
            assert card._resident_bytes() <= budget
    assert np.array_equal(paint(card, plain), before)
    models = card._model_cache.models()
    assert len([one for one in gc.get_objects() if type(one) is LowRank]) == sum(one.kind == "lora" for one in models)
    assert sum(model.kind == "merged" for model in card._residency._networks) <= sum(
        one.kind == "merged" for one in models
    )
    assert grown[-1] - grown[len(grown) // 3] <= HOST_MIB * MIB
