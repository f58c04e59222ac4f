"""The cache of models under many threads: random images, loads that fail, cancels, budgets that move, and drops."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock, Thread

import pytest

from shared.errors import Cancelled, ModelFileError, OutOfMemory
from worker.in_flight import Cancellation
from worker.render.model_cache import Model, ModelCache
from worker.render.residency import Residency

THREADS = 10
IMAGES = 25  # of each thread
SECONDS = 20.0  # after which a thread waits for ever
SIZES = {"p": 1, "q": 2, "r": 3}  # of networks that several models share


class Trial:
    """Threads that use models at random, and all faults that they saw."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        dice = random.Random(seed)
        self._models = [Model(dice.choice(("checkpoint", "vae")), name) for name in "abcdefg"]
        self._models += [Model("vae", name, base=dice.choice(self._models)) for name in "hi"]
        self._most = dice.randint(3, 16)
        self._least = dice.choice((self._most, 2))  # the same: a budget that does not move
        self._dice = random.Random(seed + 1)
        self._residency = Residency(lambda: self._dice.randint(self._least, self._most))
        for model in self._models:
            self._residency.weigh(model, _networks(model, dice))
        self._cache = ModelCache(self._load, self._residency.fits)
        self._is_loading = Lock()
        self._cancels: list[Cancellation] = []
        self.faults: list[str] = []

    def run(self) -> None:
        threads = [Thread(target=self._images, args=(number,), daemon=True) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._expect(lambda: not any(thread.is_alive() for thread in threads), "a thread waits for ever")
        left = (self._cache._waiting, self._cache._inside, self._cache._loading)
        self._expect(lambda: not any(left), f"left behind: {left}")

    def _images(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        for _ in range(IMAGES):
            with suppress(Cancelled, ModelFileError, OutOfMemory):
                self._image(dice)

    def _image(self, dice: random.Random) -> None:
        wanted, cancel = dice.sample(self._models, dice.choice((1, 1, 2, 2, 3))), Cancellation()
        self._cancels.append(cancel)
        if dice.random() < 0.1:
            dice.choice(self._cancels[-THREADS:]).set()
        with self._cache.use(wanted, cancel) as held:
            self._expect(lambda: dict(held) == {model: model.sha256 for model in wanted}, f"{held} for {wanted}")
            time.sleep(dice.random() * 0.002)  # the image
            if dice.random() < 0.1:
                self._cache.drop_unused(self._residency.bytes_of, dice.randint(1, 5))
            self._expect(lambda: set(wanted) <= set(self._cache.models()), f"dropped although in use: {wanted}")

    def _load(self, model: Model, _: Cancellation) -> str:
        self._expect(lambda: self._is_loading.acquire(blocking=False), "two loads at a time")
        try:
            with self._cache._changed:
                residents, visit = set(self._cache._residents), self._cache._loading
                inside = set().union(*(image.models for image in self._cache._inside))
            self._expect(lambda: inside <= residents, f"in use, but not resident: {inside - residents}")
            has_base = model.base is None or self._cache._residents.get(model.base) is not None
            self._expect(lambda: has_base, f"loaded without its base: {model}")
            is_alone = visit is not None and residents <= visit.models
            taken = self._residency.bytes_of(residents)
            self._expect(lambda: is_alone or taken <= self._most, f"{taken} resident of {self._most}: {residents}")
            time.sleep(self._dice.random() * 0.001)
            if self._dice.random() < 0.1:
                raise self._dice.choice((ModelFileError, OutOfMemory))("planted")
            return model.sha256
        finally:
            self._is_loading.release()

    def _expect(self, holds: Callable[[], bool], fault: str) -> None:
        try:
            if not holds():
                self.faults.append(fault)
        except Exception as error:  # noqa: BLE001 - a thread must not end silently
            self.faults.append(repr(error))


def _networks(model: Model, dice: random.Random) -> Mapping[str, int]:
    shared = dice.choice("pqr")
    return {shared: SIZES[shared], model.sha256: dice.randint(1, 6)}


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(2), id="few"),
        pytest.param(range(2, 500), marks=[pytest.mark.nightly, pytest.mark.timeout(3600)], id="many"),
    ],
)
def test_no_model_leaves_while_in_use_nobody_waits_for_ever_and_only_one_large_image_passes_the_budget(
    seeds, monkeypatch
):
    monkeypatch.setattr("worker.render.model_cache.gc.collect", lambda: 0)  # of all that the tests hold: 0.1 s a time
    faults, seconds = {}, sys.getswitchinterval()
    sys.setswitchinterval(2e-5)  # threads take turns anywhere, not only where one waits
    try:
        for seed in seeds:
            trial = Trial(seed)
            trial.run()
            if trial.faults:
                faults[seed] = trial.faults[:3]
    finally:
        sys.setswitchinterval(seconds)
    assert faults == {}
