"""The scan of the models folder: what it finds, what it hashes, what it leaves alone."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from shared.models import scan as scans
from shared.models.components import Component, Place, Stretch
from shared.models.folders import ModelFolders
from shared.models.hashing import hashed
from shared.models.inspection import Inspection
from shared.models.scan import scan, scan_lock

GOOD = Inspection("checkpoint", "sd1", 512)


class Inspector:
    """Finds every file good and remembers which it looked into."""

    def __init__(self, found: Inspection = GOOD, then=lambda path: None):
        self.found = found
        self.then = then
        self.looked = []

    def __call__(self, path: Path) -> Inspection:
        self.looked.append(path.name)
        self.then(path)
        return self.found


@pytest.fixture
def models(tmp_path: Path) -> ModelFolders:
    folder = tmp_path / "models"
    folder.mkdir()
    return ModelFolders((folder,))


def write(path: Path, data: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def paths(found) -> list[str]:
    return [seen.path for seen in found]


def test_it_finds_checkpoints_in_all_subfolders(models):
    write(models / "v1.5.safetensors")
    write(models / "old" / "deep" / "sd-v1-4.ckpt", b"other")
    write(models / "UPPER.SAFETENSORS")
    found = scan(models, [], Inspector())
    assert [(seen.path, seen.name) for seen in found] == [
        ("UPPER.SAFETENSORS", "UPPER"),
        ("old/deep/sd-v1-4.ckpt", "sd-v1-4"),
        ("v1.5.safetensors", "v1.5"),
    ]
    assert found[1].sha256 == hashlib.sha256(b"other").hexdigest()
    assert (found[1].size, found[1].inspection) == (5, GOOD)


@pytest.mark.parametrize(
    "name", ["a.yaml", "a.txt", "a.py", ".hidden.safetensors", ".git/a.ckpt", "a.safetensors.part", "a.ckpt.tmp"]
)
def test_it_leaves_other_files_alone(models, name):
    write(models / name)
    assert scan(models, [], Inspector()) == []


@pytest.mark.parametrize("name", ["VAE/x.pt", "vae/deep/x.pt", "sea.vae.pt", "deep/sea.VAE.ckpt"])
def test_what_lies_where_vaes_do_is_a_vae_or_says_why_it_is_none(models, name):
    write(models / name)
    for found, reason in (
        (Inspection("vae", "sd1"), None),
        (Inspection("checkpoint", reason="It is truncated."), "It is truncated."),
        (GOOD, "is a whole checkpoint, where a VAE should lie"),
    ):
        (seen,) = scan(models, [], Inspector(found))
        assert (seen.path, seen.inspection.kind, seen.inspection.reason) == (name, "vae", reason)
        assert (seen.sha256 is None) is bool(reason)


@pytest.mark.parametrize("folder", ["VAE-approx", "vae_approx", "deep/VAE-taesd"])
def test_what_lies_where_tiny_decoders_do_is_one_or_says_why_it_is_none(models, folder):
    for suffix in (".pth", ".pt", ".safetensors"):
        write(models / folder / f"taesd_decoder{suffix}")
    write(models / "VAE" / "elsewhere.pth")
    for found, reason in (
        (Inspection("decoder"), None),
        (Inspection("checkpoint", reason="It is truncated."), "It is truncated."),
        (Inspection("vae", "sd1"), "is a VAE, where a tiny decoder should lie"),
    ):
        seen = scan(models, [], Inspector(found))
        assert len(seen) == 3
        assert {(one.inspection.kind, one.inspection.reason) for one in seen} == {("decoder", reason)}


def test_a_vae_is_known_wherever_it_lies(models):
    write(models / "fine.safetensors")
    write(models / "else" / "soft.pt")
    found = scan(models, [], Inspector(Inspection("vae", "sd1")))
    assert [(seen.path, seen.inspection.kind) for seen in found] == [
        ("else/soft.pt", "vae"), ("fine.safetensors", "vae"),
    ]  # fmt: skip


FOLDERS = {
    "lora": ["Lora", "loras", "LyCORIS"],
    "embedding": ["embeddings"],
    "hypernetwork": ["hypernetworks"],
    "controlnet": ["ControlNet", "controlnet"],
    "ip-adapter": ["ipadapter", "ip-adapter"],
    "image-encoder": ["clip_vision", "image_encoder"],
    "upscaler": ["ESRGAN", "RealESRGAN", "SwinIR", "DAT", "HAT", "upscale_models", "upscalers"],
    "face-restorer": ["GFPGAN", "Codeformer", "facerestore_models"],
    "other": ["unet", "text_encoders"],
}
IN_FOLDERS = [(folder, kind) for kind, folders in FOLDERS.items() for folder in folders]


@pytest.mark.parametrize(("folder", "kind"), IN_FOLDERS)
def test_what_cannot_be_read_is_of_the_kind_of_its_folder(models, folder, kind):
    write(models / "deep" / folder / "style" / "x.safetensors")
    (seen,) = scan(models, [], Inspector(Inspection("checkpoint", reason="is damaged")))
    assert (seen.inspection.kind, seen.inspection.reason, seen.sha256) == (kind, "is damaged", None)


@pytest.mark.parametrize(("folder", "kind"), IN_FOLDERS)
def test_what_can_be_read_is_what_it_is_wherever_it_lies(models, folder, kind):
    write(models / folder / "x.safetensors")
    for found in (
        Inspection(kind), GOOD, Inspection("lora"), Inspection("lora", reason="is cut off"),
        Inspection("other", reason="is a T2I adapter: the farm cannot use these yet"),
    ):  # fmt: skip
        (seen,) = scan(models, [], Inspector(found))
        assert seen.inspection == found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cat.pt", "other"), ("4x.pth", "other"), ("flux.gguf", "other"), ("x.safetensors", "checkpoint"),
        ("my/x.ckpt", "checkpoint"), ("VAE/Lora/x.ckpt", "lora"), ("Lora/VAE/x.ckpt", "vae"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_broken_checkpoint_only_where_these_are(models, name, kind):
    write(models / name)
    (seen,) = scan(models, [], Inspector(Inspection("checkpoint", reason="is damaged")))
    assert (seen.inspection.kind, seen.inspection.reason) == (kind, "is damaged")


@pytest.mark.parametrize(
    "name",
    ["embeddings/x.bin", "Lora/x.pt", "hypernetworks/x.pt", "ControlNet/x.pth", "ESRGAN/x.pth", "clip_vision/x.bin"],
)
def test_files_end_as_those_of_their_folders_do(models, name):
    write(models / name)
    write(models / "Lora" / "x.preview.png")
    write(models / "Lora" / "x.json")
    write(models / "x.bin")
    assert paths(scan(models, [], Inspector())) == [name]


def test_pipes_sockets_and_devices_are_told_and_never_opened(models, tmp_path):
    os.mkfifo(models / "pipe.safetensors")
    (models / "link.ckpt").symlink_to(models / "pipe.safetensors")
    (models / "zero.ckpt").symlink_to("/dev/zero")
    (models / "circle.ckpt").symlink_to(models / "circle.ckpt")
    (models / "gone.ckpt").symlink_to(tmp_path / "nothing")
    write(models / "good.ckpt")
    os.mkfifo(models / "good.yaml")
    write(models / "fine.ckpt")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(models / "s.ckpt"))
    inspect = Inspector()
    found = scan(models, [], inspect)
    assert inspect.looked == ["fine.ckpt"]
    assert {seen.path: seen.inspection.reason for seen in found} == {
        "fine.ckpt": None,
        "good.ckpt": "good.yaml beside it is a pipe, not a regular file",
        "link.ckpt": "is a pipe, not a regular file",
        "pipe.safetensors": "is a pipe, not a regular file",
        "s.ckpt": "is a socket, not a regular file",
        "zero.ckpt": "is a device, not a regular file",
    }


def test_a_part_of_a_folder_that_is_no_file_is_not_hashed(models):
    folder = models / "my-model"
    write(folder / "model_index.json", b"{}")
    (folder / "unet.bin").symlink_to("/dev/zero")
    os.mkfifo(folder / "vae.safetensors")
    (seen,) = scan(models, [], Inspector())
    assert seen.size == 2


def test_a_link_to_half_a_machine_is_not_walked_to_its_end(models, monkeypatch):
    monkeypatch.setattr(scans, "_MOST_FOLDERS", 5)
    for number in range(20):
        write(models / f"{number:02}" / "x.ckpt")
    assert len(list(scans.model_files(models))) < 6


def test_a_name_that_is_no_text_is_left_alone(models):
    write(models / "good.ckpt")
    write(Path(os.fsdecode(os.fsencode(models.first) + b"/bad\xff.ckpt")))
    assert paths(scan(models, [], Inspector())) == ["good.ckpt"]


def test_an_unchanged_file_is_neither_hashed_nor_inspected_again(models, monkeypatch):
    write(models / "a.ckpt")
    inspect = Inspector()
    first = scan(models, [], inspect)
    monkeypatch.setattr("shared.models.scan.hashed", None)
    assert scan(models, first, inspect) == first
    assert inspect.looked == ["a.ckpt"]


def test_what_an_earlier_process_hashed_is_only_inspected(models):
    write(models / "a.ckpt")
    remembered = [replace(seen, inspection=None, weights="remembered") for seen in scan(models, [], Inspector())]
    (seen,) = scan(models, remembered, Inspector())
    assert (seen.sha256, seen.inspection) == ("remembered", GOOD)


def test_a_changed_file_is_hashed_anew(models):
    path = write(models / "a.ckpt")
    first = scan(models, [], Inspector())
    write(path, b"changed")
    os.utime(path, ns=(0, first[0].mtime_ns + 1))
    assert scan(models, first, Inspector())[0].sha256 == hashlib.sha256(b"changed").hexdigest()


def test_a_yaml_that_comes_later_is_seen_and_leaves_the_hash_of_the_file(models):
    write(models / "a.ckpt")
    inspect = Inspector()
    first = scan(models, [], inspect)
    write(models / "a.yaml", b"model: {}")
    second = scan(models, first, inspect)
    assert inspect.looked == ["a.ckpt", "a.ckpt"]
    assert second[0].sha256 == first[0].sha256


def test_a_description_is_a_part_of_what_a_file_is(models):
    write(models / "a.ckpt")
    (plain,) = scan(models, [], Inspector())
    (described,) = scan(models, [], Inspector(replace(GOOD, description="v")))
    assert plain.sha256 == plain.weights == described.weights
    assert described.sha256 not in (None, plain.sha256)


def test_a_description_of_the_same_length_and_an_older_time_is_a_change(models):
    write(models / "a.ckpt")
    os.utime(write(models / "a.yaml", b"model: 1"), ns=(0, 10))
    inspect = Inspector()
    first = scan(models, [], inspect)
    os.utime(write(models / "a.yaml", b"model: 2"), ns=(0, 20))
    scan(models, first, inspect)
    assert inspect.looked == ["a.ckpt", "a.ckpt"]


def test_what_an_earlier_version_recorded_is_not_hashed_again(models, monkeypatch):
    write(models / "a.ckpt")
    earlier = [replace(seen, inspection=None, weights=None, parts=None) for seen in scan(models, [], Inspector())]
    monkeypatch.setattr("shared.models.scan.hashed", None)
    (seen,) = scan(models, earlier, Inspector())
    assert seen.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_networks_are_hashed_with_their_file_and_then_remembered(models):
    path = write(models / "a.ckpt", b"0123456789")
    asked = []

    def locate(of: Path) -> dict[str, Place]:
        asked.append(of)
        return {"unet": Place("form", {"float16": 4}, (Stretch("", 2, 4),)), "vae": Place("form", {"float32": 8}, None)}

    (first,) = scan(models, [], Inspector(), locate=locate)
    assert first.components == hashed(path, locate(path))[1]
    assert first.components["unet"].digest
    assert first.components["vae"] == Component(None, {"float32": 8})
    asked.clear()
    (later,) = scan(models, [replace(first, inspection=None)], Inspector(), locate=locate)
    assert (later, asked) == (first, [])


def test_a_file_that_an_earlier_version_hashed_gets_sizes_of_its_networks_without_another_read(models, monkeypatch):
    write(models / "a.ckpt")
    earlier = [replace(seen, inspection=None, components=None) for seen in scan(models, [], Inspector())]
    monkeypatch.setattr("shared.models.scan.hashed", None)
    place = Place("form", {"float16": 4}, (Stretch("", 2, 4),))
    (seen,) = scan(models, earlier, Inspector(), locate=lambda _: {"unet": place})
    assert seen.components == {"unet": Component(None, {"float16": 4})}


def test_an_unusable_file_is_listed_with_its_reason_and_not_hashed(models):
    write(models / "a.ckpt")
    (seen,) = scan(models, [], Inspector(Inspection("checkpoint", reason="It is truncated.")))
    assert (seen.sha256, seen.inspection.reason) == (None, "It is truncated.")


@pytest.mark.parametrize("columns", [0, 2])
def test_a_file_that_is_cut_off_under_the_scan_is_left_to_the_next_one_and_others_are_found(models, columns):
    for name in ("a", "b", "c"):
        write(models / f"{name}.safetensors", bytes(20))

    def locate(path: Path) -> dict[str, Place]:
        if path.stem == "b":
            os.truncate(path, 9)
        return {"unet": Place("f", {"float16": 8}, (Stretch("", 4, 16, columns, 2),))}

    found = scan(models, [], Inspector(), locate=locate)
    assert paths(found) == ["a.safetensors", "c.safetensors"]
    assert all(seen.components["unet"].digest for seen in found)


def test_a_file_that_vanishes_under_the_scan_is_skipped(models):
    write(models / "a.ckpt")
    write(models / "b.ckpt")
    assert paths(scan(models, [], Inspector(then=lambda path: path.unlink() if path.name == "a.ckpt" else None))) == [
        "b.ckpt"
    ]


def test_a_file_that_still_grows_is_left_to_the_next_scan(models):
    path = write(models / "a.ckpt")
    assert scan(models, [], Inspector(then=lambda path: write(path, b"more than before"))) == []
    assert paths(scan(models, [], Inspector())) == [path.name]


def test_a_diffusers_folder_is_one_checkpoint_whatever_its_parts_are_called(models):
    folder = models / "my-model"
    write(folder / "model_index.json", b"{}")
    write(folder / "unet" / "diffusion_pytorch_model.safetensors", b"unet")
    write(folder / "README.md", b"not a part")
    inspect = Inspector()
    (seen,) = scan(models, [], inspect)
    assert (seen.path, seen.name, seen.size, inspect.looked) == ("my-model", "my-model", 6, ["my-model"])
    write(folder / "README.md", b"may change")
    assert scan(models, [], inspect)[0].sha256 == seen.sha256
    write(folder / "unet" / "diffusion_pytorch_model.safetensors", b"else")
    assert scan(models, [], inspect)[0].sha256 != seen.sha256


def test_a_folder_of_a_control_net_is_one_model_where_such_nets_lie(models):
    for folder in ("ControlNet/canny", "Lora/other"):
        write(models / folder / "config.json", b"{}")
        write(models / folder / "diffusion_pytorch_model.fp16.safetensors", folder.encode())
    write(models / "controlnet" / "alone" / "diffusion_pytorch_model.safetensors", b"alone")
    assert paths(scan(models, [], Inspector())) == [
        "ControlNet/canny",
        "Lora/other/diffusion_pytorch_model.fp16.safetensors",
        "controlnet/alone/diffusion_pytorch_model.safetensors",
    ]


def test_a_folder_of_an_image_encoder_is_one_model_where_such_encoders_lie(models):
    for folder in ("clip_vision/vit-h", "IP-Adapter/models/image_encoder", "IP-Adapter/models"):
        write(models / folder / "config.json", b"{}")
        write(models / folder / "model.safetensors", folder.encode())
    write(models / "IP-Adapter" / "models" / "image_encoder" / "pytorch_model.bin", b"the same")
    write(models / "clip_vision" / "alone.safetensors", b"alone")
    assert paths(scan(models, [], Inspector())) == [
        "IP-Adapter/models/image_encoder",
        "IP-Adapter/models/model.safetensors",
        "clip_vision/alone.safetensors",
        "clip_vision/vit-h",
    ]


def test_a_configuration_beside_the_files_of_a_kind_hides_none_of_them(models):
    for name in ("config.json", "model.safetensors", "vit-big-g.safetensors"):
        write(models / "clip_vision" / name, name.encode())
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        write(models / "ControlNet" / name, name.encode())
    assert paths(scan(models, [], Inspector())) == [
        "ControlNet",
        "clip_vision/model.safetensors",
        "clip_vision/vit-big-g.safetensors",
    ]


def test_links_are_followed_out_of_the_folder_but_not_round_in_circles(models, tmp_path):
    write(tmp_path / "elsewhere" / "big.ckpt")
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    (models / "file.ckpt").symlink_to(tmp_path / "elsewhere" / "big.ckpt")
    (models / "circle").symlink_to(models.first)
    (models / "dangling.ckpt").symlink_to(tmp_path / "nothing")
    assert paths(scan(models, [], Inspector())) == ["file.ckpt", "linked/big.ckpt"]


def test_a_models_folder_that_is_not_there_is_an_error_and_not_an_empty_catalogue(tmp_path):
    with pytest.raises(FileNotFoundError):
        scan(ModelFolders((tmp_path / "nothing",)), [], Inspector())


def test_when_the_time_for_hashing_is_over_the_rest_is_left_to_the_next_scan(models):
    write(models / "a.ckpt")
    known = scan(models, [], Inspector())
    write(models / "b.ckpt")
    assert paths(scan(models, known, Inspector(), hash_seconds=0)) == ["a.ckpt"]
    assert paths(scan(models, known, Inspector(), hash_seconds=60)) == ["a.ckpt", "b.ckpt"]


def test_a_known_file_that_is_still_to_be_hashed_anew_stays_known(models):
    write(models / "a.ckpt")
    known = scan(models, [], Inspector())
    write(models / "a.ckpt", b"longer weights")
    [seen] = scan(models, known, Inspector(), hash_seconds=0)
    assert (seen.size, seen.sha256, seen.inspection) == (known[0].size, known[0].sha256, None)


def test_one_process_at_a_time_scans_a_folder(models, tmp_path):
    with scan_lock(models) as first, scan_lock(models) as second, scan_lock(ModelFolders((tmp_path,))) as other:
        assert (first, second, other) == (True, False, True)
    with scan_lock(models) as again:
        assert again


@pytest.mark.parametrize("error", [TimeoutError("too slow"), ChildProcessError("ended")])
def test_a_file_that_cannot_be_looked_into_now_stays_as_it_was(models, error):
    def failing(_):
        raise error

    path = write(models / "a.ckpt")
    known = [replace(seen, inspection=None) for seen in scan(models, [], Inspector())]
    assert scan(models, known, failing) == known
    (unknown,) = scan(models, [], failing)
    assert (unknown.sha256, unknown.inspection.reason) == (None, f"{error}; it is tried again, or replace the file")
    assert scan(models, [unknown], Inspector())[0].sha256 == known[0].sha256
    path.write_bytes(b"changed")
    (changed,) = scan(models, known, failing)
    assert (changed.sha256 == known[0].sha256) is isinstance(error, TimeoutError)


def test_the_youngest_file_is_hashed_last_because_it_may_be_a_copy_that_goes_on(models):
    for name, written_at in (("a", 3), ("b", 1), ("c", 2)):
        os.utime(write(models / f"{name}.ckpt"), (written_at, written_at))
    left = []
    found = scan(models, [], Inspector(), hash_seconds=1e-9, on_left=left.append)
    assert paths(found) == ["b.ckpt"]
    assert [path.name for path in left] == ["c.ckpt", "a.ckpt"]
