"""Checkpoints of every architecture, from all the forms that people have: what is read, and by which rule."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
import yaml
from _pytest.mark import ParameterSet
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.errors import ModelFileError
from tests.support import small_checkpoints
from tests.support.refused_files import reason
from tests.support.small_checkpoints import KINDS
from worker.engine.architectures.prediction import Prediction
from worker.engine.devices import Device
from worker.engine.loading import layouts, load, networks
from worker.engine.loading.inspect import Inspection, inspect
from worker.engine.sigma_table import ALIGNED_SD1, ALIGNED_XL

Small = Callable[[str], Path]
Built = Callable[[str], small_checkpoints.Small]
UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
NATIVE = {"sd1": 512, "sd2": 512, "sd2-velocity": 768, "sd2-inpainting": 512}
ARCHITECTURES = {kind: kind if kind == "sdxl-refiner" else kind.partition("-")[0] for kind in KINDS}


def changed(path: Path, folder: Path, **tensors: Tensor | None) -> Path:
    """Return a copy of the single file at `path`, alone in `folder`, with other tensors; None removes one."""
    if not tensors:
        os.link(path, folder / "changed.safetensors")
        return folder / "changed.safetensors"
    weights = {name: one for name, one in (load_file(path) | tensors).items() if one is not None}
    save_file({name: one.contiguous() for name, one in weights.items()}, folder / "changed.safetensors")
    return folder / "changed.safetensors"


def copied(folder: Path, to: Path) -> Path:
    """Return a copy of a folder of diffusers below `to`, in which all but the weights may be written over."""

    def copy(source: str, target: str) -> None:
        (os.link if source.endswith(".safetensors") else shutil.copyfile)(source, target)

    return Path(shutil.copytree(folder, to / "folder", copy_function=copy))


def by_night(*case: object) -> ParameterSet:
    """Return a case of which those by day are representatives."""
    return pytest.param(*case, marks=pytest.mark.nightly)


def every_form(by_day: Collection[tuple[str, str]]) -> list[ParameterSet]:
    """Each kind of small checkpoint as a file and as a folder; all but those `by_day` are nightly."""
    forms = [(kind, form) for kind in KINDS for form in ("file", "folder")]
    return [pytest.param(*one) if one in by_day else by_night(*one) for one in forms]


@pytest.mark.parametrize(("kind", "form"), every_form({("sdxl", "file"), ("sd2", "folder")}))
def test_every_weight_reaches_its_network(
    kind: str, form: str, small_file: Small, small_folder: Small, built_small: Built
) -> None:
    small = built_small(kind)
    parts = layouts.read(small_file(kind) if form == "file" else small_folder(kind))
    built = networks.build(parts)
    expected = {"unet": small.unet, "vae": small.vae, **small.text_encoders}
    assert built.keys() == expected.keys()
    for name, network in expected.items():
        networks.fill(built[name], parts.networks[name].weights)
        for key, weight in network.state_dict().items():
            assert torch.equal(built[name].state_dict()[key].float(), weight), (name, key)


@pytest.mark.parametrize(
    ("kind", "form"),
    every_form(
        {
            *((kind, "file") for kind in ("sd1", "sd2-inpainting", "sdxl", "sdxl-refiner")),
            ("sd2-velocity", "folder"),
            ("sdxl-velocity", "folder"),
        }
    ),
)
def test_the_figures_of_every_kind_are_its_own(kind: str, form: str, small_file: Small, small_folder: Small) -> None:
    path, traits = small_file(kind) if form == "file" else small_folder(kind), KINDS[kind]
    prediction = Prediction.VELOCITY if traits.predicts_velocity else Prediction.NOISE
    size = NATIVE.get(kind, 1024)
    inspection = inspect(path)
    assert inspection == Inspection("checkpoint", ARCHITECTURES[kind], size, None, prediction=prediction.value)
    assert inspection.is_inpainting == kind.endswith("-inpainting")
    assert inspection.has_zero_terminal_snr == (kind == "sdxl-velocity")
    found = layouts.read(path, "meta").figures
    assert (found.prediction, found.native_size, found.latent_scale) == (prediction, size, traits.latent_scale)
    assert found.sigmas.aligned == (ALIGNED_XL if kind.startswith("sdxl") else ALIGNED_SD1)
    assert found.sigmas.highest == pytest.approx(4518.76 if traits.has_zero_terminal_snr else 14.6146, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("sd2-velocity", torch.float8_e4m3fn),
        ("sd2", torch.float8_e5m2),
        by_night("sdxl", torch.float8_e5m2),
        by_night("sdxl-refiner", torch.bfloat16),
    ],
)
def test_every_stored_format_is_loaded(
    kind: str, dtype: torch.dtype, built_small: Built, tmp_path: Path, cpu: Device
) -> None:
    path = small_checkpoints.write_file(built_small(kind), tmp_path / "one.safetensors", dtype)
    assert inspect(path).reason is None
    weights = load.load(path, cpu, torch.float32)
    stored = load_file(path)
    assert torch.equal(weights.unet.conv_in.weight, stored[FIRST].float())
    assert len(weights.text_encoders) == len(KINDS[kind].text_encoders)


@pytest.mark.parametrize("kind", ["sd2", by_night("sdxl-refiner")])
def test_a_file_may_lack_its_vae(kind: str, built_small: Built, tmp_path: Path, cpu: Device) -> None:
    small = built_small(kind)
    path = small_checkpoints.write_file(small, tmp_path / "bare.safetensors", with_vae=False)
    folder = small_checkpoints.write_folder(small, tmp_path / "bare", with_vae=False)
    for form in (path, folder):
        assert (found := inspect(form)).reason is None
        assert not found.has_vae
    weights = load.load(path, cpu, torch.float32)
    assert (weights.vae, weights.latent_scale) == (None, KINDS[kind].latent_scale)


@pytest.mark.parametrize("kind", ["sd2", by_night("sdxl-inpainting")])
def test_folders_come_in_shards_and_in_half_precision(
    kind: str, built_small: Built, tmp_path: Path, cpu: Device
) -> None:
    small = built_small(kind)
    folder = small_checkpoints.write_folder(small, tmp_path / "folder", variant="fp16", shard_bytes=2**20)
    weights = load.load(folder, cpu, torch.float32)
    assert torch.equal(weights.unet.conv_out.weight, small.unet.conv_out.weight)
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    shards[-1].unlink()
    assert f"unet/{shards[-1].name} is missing" in reason(folder)
    index = next((folder / "unet").glob("*.index.*"))
    index.unlink()
    assert f"unet/ holds {shards[0].name}, but not" in reason(folder)


def test_a_pickled_file_holds_the_same(small_file: Small, tmp_path: Path, cpu: Device) -> None:
    torch.save({"state_dict": load_file(small_file("sdxl"))}, tmp_path / "sdxl.ckpt")
    assert inspect(tmp_path / "sdxl.ckpt") == inspect(small_file("sdxl"))
    expected = load.load(small_file("sdxl"), cpu, torch.float32).text_encoders[1].network.state_dict()
    found = load.load(tmp_path / "sdxl.ckpt", cpu, torch.float32).text_encoders[1].network.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


# What a network predicts, and its noise table.


def yaml_beside(path: Path, **params: object) -> None:
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"params": params}}))


def test_stable_diffusion_2_is_taken_for_velocity_unless_something_says_otherwise(
    small_file: Small, tmp_path: Path
) -> None:
    path = changed(small_file("sd2"), tmp_path)
    found = inspect(path)
    assert (found.prediction, found.native_size, found.description) == ("velocity", 768, None)
    assert found.note
    assert "velocity is assumed" in found.note
    assert "until a worker loads it and measures" in found.note
    assert "512 pixels may suit it better" in found.note
    assert "`model: {params: {parameterization: eps}}`" in found.note
    yaml_beside(path, parameterization="eps")
    found = inspect(path)
    assert (found.prediction, found.native_size, found.note) == ("noise", 512, None)
    assert found.description  # it adds to the weights, which would be taken for another thing without it
    yaml_beside(path, parameterization="v")
    found = inspect(path)
    assert (found.prediction, found.native_size, found.note, found.description) == ("velocity", 768, None, None)


@pytest.mark.parametrize(
    ("kind", "tensors", "expected"),
    [
        ("sd2", {"v_pred": torch.tensor([])}, ("velocity", False)),
        ("sd2", {"global_step": torch.tensor(875_000)}, ("noise", False)),
        ("sd2", {"global_step": torch.tensor(110_000)}, ("velocity", True)),
        ("sd2", {"global_step": torch.zeros(2)}, ("velocity", True)),
        ("sd2-inpainting", {}, ("noise", False)),
        ("sdxl", {"v_pred": torch.tensor([])}, ("velocity", False)),
        by_night("sdxl-inpainting", {"v_pred": torch.zeros(3)}, ("velocity", False)),
        by_night("sdxl-refiner", {"v_pred": torch.tensor([])}, ("velocity", False)),
        ("sdxl-velocity", {"v_pred": None}, ("noise", False)),
    ],
)
def test_a_file_says_what_it_predicts(
    kind: str, tensors: dict[str, Tensor], expected: tuple[str, bool], small_file: Small, tmp_path: Path
) -> None:
    path = changed(small_file(kind), tmp_path, **tensors)
    found = inspect(path)
    assert (found.reason, (found.prediction, bool(found.note))) == (None, expected)
    figures = layouts.read(path).figures
    assert (figures.prediction.value, figures.if_noise is not None) == expected, "only what is assumed is measured"


@pytest.mark.parametrize(
    ("step", "dtype"),
    [
        (875_000.0, torch.float32),
        (float("nan"), torch.bfloat16),
        (1.0, torch.bool),
        *(
            by_night(step, dtype)
            for step in (1.0, float("nan"), 875_000.0)
            for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float32, torch.bool)
        ),
    ],
)
def test_only_an_integer_counts_as_the_training_step(
    step: float, dtype: torch.dtype, small_file: Small, tmp_path: Path
) -> None:
    path = changed(small_file("sd2"), tmp_path, global_step=torch.tensor(step).to(dtype))
    assert ((found := inspect(path)).reason, found.prediction) == (None, "velocity")
    assert layouts.read(path).figures.prediction is Prediction.VELOCITY


def test_a_pickle_keeps_its_number_of_training_steps_beside_the_weights(small_file: Small, tmp_path: Path) -> None:
    content = {"state_dict": load_file(small_file("sd2")), "global_step": 875_000}
    torch.save(content, tmp_path / "base.ckpt")
    assert (found := inspect(tmp_path / "base.ckpt")).prediction == "noise"
    assert found.native_size == 512
    torch.save(content | {"global_step": 2**70}, tmp_path / "base.ckpt")
    assert inspect(tmp_path / "base.ckpt").prediction == "velocity"


@pytest.mark.parametrize("kind", [by_night("sd1"), by_night("sd2-inpainting"), "sdxl"])
def test_zero_terminal_snr_is_a_key_of_its_own(kind: str, small_file: Small, tmp_path: Path) -> None:
    path = changed(small_file(kind), tmp_path, ztsnr=torch.tensor([]))
    if kind == "sd1":
        path.with_suffix(".yaml").write_bytes(small_file(kind).with_suffix(".yaml").read_bytes())
    figures = layouts.read(path, "meta").figures
    assert (figures.prediction, figures.sigmas.highest) == (Prediction.NOISE, pytest.approx(4518.76, rel=1e-4))


def test_a_folder_says_what_it_predicts_in_its_scheduler(small_folder: Small, tmp_path: Path) -> None:
    folder = copied(small_folder("sdxl"), tmp_path)
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    for told, expected in (("v_prediction", "velocity"), ("epsilon", "noise")):
        file.write_text(json.dumps(config | {"prediction_type": told}))
        assert inspect(folder).prediction == expected
    file.write_text(json.dumps(config | {"prediction_type": "sample"}))
    assert "it predicts sample" in reason(folder)
    file.write_text(json.dumps(config | {"beta_schedule": "linear"}))
    assert "its beta schedule is linear" in reason(folder)


# A .yaml beside a file.

SDXL_BASE = {"network_config": {"params": {"model_channels": 64, "context_dim": 192, "adm_in_channels": 1664}}}


def scaling(name: str) -> dict[str, object]:
    target = f"sgm.modules.diffusionmodules.denoiser_scaling.{name}"
    return SDXL_BASE | {"denoiser_config": {"params": {"scaling_config": {"target": target}}}}


def test_the_yaml_of_stable_diffusion_xl_has_other_names(small_file: Small, tmp_path: Path) -> None:
    path = changed(small_file("sdxl"), tmp_path)
    yaml_beside(path, **scaling("EpsScaling"), scale_factor=0.13025)
    assert (found := inspect(path)).description is None
    assert found.prediction == "noise"
    yaml_beside(path, **scaling("VScaling"))
    assert (found := inspect(path)).prediction == "velocity"
    assert found.description
    yaml_beside(path, **scaling("EDMScaling"))
    assert "its scaling is EDMScaling" in reason(path)


@pytest.mark.parametrize(
    ("kind", "said", "words"),
    [
        ("sd2", {"unet_config": {"params": {"context_dim": 768}}}, "context_dim 768, and they have 128"),
        ("sd2", {"unet_config": {"params": {"model_channels": 320}}}, "model_channels 320, and they have 64"),
        ("sd2", {"unet_config": {"params": {"channel_mult": [1, 2, 4, 4]}}}, "channel_mult [1, 2, 4, 4], and they"),
        ("sdxl", {"unet_config": {"params": {"context_dim": 1024}}}, "context_dim 1024, and they have 192"),
        ("sdxl", {"network_config": {"params": {"context_dim": [2048, 2048]}}}, "context_dim 2048, and they have 192"),
        ("sdxl", {"network_config": {"params": {"adm_in_channels": 2560}}}, "adm_in_channels 2560, and they have 1664"),
        ("sdxl", {"first_stage_config": {"params": {"ddconfig": {"ch": 128}}}}, "ch 128, and they have 32"),
        ("sd1", None, "context_dim 128, and they have 64"),
    ],
)
def test_a_yaml_that_contradicts_the_weights_is_named(
    kind: str, said: dict[str, object] | None, words: str, small_file: Small, tmp_path: Path
) -> None:
    path = changed(small_file(kind), tmp_path)
    if said is None:
        path.with_suffix(".yaml").write_bytes(small_file("sd2").with_suffix(".yaml").read_bytes())
    else:
        yaml_beside(path, **said)
    why = reason(path)
    assert why.startswith("changed.yaml beside it contradicts its weights: it says ")
    assert words in why


@pytest.mark.parametrize(
    "content", ["canary", "[canary]", "model: {params: [canary]}", "a: [canary", "{1: {2: canary}}"]
)
def test_a_yaml_that_describes_nothing_is_named_and_not_repeated(
    content: str, small_file: Small, tmp_path: Path
) -> None:
    path = changed(small_file("sdxl"), tmp_path)
    path.with_suffix(".yaml").write_text(content)
    why = reason(path)
    assert "changed.yaml beside it" in why
    assert "canary" not in why


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"parameterization": "x0"}, "it predicts x0; eps and v are supported"),
        ({"parameterization": ["v"]}, "it predicts a list"),
        ({"scale_factor": 0}, "its scale factor is 0"),
        ({"image_size": "large"}, "its image size is large"),
        ({"linear_end": 2.0}, "its betas go from 0.00085 to 2.0"),
        ({"timesteps": 10**9}, "its number of timesteps"),
    ],
)
def test_a_figure_in_a_yaml_that_makes_no_sense_is_refused(
    params: dict[str, object], words: str, small_file: Small, tmp_path: Path
) -> None:
    path = changed(small_file("sdxl"), tmp_path)
    yaml_beside(path, **params)
    assert words in reason(path)


# Relatives that cannot be used, and damage.


def seeing(channels: int, kind: str, small_file: Small, folder: Path) -> Path:
    first = load_file(small_file(kind))[FIRST]
    return changed(small_file(kind), folder, **{FIRST: torch.zeros(len(first), channels, 3, 3)})


@pytest.mark.parametrize(
    ("kind", "channels", "words"),
    [
        ("sd2", 5, "is a depth checkpoint of Stable Diffusion 2"),
        ("sd2", 7, "is an upscaler of Stable Diffusion 2 (x4)"),
        ("sd2", 8, "is an InstructPix2Pix checkpoint"),
        ("sdxl", 8, "is an InstructPix2Pix checkpoint"),
        ("sdxl", 5, "takes 5 channels; 4, or 9 for inpainting"),
    ],
)
def test_a_network_that_sees_something_else_is_named(
    kind: str, channels: int, words: str, small_file: Small, tmp_path: Path
) -> None:
    assert words in reason(seeing(channels, kind, small_file, tmp_path))


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("sd2", f"{UNET}label_emb.0.0.weight", "is an unCLIP checkpoint of Stable Diffusion 2"),
        ("sdxl", "edm_mean", "is a Playground 2.5 checkpoint"),
        ("sdxl", "edm_vpred.sigma_max", "is a CosXL checkpoint"),
    ],
)
def test_a_relative_is_named(kind: str, name: str, words: str, small_file: Small, tmp_path: Path) -> None:
    path = changed(small_file(kind), tmp_path, **{name: torch.zeros(4)})
    assert reason(path).startswith(words)
    assert inspect(path).kind == "other"


@pytest.mark.parametrize(
    ("kind", "prefix", "words"),
    [
        ("sdxl", "conditioner.embedders.0.", "without its text encoder (conditioner.embedders.0.transformer.*)"),
        ("sdxl", "conditioner.embedders.1.", "without its text encoder 2 (conditioner.embedders.1.model.*)"),
        ("sdxl", UNET, "without its U-Net (model.diffusion_model.*)"),
        ("sdxl-refiner", UNET, "is a Stable Diffusion XL refiner checkpoint without its U-Net"),
        ("sd2", UNET, "is a Stable Diffusion 2 checkpoint without its U-Net"),
    ],
)
def test_a_missing_network_is_named(kind: str, prefix: str, words: str, small_file: Small, tmp_path: Path) -> None:
    gone = dict.fromkeys(name for name in load_file(small_file(kind)) if name.startswith(prefix))
    assert words in reason(changed(small_file(kind), tmp_path, **gone))


SD1_TEXT, SD2_TEXT = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_L, OPEN_CLIP, REFINER = (
    "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.", "conditioner.embedders.0.model."
)  # fmt: skip


@pytest.mark.parametrize(
    "left",
    ["ln_final.weight", *map(by_night, ("logit_scale", "text_model.embeddings.position_ids", "visual.a.b"))],
)
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sdxl-refiner"])
def test_leftovers_of_a_merge_do_not_decide_the_architecture(kind: str, left: str, small_file: Small) -> None:
    own, weights = KINDS[kind].text_encoders.values(), shapes(small_file(kind))
    strays = {f"{prefix}{left}": torch.zeros(3) for prefix in {SD1_TEXT, SD2_TEXT, CLIP_L, OPEN_CLIP, REFINER} - {*own}}
    sure = max(layouts.READERS, key=lambda reader: reader.likeness(weights | strays))
    assert sure.architecture.name == kind
    text = next(iter(own))
    damaged = {name: one for name, one in weights.items() if "token_embedding" not in name or not name.startswith(text)}
    with pytest.raises(ModelFileError, match="token_embedding"):
        build(damaged | strays)


def test_the_text_projection_is_read_as_a_layer_too(small_file: Small, tmp_path: Path) -> None:
    name, file = f"{OPEN_CLIP}text_projection", small_file("sdxl")
    turned = load_file(file)[name].T
    path = changed(file, tmp_path, **{name: None, f"{name}.weight": turned})
    assert inspect(path).reason is None
    for one in (file, path):
        assert torch.equal(layouts.read(one).networks["text_encoder_2"].weights["text_projection.weight"], turned)
    assert "text_projection is missing" in reason(changed(file, tmp_path, **{name: None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latents_mean": None, "latents_std": None, "shift_factor": None}, None),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "shift_factor": 0.0}, None),
        ({"latents_mean": [0.1] * 4}, "its VAE has a latents_mean"),
        ({"latents_std": [2.0] * 4}, "its VAE has a latents_std"),
        ({"shift_factor": 0.1}, "its VAE has a shift_factor (0.1), which is not supported"),
    ],
)
def test_a_folder_whose_vae_moves_its_latents_is_refused(
    changes: dict[str, object], words: str | None, small_folder: Small, tmp_path: Path
) -> None:
    shutil.copytree(small_folder("sdxl"), tmp_path / "folder")
    path = tmp_path / "folder" / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    if words is None:
        assert inspect(tmp_path / "folder").reason is None
    else:
        assert words in reason(tmp_path / "folder")


def test_a_unet_alone_is_named(small_file: Small, tmp_path: Path) -> None:
    gone = dict.fromkeys(name for name in load_file(small_file("sdxl")) if not name.startswith(UNET))
    assert "is a Stable Diffusion XL checkpoint without its text encoder" in reason(
        changed(small_file("sdxl"), tmp_path, **gone)
    )


def test_a_distilled_unet_is_named(small_file: Small) -> None:
    weights, lacking = shapes(small_file("sdxl")), f"{UNET}middle_block.1.transformer_blocks.1."
    with pytest.raises(ModelFileError, match="unequal depths, as distilled ones do"):
        build({name: one for name, one in weights.items() if not name.startswith(lacking)})
    with pytest.raises(ModelFileError, match="weights are missing, first mid_block"):  # which is damage
        build({name: one for name, one in weights.items() if name != f"{lacking}norm1.weight"})


@pytest.mark.parametrize(
    ("lacking", "missing"),
    [
        ("", "0.in_layers.2.weight"),
        ("0.", "0.in_layers.2.weight"),
        ("1.", "1.transformer_blocks.0.norm1.weight"),
        ("1.transformer_blocks.", "1.transformer_blocks.0.norm1.weight"),
        ("2.", "2.in_layers.2.weight"),
    ],
)
@pytest.mark.parametrize("kind", [by_night("sd2"), "sdxl", by_night("sdxl-refiner")])
def test_a_damaged_middle_block_is_not_taken_for_a_distilled_unet(
    kind: str, lacking: str, missing: str, small_file: Small
) -> None:
    weights = shapes(small_file(kind))
    damaged = {name: one for name, one in weights.items() if not name.startswith(f"{UNET}middle_block.{lacking}")}
    with pytest.raises(ModelFileError, match=f"its U-Net's middle_block.{missing} is missing"):
        build(damaged)


def test_a_middle_block_without_attention_is_a_distilled_unets(small_file: Small) -> None:
    gone = tuple(f"{UNET}middle_block.{layer}." for layer in (1, 2))
    with pytest.raises(ModelFileError, match="unequal depths, as distilled ones do"):
        build({name: one for name, one in shapes(small_file("sdxl")).items() if not name.startswith(gone)})


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("unet", {"projection_class_embeddings_input_dim": 2816}, "its U-Net reads 2816, not a vector of 1664"),
        ("unet", {"cross_attention_dim": 768}, "together 192 wide, and its U-Net reads 768"),
        ("unet", {"addition_embed_type": None}, "its U-Net reads 1664, not a vector"),
        ("unet", {"transformer_layers_per_block": 10**6}, "no such network"),
        ("text_encoder_2", {"projection_dim": 1280}, "not a vector of 2816"),
        ("text_encoder_2", {"num_hidden_layers": 2}, "the text encoder 2 has 16 weights too many"),
        ("vae", {"scaling_factor": "0.13"}, "its scale factor is a text"),
    ],
)
def test_a_folder_whose_networks_do_not_fit_together_is_refused(
    file: str, changes: dict[str, object], words: str, small_folder: Small, tmp_path: Path
) -> None:
    folder = copied(small_folder("sdxl"), tmp_path)
    path = folder / file / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert words in reason(folder)


@pytest.mark.parametrize("kind", ["sd1", by_night("sd2-inpainting"), by_night("sdxl"), by_night("sdxl-refiner")])
def test_a_guidance_embedding_is_left_out_and_noted(kind: str, small_file: Small, tmp_path: Path, cpu: Device) -> None:
    path = changed(small_file(kind), tmp_path, **{f"{UNET}time_embed.cond_proj.weight": torch.ones(64, 256)})
    if (beside := small_file(kind).with_suffix(".yaml")).exists():
        shutil.copy(beside, path.with_suffix(".yaml"))
    found = inspect(path)
    assert (found.reason, found.note) == (None, "its guidance embedding is not used")
    assert found.description == inspect(small_file(kind)).description
    weights = load.load(path, cpu, torch.float32)
    plain = load.load(small_file(kind), cpu, torch.float32)
    assert torch.equal(weights.unet.conv_in.weight, plain.unet.conv_in.weight)
    assert weights.unet.time_embedding.cond_proj is None


def shapes(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def build(weights: dict[str, Tensor]) -> None:
    networks.build(layouts.of_file(Path("alone.safetensors"), weights))


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("sd2", 4),
        by_night("sdxl", 4),
        *(pytest.param(kind, 40, marks=pytest.mark.nightly) for kind in KINDS if kind != "sd1"),
    ],
)
def test_a_weight_that_is_missing_or_too_many_is_noticed(kind: str, count: int, small_file: Small) -> None:
    weights = shapes(small_file(kind))
    build(weights)
    ignored = ["position_ids", "logit_scale", "alphas_cumprod"]
    if kind.startswith("sd2"):
        ignored += ["resblocks.3.", ".text_projection"]
    read = [name for name in weights if not any(part in name for part in ignored)]
    for name in read[:: len(read) // count]:
        with pytest.raises(ModelFileError):
            build({other: one for other, one in weights.items() if other != name})
    for prefix in (UNET, "first_stage_model.", *KINDS[kind].text_encoders.values()):
        with pytest.raises(ModelFileError, match="too many"):
            build(weights | {f"{prefix}foo": torch.zeros(3)})


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([(), (3,), (1, 4, 3, 3)], id="three"),
        pytest.param([(0,), (2, 2), (0, 4, 3, 3), (2**20, 4)], id="more", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        FIRST, f"{UNET}out.2.weight", f"{UNET}label_emb.0.0.weight", f"{UNET}input_blocks.2.0.op.weight",
        f"{UNET}input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight",
        "conditioner.embedders.1.model.text_projection", "conditioner.embedders.1.model.positional_embedding",
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_bias",
        "first_stage_model.encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight",
    ],
)  # fmt: skip
def test_a_misshapen_weight_is_refused(name: str, other: list[tuple[int, ...]], small_file: Small) -> None:
    weights = shapes(small_file("sdxl"))
    assert name in weights
    for shape in other:
        with pytest.raises(ModelFileError):
            build(weights | {name: torch.empty(shape, device="meta")})
