"""IP-Adapters on a worker's card: loaded with their image encoder before an image starts, and held while it runs."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from shared.db.sessions import transact
from shared.errors import ModelFileAway
from shared.media.storage import Storage, upload_key
from shared.models import recording
from shared.models.catalogue import Catalogue
from shared.models.scan import scan
from shared.queue.claim import Claim
from tests.support import ip_adapters, small_checkpoints
from tests.support.admissions import admitted
from tests.support.checkpoints import inspected, located
from tests.support.rendering import Seen, claim_of, paint
from worker.engine.architectures.weights import network_bytes
from worker.in_flight import Cancellation
from worker.render.model_cache import Model

PICTURES = {"teal": "a" * 64, "noise": "b" * 64}


@pytest.fixture
def models(settings, sessions) -> dict[str, str]:
    """The SHA-256 of a small checkpoint, two IP-Adapters and their image encoder, by name; two pictures are stored."""
    folder, small = settings.models.first, small_checkpoints.build("sd1")
    small_checkpoints.write_file(small, folder / "base.safetensors", with_yaml=True)
    for name in ("ipadapter", "clip_vision"):
        (folder / name).mkdir()
    ip_adapters.write(ip_adapters.build(small), folder / "ipadapter" / "plain")
    ip_adapters.write(ip_adapters.build(small, "plus", 1), folder / "ipadapter" / "plus", is_pickle=True)
    ip_adapters.write_encoder(ip_adapters.encoder(), folder / "clip_vision" / "vit")
    seen = scan(settings.models, [], inspected, locate=located)
    transact(sessions, lambda session: recording.record(session, seen))
    noise = np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8)
    for name, picture in {"teal": Image.new("RGB", (64, 64), "teal"), "noise": Image.fromarray(noise)}.items():
        out = BytesIO()
        picture.save(out, "PNG")
        Storage(settings.storage).put(upload_key(PICTURES[name]), out.getvalue())
    return {one.name: one.sha256 or "" for one in transact(sessions, Catalogue.read).files}


@pytest.fixture
def claim(models, sessions, monkeypatch):
    """Returns an image whose adapters each follow pictures, as admission stores it."""
    monkeypatch.setattr("shared.media.uploads.is_kept", lambda *_: True)

    def claimed(*units: dict[str, object]) -> Claim:
        size = {"width": 64, "height": 64, "steps": 2, "seed": 7, "exact": True}
        given = {"prompt": "sea", "ip_adapters": units, **size}
        admission = transact(sessions, lambda session: admitted(session, given, "ann"))
        return claim_of(admission.models, admission.params)

    return claimed


def unit(model: str, *names: str, **how: object) -> dict[str, object]:
    return {"model": model, "pictures": [PICTURES[name] for name in names], **how}


def test_pictures_change_the_image_and_no_other(card, claim, models):
    seen, plain = Seen(), claim()
    before = paint(card, plain)
    followed = claim(unit("plain", "teal"))
    changed = card.render(followed, seen.watch(followed), Cancellation()).pixels
    assert any(one.phase.startswith(("loading IP-Adapter plain", "loading image encoder vit")) for one in seen.told)
    assert not np.array_equal(changed, before)
    assert not np.array_equal(paint(card, claim(unit("plain", "noise"))), changed)
    assert np.array_equal(paint(card, followed), changed)
    assert np.array_equal(paint(card, plain), before)
    assert np.array_equal(paint(card, claim(unit("plain", "teal", weight=0))), before)
    both = paint(card, claim(unit("plain", "teal", "noise"), unit("plus", "noise", end=0.5)))
    assert not np.array_equal(both, changed)
    files = {"ip-adapter": ("plain", "plus"), "image-encoder": ("vit",)}
    held = {Model(kind, models[name]) for kind, names in files.items() for name in names}
    assert held < set(card._model_cache.models())
    assert all(card._residency.bytes_of([model]) > 0 for model in held)


def test_what_adapters_remember_of_pictures_counts_as_their_memory(card, claim, models):
    def told() -> tuple[int, int]:
        bytes_of = {model.sha256: model.bytes for model in card.models()}
        return bytes_of[models["plain"]], card._residency.bytes_of(card._model_cache.models())

    adapter = Model("ip-adapter", models["plain"])
    paint(card, claim(unit("plain", "teal")))
    loaded = card._model_cache._residents[adapter]
    (once, all_once), known = told(), loaded.bytes
    [remembered] = loaded._read.values()
    assert once == known == network_bytes(loaded.network) + remembered.size > network_bytes(loaded.network)
    paint(card, claim(unit("plain", "teal", "noise")))
    twice, all_twice = told()
    assert twice - once == all_twice - all_once == remembered.size // 3  # no picture, and two


def test_a_job_whose_file_is_missing_here_is_left_to_others_alone(card, claim, models, settings):
    followed, plain = claim(unit("plain", "teal")), claim()
    for name, folder in {"vit": "clip_vision", "plain": "ipadapter"}.items():
        file = settings.models.first / folder / f"{name}.safetensors"
        away = file.rename(settings.home / file.name)
        with pytest.raises(ModelFileAway) as raised:
            paint(card, followed)
        assert raised.value.sha256 == models[name] != followed.checkpoint
        away.rename(file)
    assert paint(card, plain).any()
