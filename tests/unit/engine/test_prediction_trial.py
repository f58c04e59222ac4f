"""What a network predicts, measured when a checkpoint is loaded whose file does not say it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import torch
import yaml
from torch import Tensor

from shared.models.components import Component
from tests.support import small_checkpoints
from tests.support.card_ledger import Ledger
from worker.engine import devices
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.registry import ARCHITECTURES
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import layouts, load, trial
from worker.engine.loading.converted import Converted
from worker.engine.loading.host_cache import HostCache
from worker.engine.loading.loader import Loader
from worker.engine.sigma_table import SigmaTable
from worker.render.shared_networks import SharedNetworks

Write = Callable[..., Path]
MODELS = Path(__file__).parents[3] / "models" / "Stable-diffusion"
SIGMAS = SigmaTable.scaled_linear()
NOISE, VELOCITY = Prediction.NOISE, Prediction.VELOCITY
AVERAGE = torch.tensor([0.5, -0.3, 0.2, 0.1])[None, :, None, None].expand(1, 4, trial.SIDE, trial.SIDE)


class Network:
    """A U-Net whose output is a function of its input."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        self.config = {"cross_attention_dim": 8}
        self.answer = answer

    def __call__(self, inputs: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> tuple[Tensor]:
        assert (timesteps.tolist(), tuple(context.shape), context.any().item()) == ([999.0], (1, 77, 8), False)
        assert inputs.std().item() == pytest.approx(1, abs=0.05)
        return (self.answer(inputs),)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda x: x, NOISE),
        (lambda x: 0.998 * x + 0.1 * AVERAGE, NOISE),
        (lambda x: 0.85 * x + 0.3 * torch.roll(x, 1, 3), NOISE),
        (lambda _: -AVERAGE, VELOCITY),
        (lambda _: -torch.ones(1, 4, trial.SIDE, trial.SIDE), VELOCITY),
        (lambda x: 0.068 * x - AVERAGE, VELOCITY),
        (lambda x: 0.068 * x, VELOCITY),
        (torch.zeros_like, VELOCITY),
        (lambda x: -x, VELOCITY),
        (lambda x: x * torch.nan, VELOCITY),
        (lambda x: x * torch.inf, VELOCITY),
    ],
)
def test_a_network_predicts_noise_if_it_answers_noise_with_that_noise(
    answer: Callable[[Tensor], Tensor], expected: Prediction, cpu: Device
) -> None:
    unet: Any = Network(answer)
    assert trial.prediction(unet, ARCHITECTURES["sd2"], SIGMAS, cpu) is expected


def test_a_trained_network_shows_that_it_predicts_noise(cpu: Device) -> None:
    weights = load.load(MODELS / "scenes-v1.safetensors", cpu, torch.float32)
    assert weights.prediction is NOISE
    assert trial.prediction(weights.unet, weights.architecture, weights.sigmas, cpu) is NOISE


# Loads.


@pytest.fixture
def write(built_small: Callable[[str], small_checkpoints.Small], tmp_path: Path) -> Write:
    """Write a single file without a VAE that says nothing of its prediction, unless `beside` is a .yaml's."""

    def write(kind: str, **beside: object) -> Path:
        path = tmp_path / f"{kind}-{len(beside)}.safetensors"
        small_checkpoints.write_file(built_small(kind), path, with_vae=False, with_yaml=False)
        if beside:
            path.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"params": beside}}))
        return path

    return write


def never(*_: object) -> Prediction:
    raise AssertionError("what is known needs no measurement")


@pytest.mark.parametrize(("kind", "expected", "size"), [("sd2", NOISE, 512), ("sd2-velocity", VELOCITY, 768)])
def test_a_load_measures_what_a_file_does_not_say(
    kind: str, expected: Prediction, size: int, write: Write, cpu: Device
) -> None:
    with structlog.testing.capture_logs() as logs:
        weights = load.load(write(kind), cpu, torch.float32)
    assert (weights.prediction, weights.native_size) == (expected, size)
    differs = {"event": "prediction measured", "prediction": "noise", "assumed": "velocity", "log_level": "info"}
    assert [one for one in logs if one["event"] == "prediction measured"] == [differs] * (expected is NOISE)


@pytest.mark.parametrize(("stated", "expected"), [("v", VELOCITY), ("eps", NOISE)])
def test_what_a_file_states_is_not_measured(
    stated: str, expected: Prediction, write: Write, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "prediction", never)
    kind = "sd2" if expected is VELOCITY else "sd2-velocity"  # the network shows the other one
    assert load.load(write(kind, parameterization=stated), cpu, torch.float32).prediction is expected


def test_a_size_that_a_yaml_states_holds_for_either_prediction(write: Write) -> None:
    for path, sizes in ((write("sd2"), [512, 768]), (write("sd2", image_size=128), [1024, 1024])):
        figures = [layouts.read(path, "meta").figures.predicting(one) for one in (NOISE, VELOCITY)]
        assert [(one.prediction, one.native_size, one.note) for one in figures] == [
            (NOISE, sizes[0], None),
            (VELOCITY, sizes[1], None),
        ]


def test_the_host_keeps_what_a_card_measured_and_the_engines_thread_waits_for_none_of_it(
    write: Write, pretended: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended.clear()
    path, card, half = write("sd2"), devices.device("cuda:0"), torch.float16
    loader, held, cache = Loader(card), list[Converted](), HostCache(2**30, card)
    loader.start()
    found = [loader.run(partial(load.load, path, card, half, on_converted=held.append))]
    loader.run(lambda: list(load.prefetch(path, card, half, cache, ("prefetched", half))))
    loader.run(lambda: list(cache.keep(("kept", half), lambda: held[0])))
    found.append(loader.run(partial(load.load_cached, path, cache.get(("prefetched", half)), card)))
    monkeypatch.setattr(trial, "prediction", never)
    found.append(loader.run(partial(load.load_cached, path, cache.get(("kept", half)), card)))
    loader.stop()
    assert [(one.prediction, one.native_size) for one in found] == [(NOISE, 512)] * 3
    assert {entry.thread for entry in pretended.waits} <= {"loading"}
    assert pretended.errors == []


def test_a_network_that_files_share_is_measured_once_and_only_while_nothing_else_calls_it(
    write: Write, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    components = {name: Component(name, {}) for name in ("unet", "text_encoder")}
    stated, unstated, networks = write("sd2", parameterization="eps"), write("sd2"), SharedNetworks()

    def loaded(path: Path) -> Weights:
        return load.load(path, cpu, torch.float32, sharing=networks.sharing(components, {}, "unknown"))

    first, second = loaded(stated), loaded(unstated)
    assert second.text_encoders[0].network is first.text_encoders[0].network
    assert second.unet is not first.unet, "the engine may be calling that of the first"
    assert second.prediction is NOISE
    monkeypatch.setattr(trial, "prediction", never)
    for path in (unstated, stated, unstated):
        again = loaded(path)
        assert (again.unet is second.unet, again.prediction) == (True, NOISE)
