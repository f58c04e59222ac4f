"""Files of upscalers: the forms that people have, and what is refused with its reason."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shared.errors import ModelFileError, OutOfMemory
from tests.support import upscalers
from worker.engine import devices
from worker.engine.devices import Device
from worker.engine.loading.inspect import inspect
from worker.engine.loading.load import explained
from worker.engine.upscaling import architectures, files
from worker.engine.upscaling.architectures import PixelNetwork

from spandrel.architectures import Compact  # isort: skip

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid", "ignore:Initializing zero-element")

PICTURE = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(5))
COMPACT = "RealESRGAN Compact"


def refused(path: Path) -> str:
    """Why the scan does not offer a file; its load says the same, unless the machine's memory ends before."""
    found = inspect(path)
    with pytest.raises((ModelFileError, OutOfMemory)) as raised:
        explained("the upscaler", lambda: files.load(path, devices.device("cpu:0"), torch.float32))
    if found.kind == "upscaler":
        assert isinstance(raised.value, OutOfMemory) or str(raised.value) == found.reason
    return found.reason or ""


# Forms that people have.


@pytest.mark.parametrize("name", upscalers.NETWORKS)
def test_it_is_recognised_and_computes_what_its_network_does(name: str, tmp_path: Path, cpu: Device) -> None:
    make, algorithm, scale = upscalers.NETWORKS[name]
    path = upscalers.write(tmp_path / "4x_name.safetensors", upscalers.weights(name, seed=3))
    found = inspect(path)
    assert (found.kind, found.reason, found.details) == ("upscaler", None, {"algorithm": algorithm, "scale": scale})
    network = files.load(path, cpu, torch.float32)
    with torch.inference_mode():
        made = network(PICTURE)
    assert made.shape == (1, 3, 20 * scale, 24 * scale)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        reference = make().eval()
    with torch.inference_mode():
        expected = reference(PICTURE).clamp(0, 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrapping", [None, "params_ema", "params", "params-ema", "model_state_dict", "net", "model"])
def test_pytorch_files_hold_the_weights_under_the_names_of_trainers(wrapping: str | None, tmp_path: Path) -> None:
    path = upscalers.write(tmp_path / "4x.pth", upscalers.weights("Compact"), wrapping)
    assert files.inspected(path)[:3] == ("upscaler", COMPACT, 4)


def test_prefixes_of_parallel_training_are_left_out(tmp_path: Path) -> None:
    content = {f"module.{name}": value for name, value in upscalers.weights("Compact").items()}
    assert files.inspected(upscalers.write(tmp_path / "4x.pth", content)).algorithm == COMPACT


def test_weights_in_half_precision_are_computed_in_single(tmp_path: Path, cpu: Device) -> None:
    content = {name: value.half() for name, value in upscalers.weights("Compact").items()}
    path = upscalers.write(tmp_path / "4x.safetensors", content)
    assert files.inspected(path).numbers == {"float16": sum(value.numel() for value in content.values())}
    assert {one.dtype for one in files.load(path, cpu, torch.float32).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "formats", "expected"),
    [
        ("Compact", {torch.float16, torch.bfloat16}, torch.float16),
        ("SwinIR", {torch.float16, torch.bfloat16}, torch.bfloat16),
        ("SwinIR", {torch.float16}, torch.float32),
    ],
)
def test_half_precision_is_the_one_that_network_and_card_have(
    name: str, formats: set[torch.dtype], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: torch.bfloat16 in formats)
    network = built(name)
    card = Device("cuda:0", "cuda", "a card", 2**33)
    assert files._number_format(network, card, torch.float16) is expected
    assert files._number_format(network, card, torch.float32) is torch.float32


def test_a_cpu_in_bfloat16_takes_no_float16(cpu: Device) -> None:
    assert files._number_format(built("Compact"), cpu, torch.bfloat16) is torch.bfloat16


def built(name: str) -> PixelNetwork:
    return architectures.built(upscalers.weights(name))


def test_its_bytes_are_those_of_weights_and_tables(tmp_path: Path, cpu: Device) -> None:
    path = upscalers.write(tmp_path / "4x.safetensors", upscalers.weights("Compact"))
    assert files.load(path, cpu, torch.float32).bytes == 4 * sum(files.inspected(path).numbers.values())


# Files that are something else, or hostile.


def test_a_checkpoint_a_lora_and_a_vae_are_no_upscalers() -> None:
    empty = torch.empty(0)
    for name in (
        "model.diffusion_model.input_blocks.0.0.weight",
        "lora_unet_x.lora_up.weight",
        "encoder.conv_in.weight",
    ):
        assert not files.holds_one({name: empty, "body.0.weight": empty, "other": empty})


def test_a_network_that_fills_in_pictures_is_refused(tmp_path: Path) -> None:
    path = upscalers.write(tmp_path / "lama.safetensors", {"model.model.1.bn_l.running_mean": torch.zeros(2)})
    assert refused(path) == "is a LaMa network, which fills in pictures: upscalers and face restorers are read"


def test_a_network_for_grey_pictures_is_refused(tmp_path: Path) -> None:
    grey = Compact.Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=1, upscale=2).state_dict()
    assert "takes 1 and gives 1 colour channels" in refused(upscalers.write(tmp_path / "grey.safetensors", grey))


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    content = upscalers.weights("Compact") | changes
    return {name: value for name, value in content.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed(**{"body.2.bias": None}), "Missing key"),
        (changed(**{"body.2.bias": torch.zeros(7)}), "size mismatch"),
        (changed(**{"body.2.unknown": torch.zeros(7)}), "Unexpected key"),
        (changed(**{"body.99.weight": torch.zeros(7)}), "do not fit"),
        (changed(**{"body.999999999.weight": torch.zeros(7)}), "no network is so deep"),
        (changed(**{"body.0.weight": torch.zeros(2**20, 3, 0, 3)}), "do not fit"),
        (changed(**{"body.0.weight": torch.zeros(16)}), "do not fit"),
        (changed(**{"body.6.bias": torch.zeros(867), "body.6.weight": torch.zeros(867, 16, 3, 3)}), "17 times"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_within_a_moment(
    content: dict[str, Tensor], reason: str, tmp_path: Path
) -> None:
    path = upscalers.write(tmp_path / "4x.safetensors", content)
    started = time.thread_time()
    assert reason in refused(path)
    assert time.thread_time() - started < 5


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    for name in ("4x.safetensors", "4x.pth"):
        path = upscalers.write(tmp_path / name, upscalers.weights("Compact"))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "damaged" in refused(path)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["HARM"],)


def test_a_pickle_that_executes_is_refused_and_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARM", str(tmp_path / "done"))
    torch.save({"params": {**upscalers.weights("Compact"), "x": Harmful()}}, tmp_path / "4x.pth")
    assert "holds code" in refused(tmp_path / "4x.pth")
    assert not (tmp_path / "done").exists()
