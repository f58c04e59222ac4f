from __future__ import annotations

import json
import os
import re
import shutil
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from shared.confined import child
from shared.errors import ModelFileError, OutOfMemory
from tests.support.checkpoints import write_tiny
from tests.support.conditioned import network
from tools.demo_checkpoint import layout
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import layouts, load, networks
from worker.engine.loading.inspect import Inspection, inspect
from worker.render.inspector import LIMITS

Tensors = dict[str, torch.Tensor]
MODELS = Path(__file__).parents[3] / "models"
UNET_BIAS = "model.diffusion_model.out.2.bias"
FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
TEXT = "cond_stage_model.transformer."


@pytest.fixture
def tensors(tiny_path: Path) -> Tensors:
    return safetensors.torch.load_file(tiny_path)


@pytest.fixture
def write(tiny_path: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write tensors as a checkpoint of the tiny sizes."""

    def write(content: object, name: str = "other.safetensors", *, yaml: bool = True) -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(content, path)
        else:
            torch.save(content, path)
        if yaml:
            shutil.copy(tiny_path.with_suffix(".yaml"), path.with_suffix(".yaml"))
        return path

    return write


def assert_same(one: Weights, other: Weights) -> None:
    for name in ("unet", "vae", "text_encoder"):
        expected = network(other, name).state_dict()
        for key, value in network(one, name).state_dict().items():
            assert torch.equal(value, expected[key]), (name, key)


def reason(path: Path, cpu: Device) -> str:
    """Why `path` is not a checkpoint: the catalogue and the loader say the same."""
    with pytest.raises(ModelFileError) as error:
        load.load(path, cpu, torch.float32)
    told = inspect(path).reason
    assert told
    assert told.replace("?", "") == re.sub(r"[\x1b?]", "", " ".join(str(error.value).split()))
    return told


def test_every_weight_of_a_file_reaches_its_network_bit_for_bit(
    tiny: Weights, tiny_path: Path, tensors: Tensors
) -> None:
    reference, _ = layout.load(tiny_path)
    expected = layout.original_tensors(reference)
    loaded = layout.Checkpoint(tiny.unet, tiny.vae, tiny.text_encoders[0].network, tiny.latent_scale)
    for name, value in layout.original_tensors(loaded).items():
        assert torch.equal(value, expected[name]), name
        assert torch.equal(value, tensors[name].float()), name
    assert len(expected) == len(tensors)


def test_the_figures_of_a_file_are_its_yamls(tiny: Weights) -> None:
    assert tiny.latent_scale == 0.5
    assert tiny.native_size == 64
    assert tiny.prediction is Prediction.NOISE
    assert tiny.sigmas.lowest == pytest.approx(0.0291675, rel=2e-5)
    assert tiny.bytes == sum(
        w.nbytes for n in (tiny.unet, tiny.vae, tiny.text_encoders[0].network) for w in n.parameters()
    )


def test_inspect_says_what_a_file_is(tiny_path: Path) -> None:
    assert inspect(tiny_path) == Inspection("checkpoint", "sd1", 64, None, prediction="noise")


def test_weights_stored_in_half_precision_are_loaded_in_the_format_asked_for(tiny_path: Path, cpu: Device) -> None:
    weights = load.load(tiny_path, cpu, torch.bfloat16)
    assert weights.dtype == torch.bfloat16
    assert next(weights.text_encoders[0].network.parameters()).dtype == torch.bfloat16
    assert next(weights.vae.parameters()).dtype == torch.float32


def test_a_file_may_be_replaced_while_it_is_loaded(tiny: Weights, tiny_path: Path, tmp_path: Path, cpu: Device) -> None:
    path = shutil.copy(tiny_path, tmp_path / "gone.safetensors")
    shutil.copy(tiny_path.with_suffix(".yaml"), tmp_path / "gone.yaml")
    weights = load.load(path, cpu, torch.float32)
    os.truncate(path, 0)
    assert_same(weights, tiny)


def test_velocity_is_read_from_the_yaml(tensors: Tensors, write: Callable[..., Path], cpu: Device) -> None:
    path = write(tensors)
    config = yaml.safe_load(path.with_suffix(".yaml").read_text())
    config["model"]["params"]["parameterization"] = "v"
    path.with_suffix(".yaml").write_text(yaml.safe_dump(config))
    assert load.load(path, cpu, torch.float32).prediction is Prediction.VELOCITY
    assert inspect(path).prediction == "velocity"


# Forms that people have.


def test_a_ckpt_holds_the_same_weights(
    tiny: Weights, tensors: Tensors, write: Callable[..., Path], cpu: Device
) -> None:
    path = write({"state_dict": tensors, "global_step": 470000}, "other.ckpt")
    assert inspect(path).reason is None
    assert_same(load.load(path, cpu, torch.float32), tiny)


def test_a_ckpt_of_the_first_torch_format_is_read(
    tiny: Weights, tensors: Tensors, tiny_path: Path, tmp_path: Path, cpu: Device
) -> None:
    torch.save(tensors, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    shutil.copy(tiny_path.with_suffix(".yaml"), tmp_path / "old.yaml")
    assert inspect(tmp_path / "old.ckpt").reason is None
    assert_same(load.load(tmp_path / "old.ckpt", cpu, torch.float32), tiny)


def test_lightnings_bookkeeping_is_tolerated(
    tiny: Weights, tensors: Tensors, write: Callable[..., Path], cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    kept = callback()
    kept.best_model_score = 1.0
    path = write({"callbacks": {callback: {"monitor": None}, "kept": kept}, "state_dict": tensors}, "lightning.ckpt")
    monkeypatch.undo()

    assert inspect(path).reason is None
    assert_same(load.load(path, cpu, torch.float32), tiny)


def test_what_else_stands_in_a_file_is_ignored(
    tiny: Weights, tensors: Tensors, write: Callable[..., Path], cpu: Device
) -> None:
    more = {
        "alphas_cumprod": torch.zeros(1000),
        "model_ema.decay": torch.zeros(()),
        "first_stage_model.loss.logvar": torch.zeros(()),
        f"{TEXT}text_model.embeddings.position_ids": torch.arange(77)[None],
        f"{TEXT}text_projection.weight": torch.zeros(64, 64),
    }
    assert_same(load.load(write(tensors | more), cpu, torch.float32), tiny)


def test_merged_files_may_lack_the_text_models_name(
    tiny: Weights, tensors: Tensors, write: Callable[..., Path], cpu: Device
) -> None:
    renamed = {name.replace(f"{TEXT}text_model.", TEXT): value for name, value in tensors.items()}
    assert_same(load.load(write(renamed), cpu, torch.float32), tiny)


@pytest.fixture(scope="module")
def saved_folder(tiny: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as diffusers saves one."""
    folder = tmp_path_factory.mktemp("saved")
    for name, saved in (("unet", tiny.unet), ("vae", tiny.vae), ("text_encoder", tiny.text_encoders[0].network)):
        saved.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "scheduler").mkdir()
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(noise))
    return folder


@pytest.fixture
def folder(saved_folder: Path, tmp_path: Path) -> Path:
    """A copy of that one, to change."""
    return Path(shutil.copytree(saved_folder, tmp_path, dirs_exist_ok=True))


def test_a_diffusers_folder_is_read(tiny: Weights, folder: Path, cpu: Device) -> None:
    weights = load.load(folder, cpu, torch.float32)
    assert_same(weights, tiny)
    assert weights.latent_scale == tiny.latent_scale
    assert weights.sigmas == tiny.sigmas
    assert inspect(folder).reason is None


def test_a_folders_vae_may_have_the_old_names(tiny: Weights, folder: Path, cpu: Device) -> None:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = safetensors.torch.load_file(file)
    for new, name in old.items():
        weights = {key.replace(new, name): value for key, value in weights.items()}
    safetensors.torch.save_file(weights, file)
    assert_same(load.load(folder, cpu, torch.float32), tiny)


@pytest.fixture
def inpainting(tensors: Tensors) -> Tensors:
    """The tiny checkpoint, as one that was trained for inpainting: its first layer sees 9 channels."""
    seen = torch.randn((32, 9, 3, 3), generator=torch.Generator().manual_seed(5)) / 10
    seen[:, :4] = tensors[FIRST_LAYER]
    return tensors | {FIRST_LAYER: seen.contiguous()}


def test_an_inpainting_checkpoint_is_read_whatever_its_yaml_says_of_channels(
    tiny: Weights, inpainting: Tensors, write: Callable[..., Path], cpu: Device
) -> None:
    path = write(inpainting)
    weights = load.load(path, cpu, torch.float32)
    assert weights.takes_mask
    assert not tiny.takes_mask
    assert torch.equal(weights.unet.conv_in.weight, inpainting[FIRST_LAYER])
    assert inspect(path) == Inspection("checkpoint", "sd1", 64, None, prediction="noise")


def test_an_inpainting_folder_is_read(tiny: Weights, inpainting: Tensors, folder: Path, cpu: Device) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 9}))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = safetensors.torch.load_file(file) | {"conv_in.weight": inpainting[FIRST_LAYER]}
    safetensors.torch.save_file(weights, file)
    assert load.load(folder, cpu, torch.float32).takes_mask
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 8}))
    assert "InstructPix2Pix" in reason(folder, cpu)


def test_a_folder_without_weights_says_so(folder: Path, cpu: Device) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "vae/ holds no weights" in reason(folder, cpu)
    (folder / "model_index.json").unlink()
    assert "model_index.json cannot be read" in reason(folder, cpu)


# Files that cannot be used, and why.


def test_a_missing_weight_is_named(tensors: Tensors, write: Callable[..., Path], cpu: Device) -> None:
    del tensors[UNET_BIAS]
    assert "U-Net" in (why := reason(write(tensors), cpu))
    assert "conv_out.bias" in why


@pytest.mark.parametrize(
    "name", ["first_stage_model.encoder.conv_in.weight", f"{TEXT}text_model.final_layer_norm.bias"]
)
def test_no_network_may_lack_anything(tensors: Tensors, write: Callable[..., Path], cpu: Device, name: str) -> None:
    del tensors[name]
    assert "missing" in reason(write(tensors), cpu)


def test_a_misshapen_weight_is_named(tensors: Tensors, write: Callable[..., Path], cpu: Device) -> None:
    tensors[UNET_BIAS] = torch.zeros(5)
    assert "conv_out.bias has the shape (5,), not (4,)" in reason(write(tensors), cpu)


def test_a_small_file_without_its_yaml_says_that_it_may_be_missing(
    tensors: Tensors, write: Callable[..., Path], cpu: Device
) -> None:
    assert reason(write(tensors, yaml=False), cpu)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", TEXT])
def test_a_file_without_one_network_is_no_checkpoint(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, prefix: str
) -> None:
    rest = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    assert "neither a Stable Diffusion checkpoint nor a VAE" in reason(write(rest), cpu)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.diffusion_model.joint_blocks.0.x", "a Stable Diffusion 3 model"),
        ("model.diffusion_model.double_blocks.0.x", "a Flux model"),
    ],
)
def test_other_architectures_are_named(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, name: str, what: str
) -> None:
    assert reason(write({name: torch.zeros(1)}), cpu) == f"is {what}: the farm cannot use these yet"
    assert inspect(write(tensors | {name: torch.zeros(1)})).kind == "other"


@pytest.mark.parametrize(
    ("channels", "what"), [(8, "InstructPix2Pix"), (5, "takes 5 channels; 4, or 9 for inpainting")]
)
def test_a_model_that_sees_something_else_is_named(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, channels: int, what: str
) -> None:
    tensors[FIRST_LAYER] = torch.zeros(32, channels, 3, 3)
    assert what in reason(write(tensors), cpu)


@pytest.mark.parametrize(
    "layer", [None, torch.zeros(32), torch.zeros(0, 9, 3, 3), torch.zeros(1, 9, 3, 3)], ids=range(4)
)
def test_a_first_layer_that_is_none_is_named(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, layer: torch.Tensor | None
) -> None:
    del tensors[FIRST_LAYER]
    more = {} if layer is None else {FIRST_LAYER: layer}
    assert reason(write(tensors | more), cpu)


@pytest.mark.parametrize("name", ["empty.safetensors", "empty.ckpt"])
def test_an_empty_file_says_so(tmp_path: Path, cpu: Device, name: str) -> None:
    (tmp_path / name).touch()
    assert reason(tmp_path / name, cpu) == "the file is empty"


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_truncated_file_says_so(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, suffix: str, share: float
) -> None:
    path = write(tensors, f"cut{suffix}")
    os.truncate(path, int(path.stat().st_size * share))
    assert "damaged" in reason(path, cpu)


def test_a_header_that_claims_to_be_huge_is_refused(tmp_path: Path, cpu: Device) -> None:
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "damaged" in reason(tmp_path / "huge.safetensors", cpu)


def test_a_header_whose_tensors_lie_outside_the_file_is_refused(tmp_path: Path, cpu: Device) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "outside.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    assert "damaged" in reason(tmp_path / "outside.safetensors", cpu)


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "first"])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, cpu: Device, form: str) -> None:
    content = {"state_dict": {"x": torch.zeros(1)}, "more": Hostile(f"touch {tmp_path}/ran")}
    torch.save(content, tmp_path / "hostile.ckpt", _use_new_zipfile_serialization=form == "zip")
    assert "holds code or objects" in reason(tmp_path / "hostile.ckpt", cpu)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_borrows_lightnings_name_runs_nothing(tmp_path: Path, cpu: Device) -> None:
    content = b"\x80\x02cpytorch_lightning.os\nsystem\nX\x04\x00\x00\x00true\x85R."
    (tmp_path / "borrowed.ckpt").write_bytes(content)
    assert reason(tmp_path / "borrowed.ckpt", cpu)


@pytest.mark.parametrize(
    "content",
    [
        "just words",
        "model: [1, 2]",
        "model: {params: {}}",
        "a: [",
        "model: &a {params: *a}",
        "x" * 10**5,
        "a: " + "9" * 5000,
    ],
    ids=range(7),
)
def test_a_yaml_that_describes_no_model_says_so(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, content: str
) -> None:
    path = write(tensors)
    path.with_suffix(".yaml").write_text(content)
    assert reason(path, cpu)


def test_a_yaml_that_is_nested_without_end_is_refused(tensors: Tensors, write: Callable[..., Path]) -> None:
    path = write(tensors)
    path.with_suffix(".yaml").write_text("[" * 2000)
    assert "RecursionError" in (inspect(path).reason or "")


def changed(path: Path, where: str, value: object) -> Path:
    """Set one figure of a checkpoint's .yaml, named by the last two words of its place."""
    config = yaml.load(path.with_suffix(".yaml").read_text(), yaml.CSafeLoader)
    params = config["model"]["params"]
    places = {
        "model": params,
        "unet": params["unet_config"]["params"],
        "vae": params["first_stage_config"]["params"]["ddconfig"],
    }
    network, _, name = where.partition(" ")
    places[network][name] = value
    path.with_suffix(".yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper))
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("model image_size", (0, -8, "64", "64x", [64], 7, 513, 10**30, 64.0, True, None)),
        ("model timesteps", (1, 0, -1000, 10**9, "1000", 2.5)),
        ("model linear_start", (0, -1.0, float("nan"), "0.001", 0.5, None)),
        ("model linear_end", (1.0, float("inf"), 0.0001, [0.012])),
        ("model scale_factor", (0, -1, float("nan"), float("inf"), "x", None)),
        ("model parameterization", ("x0", 1)),
        ("unet num_heads", (0, -2)),
        ("unet model_channels", (0, -32, 10**9, 10**400, "ab", [1])),
        ("unet channel_mult", ([], [1] * 9, [1] * 1_000, [10**9], [[1]], 3)),
        ("unet context_dim", (-1, 0, 128, 10**12)),
        ("unet num_res_blocks", (0, -1, 10**9)),
        ("unet transformer_depth", (0, 10**9)),
        ("vae ch", (0, -32, 10**9)),
        ("vae ch_mult", ([], [1], [10**9])),
        ("vae num_res_blocks", (0, 10**9)),
        ("vae z_channels", (8, 0)),
        ("vae out_ch", (0, 4)),
    ],
)
def test_a_figure_that_makes_no_sense_is_refused(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, where: str, values: tuple[object, ...]
) -> None:
    path = write(tensors)
    for value in values:
        assert inspect(changed(path, where, value)).reason, value
    with pytest.raises(ModelFileError):  # it goes the same way for each of them
        load.load(path, cpu, torch.float32)


def test_the_reason_names_the_figure(tensors: Tensors, write: Callable[..., Path], cpu: Device) -> None:
    path = changed(write(tensors), "model image_size", 0)
    assert reason(path, cpu) == "its image size is 0, not a whole number from 8 to 512"


def test_a_yaml_of_another_width_says_so(tensors: Tensors, write: Callable[..., Path], cpu: Device) -> None:
    path = write(tensors)
    config = yaml.safe_load(path.with_suffix(".yaml").read_text())
    config["model"]["params"]["unet_config"]["params"]["model_channels"] = 40
    path.with_suffix(".yaml").write_text(yaml.safe_dump(config))
    assert "it says model_channels 40, and they have 32" in reason(path, cpu)


def test_a_file_that_holds_itself_is_read_no_deeper(tmp_path: Path, cpu: Device) -> None:
    content: dict[str, object] = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "endless.ckpt")
    assert "is not a model" in reason(tmp_path / "endless.ckpt", cpu)


@pytest.mark.parametrize("form", ["zip", "first"])
def test_an_altered_pickle_is_refused_and_never_breaks_its_reader(tmp_path: Path, cpu: Device, form: str) -> None:
    torch.save({"state_dict": {"x": torch.zeros(4)}}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=form == "zip")
    content = (tmp_path / "x.ckpt").read_bytes()
    for place in range(0, len(content), 3):
        altered = bytearray(content)
        altered[place] ^= 0xFF
        (tmp_path / "altered.ckpt").write_bytes(altered)
        assert inspect(tmp_path / "altered.ckpt").reason


def test_what_nobody_foresaw_is_a_reason_as_well(tiny_path: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RecursionError("too\x00deep")

    monkeypatch.setattr(networks, "build", breaks)
    assert inspect(tiny_path) == Inspection("checkpoint", None, None, "cannot be read: RecursionError: too?deep")
    with pytest.raises(ModelFileError, match="RecursionError"):
        load.load(tiny_path, cpu, torch.float32)


def test_memory_that_runs_out_is_not_the_files_fault(
    tiny_path: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(networks, "fill", full)
    with pytest.raises(OutOfMemory, match=r"not enough memory for the checkpoint tiny\.safetensors"):
        load.load(tiny_path, cpu, torch.float32)


@pytest.mark.parametrize(
    "name", ["model.diffusion_model.foo", "first_stage_model.foo", f"{TEXT}text_model.foo", f"{TEXT}foo"]
)
def test_a_weight_too_many_is_named(tensors: Tensors, write: Callable[..., Path], cpu: Device, name: str) -> None:
    why = reason(write(tensors | {name: torch.zeros(3)}), cpu)
    assert "1 weights too many" in why
    assert "foo" in why


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"token": torch.zeros(10, 64)}, "10 words"),
        ({"position": torch.zeros(76, 64)}, "76 positions"),
        ({"token": torch.zeros(49408, 32)}, "32 wide"),
        ({"token": torch.zeros(49408)}, "misshapen"),
    ],
    ids=["vocabulary", "positions", "width", "shape"],
)
def test_a_text_encoder_that_cannot_read_every_prompt_is_refused(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, table: Tensors, why: str
) -> None:
    tables = {f"{TEXT}text_model.embeddings.{name}_embedding.weight": value for name, value in table.items()}
    assert why in reason(write(tensors | tables), cpu)


def test_a_suffix_in_capitals_is_read_as_well(
    tiny: Weights, tensors: Tensors, write: Callable[..., Path], cpu: Device
) -> None:
    path = write({"state_dict": tensors}, "OTHER.CKPT")
    assert inspect(path).reason is None
    assert_same(load.load(path, cpu, torch.float32), tiny)


def test_other_files_are_no_model_files(tmp_path: Path, cpu: Device) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert "is not a model file" in reason(tmp_path / "notes.txt", cpu)
    assert "cannot be read" in reason(tmp_path / "absent.safetensors", cpu)


# Stable Diffusion 1 itself, whose 2 GB of zeros take no room on disk.


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of Stable Diffusion 1.5's size, all zeros in half precision: a header, and a hole in the file."""
    shape = layout.Shape(
        image_size=512,
        unet_width=320,
        unet_multiples=(1, 2, 4, 4),
        unet_layers=2,
        unet_heads=8,
        vae_width=128,
        vae_multiples=(1, 2, 4, 4),
        vae_layers=2,
        text_width=768,
        text_layers=12,
    )
    with torch.device("meta"):
        names = layout.original_tensors(layout.build(shape))
    header, end = {}, 0
    for name, value in names.items():
        start, end = end, end + 2 * value.numel()
        header[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path = tmp_path_factory.mktemp("zeros") / "full.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)
    return path


@pytest.fixture
def full_size(zeros: Path, tmp_path: Path) -> Path:
    """That one, alone in a folder."""
    os.link(zeros, tmp_path / zeros.name)
    return tmp_path / zeros.name


@pytest.mark.nightly
def test_a_checkpoint_of_full_size_is_loaded(full_size: Path, cpu: Device) -> None:
    weights = load.load(full_size, cpu, torch.bfloat16)
    assert weights.bytes == 2 * (859_520_964 + 123_060_480) + 4 * 83_653_863
    assert weights.native_size == 512


def test_stable_diffusion_1_needs_no_yaml(full_size: Path) -> None:
    assert inspect(full_size) == Inspection("checkpoint", "sd1", 512, None, prediction="noise")
    parts = layouts.read(full_size, "meta")
    built = networks.build(parts)
    sizes = [
        sum(weight.numel() for weight in network.parameters())
        for network in (built["unet"], built["vae"], built["text_encoder"])
    ]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    assert parts.figures.latent_scale == 0.18215
    assert built["text_encoder"].config.num_attention_heads == 12
    assert built["unet"].config.attention_head_dim == 8  # heads, in diffusers' words


# What people have that is odd, and usable.

V1 = """
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    timesteps: 1000
    first_stage_key: "jpg"
    image_size: 64
    channels: 4
    conditioning_key: crossattn
    scale_factor: 0.18215
    use_ema: False
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: 4
        out_channels: 4
        model_channels: 320
        attention_resolutions: [ 4, 2, 1 ]
        num_res_blocks: 2
        channel_mult: [ 1, 2, 4, 4 ]
        num_heads: 8
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: 768
        use_checkpoint: True
        legacy: False
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        ddconfig: {double_z: true, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3, ch: 128,
                   ch_mult: [1, 2, 4, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}
"""


def test_a_description_that_says_what_the_weights_do_adds_nothing(full_size: Path) -> None:
    """In the words of the original file, which many lay beside their checkpoints."""
    full_size.with_suffix(".yaml").write_text(V1)
    found = inspect(full_size)
    assert (found.reason, found.description) == (None, None)
    full_size.with_suffix(".yaml").write_text(V1.replace("image_size: 64", "image_size: 96"))
    assert inspect(full_size).description
    full_size.with_suffix(".yaml").write_text(V1 + "# a remark")
    assert inspect(full_size).description is None


@pytest.mark.parametrize("name", ["scenes-v1", "scenes-pixel-v1"])
def test_the_shipped_checkpoints_need_no_description(name: str, tmp_path: Path) -> None:
    shipped = MODELS / "Stable-diffusion" / f"{name}.safetensors"
    (tmp_path / shipped.name).symlink_to(shipped)
    alone, described = inspect(tmp_path / shipped.name), inspect(shipped)
    assert alone == described == Inspection("checkpoint", "sd1", 128, None, prediction="noise")
    assert alone.description is described.description is None


def test_each_thing_that_is_said_tells(tensors: Tensors, write: Callable[..., Path]) -> None:
    path = write(tensors)
    said, seen = path.with_suffix(".yaml").read_text(), {inspect(path).description}
    for where, value in (
        ("model parameterization", "v"), ("model scale_factor", 0.6), ("model linear_end", 0.013),
        ("model timesteps", 900), ("model image_size", 16),
    ):  # fmt: skip
        seen.add(inspect(changed(path, where, value)).description)
        path.with_suffix(".yaml").write_text(said)
    assert len(seen) == 6
    assert inspect(changed(path, "unet use_checkpoint", value=True)).description in seen


def test_more_of_a_clip_or_a_vae_than_is_needed_is_left_alone(
    tiny: Weights, tensors: Tensors, write: Callable[..., Path], cpu: Device
) -> None:
    more = [
        f"{TEXT}vision_model.encoder.layers.0.mlp.fc1.weight", f"{TEXT}visual_projection.weight",
        f"{TEXT}text_projection.weight", f"{TEXT}logit_scale", "cond_stage_model.logit_scale",
        "first_stage_model.model_ema.decay", "first_stage_model.model_ema.encoderconv_inweight",
        "first_stage_model.loss.discriminator.main.0.weight", "model_ema.diffusion_modelout2bias",
        f"{TEXT}text_model.embeddings.position_ids", "lora_te_x.alpha",
    ]  # fmt: skip
    path = write(tensors | {name: torch.zeros(3) for name in more})
    assert inspect(path).reason is None
    assert_same(load.load(path, cpu, torch.float32), tiny)


def test_a_checkpoint_without_a_vae_says_so(tensors: Tensors, write: Callable[..., Path], cpu: Device) -> None:
    rest = {name: value for name, value in tensors.items() if not name.startswith("first_stage_model.")}
    path = write(rest)
    assert inspect(path) == Inspection("checkpoint", "sd1", 64, None, has_vae=False, prediction="noise")
    weights = load.load(path, cpu, torch.float32)
    with pytest.raises(ModelFileError, match="no VAE inside"):
        weights.require_vae()


def configure(folder: Path, name: str, **values: object) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    "kind",
    [
        "StableDiffusionInpaintPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipelineLegacy",
        "StableDiffusionControlNetPipeline", "StableDiffusionPipelineSafe",
    ],
)  # fmt: skip
def test_folders_of_other_pipelines_hold_the_same_networks(folder: Path, kind: str) -> None:
    configure(folder, "model_index.json", _class_name=kind)
    assert inspect(folder).reason is None


@pytest.mark.parametrize("kind", ["StableDiffusionXLAdapterPipeline", "FluxPipeline", "StableDiffusion3Pipeline"])
def test_folders_of_other_architectures_are_told(folder: Path, kind: str) -> None:
    configure(folder, "model_index.json", _class_name=kind)
    found = inspect(folder)
    assert (found.kind, found.reason) == ("other", f"is a folder of diffusers' {kind}: the farm cannot use these yet")


def test_what_a_folder_leaves_out_or_says_twice_is_understood(tiny: Weights, folder: Path, cpu: Device) -> None:
    configure(folder, "unet/config.json", sample_size=[8, 8])
    scheduler = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(scheduler.read_text())
    del config["num_train_timesteps"]
    scheduler.write_text(json.dumps(config))
    weights = load.load(folder, cpu, torch.float32)
    assert (weights.native_size, weights.sigmas) == (64, tiny.sigmas)
    assert_same(weights, tiny)
    configure(folder, "unet/config.json", sample_size=[8, "8"])
    assert "its image size is a text" in reason(folder, cpu)


@pytest.mark.parametrize(
    "variant", ["fp16", *(pytest.param(one, marks=pytest.mark.nightly) for one in ("non_ema", "bf16"))]
)
def test_a_folder_may_hold_another_variant_alone(tiny: Weights, folder: Path, cpu: Device, variant: str) -> None:
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / f"diffusion_pytorch_model.{variant}.safetensors")
    assert_same(load.load(folder, cpu, torch.float32), tiny)


def test_a_folders_network_may_lie_in_several_files(tiny: Weights, folder: Path, cpu: Device) -> None:
    unet = folder / "unet"
    weights = safetensors.torch.load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    listed = {}
    for number in (0, 1):
        name = f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors"
        part = dict(list(weights.items())[number::2])
        safetensors.torch.save_file(part, unet / name)
        listed |= dict.fromkeys(part, name)
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    assert inspect(folder).reason is None
    assert_same(load.load(folder, cpu, torch.float32), tiny)
    (unet / name).unlink()
    assert "unet/diffusion_pytorch_model-00002-of-00002.safetensors is missing" in reason(folder, cpu)
    index.write_text(json.dumps({"weight_map": {"x": "../../secret.safetensors"}}))
    assert "lists no files of that folder" in reason(folder, cpu)


@pytest.mark.parametrize(
    "content", ["top-secret: canary 4711\n", "a: [canary", "canary", "model: {params: canary}", "{canary: &a [*a]}"]
)
def test_no_reason_repeats_what_a_description_says(
    tensors: Tensors, write: Callable[..., Path], cpu: Device, content: str
) -> None:
    path = write(tensors)
    path.with_suffix(".yaml").write_text(content)
    assert "canary" not in reason(path, cpu)


def grow(path: Path, size_bytes: int) -> None:
    """Add a bfloat16 tensor of this size to a safetensors file; it takes no room on the disk."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, weights = json.loads(data[8 : 8 + length]), data[8 + length :]
    end = len(weights) + size_bytes
    header["extra"] = {"dtype": "BF16", "shape": [size_bytes // 2], "data_offsets": [len(weights), end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights)
    os.truncate(path, 8 + len(text) + end)


def test_a_checkpoint_may_be_larger_than_the_memory_of_its_reader(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "large.safetensors")
    grow(path, 4 * LIMITS.memory_bytes)
    with child._memory(LIMITS.memory_bytes):
        assert inspect(path) == Inspection("checkpoint", "sd1", 64, None, prediction="noise")
