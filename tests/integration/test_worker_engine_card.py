"""The real card of a worker: an engine with a checkpoint from the catalogue, as small as they come."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from shared import row_limit_files
from shared.db.sessions import transact
from shared.errors import Cancelled, ModelFileAway, ModelFileError, RenderError
from shared.models import recording
from shared.models.catalogue import Catalogue
from shared.models.inspection import Inspection
from shared.models.scan import scan
from shared.params.groups import Refiner
from shared.params.render import RenderParams
from shared.queue.claim import Claim
from tests.support.checkpoints import NATIVE_SIZE, inspected, tiny_decoder, without_vae, write_tiny
from tests.support.rendering import Farm, Seen, paint
from tests.support.waiting import until
from worker.engine.answers import denoising
from worker.engine.architectures.weights import Weights
from worker.engine.images import previews
from worker.engine.loading import load as checkpoints
from worker.engine.loop.engine import Engine
from worker.engine.requests import Work
from worker.in_flight import Cancellation
from worker.progress import preview_queue
from worker.progress.reporter import ImageProgress
from worker.render.engine_card import EngineCard
from worker.render.outputs import outputs
from worker.render.stored_row_limits import processor, stored
from worker.supervisor.gpus import Address
from worker.supervisor.watchdog import suspects

LOADING = re.compile(r"loading checkpoint tiny from (disk|memory), about \d+ s")


@pytest.fixture
def claim(settings, sessions) -> Claim:
    """An image of a checkpoint that lies in the models folder."""
    write_tiny(settings.models / "tiny.safetensors")
    seen = scan(settings.models, [], lambda _: Inspection("checkpoint", "sd1", NATIVE_SIZE))
    transact(sessions, lambda session: recording.record(session, seen))
    params = RenderParams(prompt="sea", checkpoint="tiny", width=NATIVE_SIZE, height=NATIVE_SIZE, steps=5, seed=7)
    return Claim(
        image_id=5, job_id=17, index=0, attempt=1, owner="local", checkpoint=seen[0].sha256, cost=1,
        stored=params.model_dump(mode="json"), worker_id=3,
    )  # fmt: skip


@pytest.fixture
def phases() -> list[str]:
    """What the card did whenever it said that something had changed."""
    return []


@pytest.fixture
def card(settings, sessions, phases) -> Iterator[EngineCard]:
    settings = settings.model_copy(update={"preview_steps": 2})
    card = EngineCard(Address("cpu:0"), settings, sessions, lambda: phases.append(card.phase()))
    yield card
    card.stop()


def test_a_claim_becomes_a_picture_and_whoever_watches_is_told_how(card, claim, phases):
    seen = Seen()
    picture = card.render(claim, seen.watch(claim), Cancellation())
    assert picture.pixels.shape == (NATIVE_SIZE, NATIVE_SIZE, 3)
    assert picture.frames == ()
    assert LOADING.fullmatch(phases[0])
    assert card.resident() == [claim.checkpoint]

    loading, *rest = seen.told
    assert LOADING.fullmatch(loading.phase)
    assert [(told.phase, told.step, told.steps) for told in rest] == [("steps", step, 5) for step in range(6)]
    assert [make().shape for make in seen.previews] == [(8, 8, 3)] * 2  # after steps 2 and 4: the 5th is the picture


def test_what_a_picture_taught_of_the_processor_is_kept_for_the_next_worker(card, claim, settings):
    card.render(claim, Seen().watch(claim), Cancellation())
    [measured] = row_limit_files.all_at(settings.home)
    assert measured.processor == processor()
    assert measured.limits == card._device.row_limits.known != {}
    assert stored(settings.home, processor())[0] == measured.limits


def test_a_card_that_is_to_load_two_checkpoints_loads_and_tells_of_one_after_the_other(
    card, claim, settings, sessions, monkeypatch
):
    (settings.models / "other.safetensors").write_bytes(b"weights")
    seen = scan(settings.models, [], lambda _: Inspection("checkpoint", "sd1", NATIVE_SIZE))
    transact(sessions, lambda session: recording.record(session, seen))
    gates = {one.name: Event() for one in seen}
    started = []

    def load(path, *_):
        started.append(path.stem)
        gates[path.stem].wait(10)
        raise ModelFileError("no weights")

    monkeypatch.setattr(checkpoints, "load", load)
    with ThreadPoolExecutor() as slots:
        renders, watchers = {}, {one.name: Seen() for one in seen}
        for one in seen:
            mine = replace(claim, checkpoint=one.sha256)
            renders[one.name] = slots.submit(card.render, mine, watchers[one.name].watch(mine), Cancellation())
        until(lambda: started and all(each.told for each in watchers.values()))
        first, second = started[0], {"tiny": "other", "other": "tiny"}[started[0]]
        assert watchers[second].told[0].phase.startswith(f"loading checkpoint {second}")
        assert card.phase().startswith(f"loading checkpoint {first}")
        assert started == [first]
        for name, now in ((first, f"loading checkpoint {second}"), (second, "")):
            gates[name].set()
            assert isinstance(renders[name].exception(10), ModelFileError)
            until(lambda now=now: card.phase().startswith(now))
        assert started == [first, second]
        assert not card._loads.phase()


def film_of(claim):
    return replace(claim, stored={**claim.stored, "film": True})


def test_an_urgent_claim_is_urgent_to_the_engine(card, claim, monkeypatch):
    render, runs = card._engine.render, []
    monkeypatch.setattr(card._engine, "render", lambda *told, **how: runs.append(render(*told, **how)) or runs[-1])
    for is_urgent in (False, True):
        paint(card, replace(claim, is_urgent=is_urgent))
    assert [run.is_urgent for run in runs] == [False, True]


def test_a_film_shows_the_steps_to_the_picture(card, claim):
    seen = Seen()
    rendered = card.render(film_of(claim), seen.watch(claim), Cancellation())
    assert [(frame.step, frame.steps) for frame in rendered.frames] == [(step, 5) for step in range(1, 5)]
    assert all(frame.pixels.shape == rendered.pixels.shape for frame in rendered.frames)
    assert rendered.steps == 5
    assert seen.told[-1].phase == "film"


def test_a_film_changes_no_pixel(card, claim):
    plain, filmed = (card.render(one, Seen().watch(one), Cancellation()).pixels for one in (claim, film_of(claim)))
    assert np.array_equal(plain, filmed)


def test_how_it_was_made_lies_beside_a_picture_and_changes_no_pixel(card, claim):
    kept = replace(claim, stored={**claim.stored, "intermediates": True})
    seen = Seen()
    plain = card.render(claim, Seen().watch(claim), Cancellation())
    rendered = card.render(kept, seen.watch(kept), Cancellation())
    assert plain.making is None
    assert np.array_equal(plain.pixels, rendered.pixels)
    assert seen.told[-1].phase == "intermediates"
    kinds = [output.kind for output in outputs(kept, rendered)]
    assert kinds == ["picture", "thumbnail", "noise", "latents", "guidance", "intermediates"]


def test_a_picture_outlives_its_film(card, claim, monkeypatch):
    def torn(*_):
        raise RenderError("torn")
        yield

    monkeypatch.setattr("worker.render.engine_card.developed", torn)
    rendered = card.render(film_of(claim), Seen().watch(claim), Cancellation())
    assert rendered.pixels.any()
    assert rendered.frames == ()


def test_a_cancel_reaches_the_film(card, claim, monkeypatch):
    cancel = Cancellation()

    def endless(*_):
        cancel.set()
        while True:
            yield Work(lambda: None)

    monkeypatch.setattr("worker.render.engine_card.developed", endless)
    with pytest.raises(Cancelled):
        card.render(film_of(claim), Seen().watch(claim), cancel)


# Previews by a tiny decoder.


@pytest.fixture
def decoder(settings, sessions, claim, monkeypatch) -> None:
    """A tiny decoder in the models folder that any checkpoint may use."""
    (settings.models / "VAE-approx").mkdir()
    torch.save(tiny_decoder(), settings.models / "VAE-approx" / "taesd_decoder.pth")
    transact(sessions, lambda session: recording.record(session, scan(settings.models, [], inspected)))
    monkeypatch.setattr("worker.render.preview_decoders.LEAST_FIT", -100.0)


@pytest.mark.usefixtures("decoder")
def test_previews_are_decoded_once_a_decoder_has_come(card, claim):
    seen = Seen()
    card.render(claim, seen.watch(claim), Cancellation())
    first, second = seen.previews
    until(lambda: first().shape == (64, 64, 3))
    assert second().shape == (64, 64, 3)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(("way", "shapes"), [("linear", [(8, 8, 3)] * 2), ("off", [])])
def test_previews_are_as_the_farm_was_told(settings, sessions, claim, way, shapes):
    card = EngineCard(
        Address("cpu:0"), settings.model_copy(update={"preview": way, "preview_steps": 2}), sessions, lambda: None
    )
    seen = Seen()
    card.render(claim, seen.watch(claim), Cancellation())
    card.stop()
    assert [make().shape for make in seen.previews] == shapes


@pytest.fixture
def paint_some(settings, sessions, claim):
    """Renders four images at a time, with a preview of every step that `show` is given."""

    def paint_some(way, show):
        changed = settings.model_copy(update={"preview": way, "preview_steps": 1})
        card = EngineCard(Address("cpu:0"), changed, sessions, lambda: None)
        params = [claim.params.model_copy(update={"seed": seed, "exact": True}) for seed in range(4)]
        claims = [replace(claim, index=index, stored=one.model_dump(mode="json")) for index, one in enumerate(params)]
        with ThreadPoolExecutor(4) as slots:
            runs = [slots.submit(card.render, one, ImageProgress(one, print, show), Cancellation()) for one in claims]
        card.stop()
        return [run.result().pixels.tobytes() for run in runs]

    return paint_some


@pytest.fixture
def stage(monkeypatch):
    """Shows previews on a thread of its own, without a pause."""
    monkeypatch.setattr(preview_queue, "SECONDS", 0.0)
    monkeypatch.setattr(preview_queue, "SHARE", 1000.0)
    stage = preview_queue.PreviewQueue(lambda *_: None)
    stage.start()
    yield stage
    stage.stop()


@pytest.mark.usefixtures("decoder")
def test_previews_change_no_byte_of_a_picture(paint_some, stage, monkeypatch):
    decoded, plainly = [], previews.decoded
    monkeypatch.setattr(previews, "decoded", lambda *given: decoded.append(given) or plainly(*given))
    assert paint_some("auto", stage.put) == paint_some("off", stage.put)
    assert decoded


@pytest.mark.usefixtures("decoder")
def test_a_preview_that_takes_for_ever_holds_up_no_picture(paint_some, stage, monkeypatch):
    begun, gate = Event(), Event()
    monkeypatch.setattr(previews, "decoded", lambda *_: begun.set() or gate.wait(60))
    assert len(paint_some("auto", stage.put)) == 4
    assert begun.is_set()
    assert not gate.is_set()
    gate.set()


def test_a_resident_checkpoint_is_not_loaded_again(card, claim):
    card.render(claim, Seen().watch(claim), Cancellation())
    seen = Seen()
    card.render(claim, seen.watch(claim), Cancellation())
    assert seen.told[0].phase == "steps"


# More than one checkpoint, and a VAE.


@pytest.fixture
def farm(settings, sessions) -> Farm:
    return Farm(settings.models, sessions)


def test_a_refiner_and_a_second_pass_bring_checkpoints_of_their_own(card, farm):
    plain, always = farm.claim(), farm.claim(refiner=0.0)
    assert len(card.resident()) == 0
    alone = paint(card, plain)
    refined = paint(card, always)
    assert len(card.resident()) == 2
    assert not np.array_equal(alone, refined)
    assert np.array_equal(alone, paint(card, farm.claim(refiner=1.0)))  # one that never takes over
    larger = paint(card, farm.claim(hires=1.5))
    assert larger.shape == (96, 96, 3)


def test_a_card_that_keeps_one_checkpoint_renders_what_needs_two(settings, sessions, farm):
    settings = settings.model_copy(update={"resident_checkpoints": 1})
    card = EngineCard(Address("cpu:0"), settings, sessions, lambda: None)
    claims = [farm.claim(refiner=0.5), farm.claim(hires=1.5), farm.claim()] * 3
    with ThreadPoolExecutor(len(claims)) as slots:
        pictures = list(slots.map(lambda claim: paint(card, claim), claims))
    card.stop()
    for place in range(3):
        assert all(np.abs(picture.astype(int) - pictures[place]).max() <= 8 for picture in pictures[place::3])


def test_a_vae_is_the_one_beside_the_checkpoint_the_one_named_or_the_one_built_in(card, farm):
    built_in = paint(card, farm.claim())
    farm.vae("base.vae", 0.0)
    farm.vae("VAE/white", 1.0)
    assert set(paint(card, farm.claim()).ravel()) == {128}
    assert set(paint(card, farm.claim(vae="white")).ravel()) == {255}
    assert np.array_equal(paint(card, farm.claim(vae="none")), built_in)
    assert len(card.resident()) == 1


def test_a_film_shows_each_pass_by_its_own_checkpoint(card, farm):
    farm.vae("base.vae", 0.0)
    farm.vae("refiner.vae", 1.0)
    claim = film_of(farm.claim(hires=1.5))
    rendered = card.render(claim, Seen().watch(claim), Cancellation())
    first, second = rendered.frames[:4], rendered.frames[4:]
    assert second
    assert [set(frame.pixels.ravel()) for frame in first] == [{128}] * len(first)
    assert [set(frame.pixels.ravel()) for frame in second] == [{255}] * len(second)


def test_a_vae_or_refiner_that_is_gone_is_named(card, farm, settings):
    farm.vae("VAE/white", 1.0)
    gone = farm.claim(vae="white", refiner=0.5)
    (settings.models / "VAE" / "white.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"VAE/white\.safetensors"):
        paint(card, gone)
    params = gone.params.model_copy(update={"vae": "none", "refiner": Refiner(checkpoint="other [0123456789]")})
    with pytest.raises(ModelFileError, match=r"other \[0123456789\] names no checkpoint"):
        paint(card, replace(gone, stored=params.model_dump(mode="json")))


def test_what_is_loaded_is_called_by_its_name(card, farm, phases):
    farm.vae("VAE/white", 1.0)
    claim, seen = farm.claim(vae="white", refiner=0.5), Seen()
    card.render(claim, seen.watch(claim), Cancellation())
    told = [one.phase for one in seen.told if one.phase.startswith("loading")]
    words = ("loading checkpoint base", "loading checkpoint refiner", "loading VAE white")
    for said in (told, [one for one in dict.fromkeys(phases) if one.startswith("loading")]):
        assert sorted(phase.partition(" from ")[0] for phase in said) == sorted(words)


def redescribed(models, name: str, **stated) -> None:
    """Lay the weights of `base` under another name, with a .yaml that says something else."""
    config = yaml.safe_load((models / "base.yaml").read_text())
    config["model"]["params"] |= stated
    shutil.copy(models / "base.safetensors", models / f"{name}.safetensors")
    (models / f"{name}.yaml").write_text(yaml.safe_dump(config))


def of(farm, name: str) -> Claim:
    claim = farm.claim()
    rows = {row.name: row for row in transact(farm._sessions, Catalogue.read).entries()}
    return replace(claim, checkpoint=rows[name].sha256)


def test_the_same_weights_described_in_two_ways_are_two_checkpoints(card, farm, settings):
    redescribed(settings.models, "turned", parameterization="v")
    redescribed(settings.models, "equal")
    base, turned, equal = (of(farm, name) for name in ("base", "turned", "equal"))
    assert base.checkpoint == equal.checkpoint != turned.checkpoint
    pictures = [paint(card, claim) for claim in (base, turned, base, turned)]
    assert np.array_equal(pictures[0], pictures[2])
    assert np.array_equal(pictures[1], pictures[3])
    assert not np.array_equal(pictures[0], pictures[1])
    assert card.resident() == [base.checkpoint, turned.checkpoint]


def test_a_description_that_changes_is_of_effect_for_the_next_image_and_for_no_earlier_one(card, farm, settings):
    redescribed(settings.models, "some")
    before = of(farm, "some")
    first = paint(card, before)
    redescribed(settings.models, "some", parameterization="v")
    after = of(farm, "some")
    assert after.checkpoint != before.checkpoint
    assert not np.array_equal(paint(card, after), first)
    assert np.array_equal(paint(card, before), first)  # `base` is described so


def test_what_changes_while_it_is_loaded_is_left_to_another_try(card, farm, settings, monkeypatch):
    claim, load = farm.claim(), checkpoints.load

    def loads(path, *rest):
        path.with_suffix(".yaml").touch()
        return load(path, *rest)

    monkeypatch.setattr(checkpoints, "load", loads)
    with pytest.raises(ModelFileAway, match="changed while it was loaded"):
        paint(card, claim)


def test_a_checkpoint_without_a_vae_is_rendered_with_one_beside_it(card, farm, settings):
    bare = settings.models / "bare.safetensors"
    shutil.copy(settings.models / "base.safetensors", bare)
    without_vae(bare)
    shutil.copy(settings.models / "base.yaml", bare.with_suffix(".yaml"))
    with pytest.raises(ModelFileError, match="bare has no VAE inside"):
        paint(card, of(farm, "bare"))
    farm.vae("bare.vae", 1.0)
    assert set(paint(card, of(farm, "bare")).ravel()) == {255}


def test_a_refiner_needs_no_vae(card, farm, settings):
    whole = paint(card, farm.claim(refiner=0.5))
    without_vae(settings.models / "refiner.safetensors")
    assert np.array_equal(paint(card, farm.claim(refiner=0.5, vae="none")), whole)
    farm.vae("white", 1.0)
    assert set(paint(card, farm.claim(refiner=0.5, hires=1.5, vae="white")).ravel()) == {255}


def test_a_file_that_its_scan_refused_is_not_loaded(card, farm, sessions):
    claim = farm.claim()
    for _ in range(2):
        transact(sessions, lambda session: recording.count_crash(session, [claim.checkpoint], "it was ended by SIGBUS"))
    words = r"base\.safetensors cannot be used: reading it ended its process twice: it was ended by SIGBUS; replace"
    with pytest.raises(ModelFileError, match=words):
        paint(card, claim)


def test_a_file_that_is_loaded_after_all_is_forgiven(card, farm, sessions):
    claim = farm.claim()
    transact(sessions, lambda session: recording.count_crash(session, [claim.checkpoint], "it was ended by SIGKILL"))
    paint(card, claim)
    assert [file.strikes for file in transact(sessions, Catalogue.read).entries()] == [0, 0]


def test_a_tiny_decoder_is_suspected_while_it_is_read(card, claim, settings, sessions, monkeypatch):
    path = settings.models / "VAE-approx" / "taesd.safetensors"
    path.parent.mkdir()
    safetensors.torch.save_file(tiny_decoder(), path)
    seen = {file.name: file for file in scan(settings.models, [], inspected)}
    transact(sessions, lambda session: recording.record(session, list(seen.values())))
    suspected, load = [], checkpoints.load_decoder

    def loading(*told):
        suspected.append(suspects(card._watchdog.stages()))
        return load(*told)

    monkeypatch.setattr(checkpoints, "load_decoder", loading)
    told = Seen()
    card.render(replace(claim, checkpoint=seen["tiny"].sha256), told.watch(claim), Cancellation())
    for make in told.previews:
        make()
    until(lambda: suspected == [(seen["taesd"].sha256,)])
    until(lambda: suspects(card._watchdog.stages()) == ())


def test_what_loads_need_is_imported_before_the_first_one(settings, sessions, monkeypatch):
    begun = Event()
    monkeypatch.setattr(checkpoints, "prepare", begun.set)
    card = EngineCard(Address("cpu:0"), settings, sessions, lambda: None)
    card.stop()
    assert begun.wait(10)


def test_a_card_that_is_found_lost_by_a_load_is_lost(card, claim, monkeypatch):
    def lost(*_, **__):
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr(checkpoints, "load", lost)
    with pytest.raises(RenderError, match="the card was lost: CUDA error: uncorrectable ECC error"):
        card.render(claim, Seen().watch(claim), Cancellation())
    assert card.is_lost


def test_a_load_that_needs_what_a_card_cannot_do_loses_no_card(card, claim, monkeypatch):
    def refused(*_, **__):
        error = torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")
        error.error_code = 209
        raise error

    monkeypatch.setattr(checkpoints, "load", refused)
    with pytest.raises(torch.AcceleratorError):
        card.render(claim, Seen().watch(claim), Cancellation())
    assert not card.is_lost


def test_a_loaded_checkpoint_has_its_card_prepared_as_no_pictures_doing(card, claim, monkeypatch):
    asked = []
    monkeypatch.setattr(card._engine, "warm_up", lambda weights, within: asked.append((weights, within)))
    for _ in range(2):
        paint(card, claim)
    ((weights, within),) = asked
    assert isinstance(weights, Weights)
    assert within == card._meter.other


def test_a_checkpoint_that_nobody_uses_leaves_before_a_picture_fails_for_want_of_memory(
    settings, sessions, farm, monkeypatch
):
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "halves", True)
    card = EngineCard(Address("cpu:0"), settings, sessions, lambda: None)
    paint(card, farm.claim(refiner=0.0))
    assert len(card.resident()) == 2
    original = denoising._denoise_rows

    def full(weights, rows):
        if len(card.resident()) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(weights, rows)

    monkeypatch.setattr(denoising, "_denoise_rows", full)
    plain = farm.claim()
    assert paint(card, plain).std() > 1
    assert card.resident() == [plain.checkpoint]
    assert card.broken_calls["out of memory"] > 0
    card.stop()
