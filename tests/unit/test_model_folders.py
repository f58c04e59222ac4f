"""Several models folders, and the trees of other programs as they are: what is found, and what it is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.models import scan as scans
from shared.models.folders import ModelFolders
from shared.models.inspection import Inspection
from shared.models.scan import scan, scan_lock
from shared.settings import load

TREES = {
    "stable-diffusion-webui/models": {
        "Stable-diffusion/sea.safetensors": "checkpoint",
        "Stable-diffusion/sub folder/old.ckpt": "checkpoint",
        "VAE/soft.vae.pt": "vae",
        "VAE-approx/taesd_decoder.pth": "decoder",
        "Lora/style.safetensors": "lora",
        "LyCORIS/other.safetensors": "lora",
        "hypernetworks/brush.pt": "hypernetwork",
        "ControlNet/canny.pth": "controlnet",
        "ESRGAN/x4.pth": "upscaler",
        "SwinIR/x2.pth": "upscaler",
        "GFPGAN/GFPGANv1.4.pth": "face-restorer",
        "Codeformer/codeformer-v0.1.0.pth": "face-restorer",
    },
    "stable-diffusion-webui/embeddings": {"worst.pt": "embedding", "negative/easy.safetensors": "embedding"},
    "ComfyUI/models": {
        "checkpoints/sea.safetensors": "checkpoint",
        "vae/fine.safetensors": "vae",
        "vae_approx/taesdxl_decoder.safetensors": "decoder",
        "loras/style.safetensors": "lora",
        "loras/people/face.safetensors": "lora",
        "embeddings/easy.pt": "embedding",
        "hypernetworks/comb.pt": "hypernetwork",
        "controlnet/depth.safetensors": "controlnet",
        "ipadapter/plus.bin": "ip-adapter",
        "clip_vision/vit-h.safetensors": "image-encoder",
        "upscale_models/x4.pth": "upscaler",
        "facerestore_models/GFPGANv1.3.pth": "face-restorer",
        "text_encoders/t5.safetensors": "other",
        "clip/l.safetensors": "other",
        "unet/flux.safetensors": "other",
        "diffusion_models/wan.safetensors": "other",
    },
}
"""Files as A1111's and ComfyUI's folders hold them, each with the kind that its place says if it cannot be read."""

BESIDE = (
    "{stem}.preview.png", "{stem}.png", "{stem}.jpg", "{stem}.jpeg", "{stem}.webp", "{stem}.preview.jpeg",
    "{stem}.json", "{stem}.txt", "{stem}.civitai.info", "{stem}.metadata.json", "{stem}.cm-info.json", "{stem}.html",
    "{stem}.safetensors.part", "Put files here.txt", "put_models_here", ".DS_Store", ".hidden.safetensors",
)  # fmt: skip
UNREADABLE = Inspection("checkpoint", reason="is damaged")


def unreadable(_: Path) -> Inspection:
    return UNREADABLE


def folders(*paths: Path) -> ModelFolders:
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    return ModelFolders(paths)


def write(path: Path, data: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(models: ModelFolders) -> dict[str, Path]:
    return {file.name: file.path for file in scans.model_files(models)}


def test_a_list_of_folders_is_read_and_one_folder_is_a_list():
    listed = f" ~/models :/srv/a: :/srv/b:/srv/a:{os.curdir}"
    settings = load({"FARM_MODELS": listed})
    assert settings.models.paths == (Path.home() / "models", Path("/srv/a"), Path("/srv/b"), Path.cwd())
    assert str(settings.models) == f"{Path.home()}/models:/srv/a:/srv/b:{Path.cwd()}"
    assert load({"FARM_MODELS": "/srv/my models"}).models == ModelFolders((Path("/srv/my models"),))
    assert load({}).models.paths == (Path("models").absolute(),)


@pytest.mark.parametrize("nothing", [":", " ", " : "])
def test_a_list_without_a_folder_is_refused(nothing: str):
    with pytest.raises(SettingsError, match=r"FARM_MODELS=.*must name a folder, or several with : between them"):
        load({"FARM_MODELS": nothing})


@pytest.mark.parametrize("has_links", [False, True])
def test_trees_of_other_programs_are_read_as_they_are(tmp_path: Path, has_links: bool):  # noqa: FBT001
    """Notes and pictures beside a file are not model files; a folder may be a link to another disk."""
    for tree, files in TREES.items():
        there = tmp_path / ("disk" if has_links else "") / tree
        for name in files:
            path = write(there / name, name.encode())
            for beside in BESIDE:
                write(path.with_name(beside.format(stem=path.stem)), b"beside")
        if has_links:
            (tmp_path / tree).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / tree).symlink_to(there)
    found = scan(folders(*(tmp_path / tree for tree in TREES)), [], unreadable)
    expected = {name: kind for files in TREES.values() for name, kind in files.items()}
    assert {seen.path: seen.inspection.kind for seen in found if seen.inspection} == expected


def test_a_file_of_a_later_folder_is_called_by_its_whole_path_where_an_earlier_one_has_such_a_file(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "a.ckpt", two / "a.safetensors", two / "a.vae.pt", two / "b.ckpt", two / "deep" / "a.ckpt"):
        write(path)
    models = folders(one, two)
    expected = {
        "a.ckpt": one / "a.ckpt",
        str(two / "a.safetensors"): two / "a.safetensors",
        str(two / "a.vae.pt"): two / "a.vae.pt",  # it belongs to the checkpoint beside it, not to the other one
        "b.ckpt": two / "b.ckpt",
        "deep/a.ckpt": two / "deep" / "a.ckpt",
    }
    assert names(models) == expected
    assert {name: models / name for name in expected} == expected
    assert models / "not there.ckpt" == one / "not there.ckpt"
    assert list(models.places("b.ckpt")) == [one / "b.ckpt", two / "b.ckpt"]
    assert list(models.places(str(two / "a.safetensors"))) == [two / "a.safetensors"]
    assert list(models.places("/etc/passwd")) == []


def test_another_folder_at_the_end_of_the_list_changes_no_name(tmp_path: Path):
    write(tmp_path / "one" / "a.ckpt")
    write(tmp_path / "two" / "a.ckpt")
    write(tmp_path / "two" / "b.ckpt")
    before = names(folders(tmp_path / "one"))
    after = names(folders(tmp_path / "one", tmp_path / "two"))
    assert before.items() <= after.items()


def test_what_several_folders_hold_together_is_found_once(tmp_path: Path):
    write(tmp_path / "models" / "loras" / "x.safetensors")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Lora").symlink_to(tmp_path / "models" / "loras")
    for given in (("models", "link"), ("link", "models"), ("models", "models/loras"), ("models", "other")):
        models = folders(*(tmp_path / name for name in given))
        assert list(names(models)) == ["loras/x.safetensors"], given
    assert list(names(folders(tmp_path / "models" / "loras", tmp_path / "models"))) == ["x.safetensors"]


def test_the_name_of_a_folder_in_the_list_says_what_lies_in_it(tmp_path: Path):
    write(tmp_path / "LORAS" / "x.bin")
    write(tmp_path / "VAE" / "y.ckpt")
    found = scan(folders(tmp_path / "LORAS", tmp_path / "VAE"), [], unreadable)
    assert [(seen.path, seen.inspection.kind) for seen in found] == [("x.bin", "lora"), ("y.ckpt", "vae")]


def test_a_folder_that_is_empty_or_not_there_is_told_and_the_others_are_scanned(tmp_path: Path):
    write(tmp_path / "one" / "a.ckpt")
    (tmp_path / "empty").mkdir()
    models = ModelFolders(tuple(tmp_path / name for name in ("gone", "one", "empty")))
    told: list[Path] = []
    found = scan(models, [], lambda _: Inspection("checkpoint", "sd1", 512), on_empty=told.append)
    assert [seen.path for seen in found] == ["a.ckpt"]
    assert told == [tmp_path / "gone", tmp_path / "empty"]
    with pytest.raises(FileNotFoundError):
        scan(ModelFolders((tmp_path / "gone", tmp_path / "away")), [], unreadable)


def test_a_process_that_scans_holds_each_of_its_folders(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    both = folders(one, two)
    (tmp_path / "link").symlink_to(one)
    with scan_lock(both) as first, scan_lock(ModelFolders((two,))) as second:
        assert (first, second) == (True, False)
    with scan_lock(ModelFolders((one, tmp_path / "link", tmp_path / "gone"))) as again:
        assert again
    with pytest.raises(FileNotFoundError), scan_lock(ModelFolders((tmp_path / "gone",))):
        pass
