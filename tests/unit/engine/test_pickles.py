"""PyTorch's files, read by our own reader: as PyTorch reads them, and never further than their bytes go."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from shared.errors import ModelFileError
from worker.engine.files import tensors, unpickling

FORMS = pytest.mark.parametrize("form", ["zip", "first"])
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


def saved(path: Path, content: object, form: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


def zipped(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", data)
        for name, content in ({"version": b"3\n"} | records).items():
            archive.writestr(f"a/{name}", content)
    return path


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@FORMS
def test_tensors_of_every_kind_and_shape_are_read_bit_for_bit(tmp_path: Path, form: str) -> None:
    some = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)) * 50
    expected = {str(dtype): some.to(dtype) for dtype in DTYPES} | {
        "transposed": some.T,
        "part": some[2:4, 1:5],
        "step": some[::2, ::3],
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "shared": some,
        "shared too": some,
        "parameter": torch.nn.Parameter(some, requires_grad=False),
    }
    content = OrderedDict(expected)
    content._metadata = OrderedDict({"": {"version": 1}})
    path = saved(
        tmp_path / "x.ckpt", {"state_dict": content, "epoch": 3, "optimizer": [{"state": some.double()}]}, form
    )
    assert_same(tensors.read(path), expected)
    shapes = tensors.read(path, "meta")
    assert {name: value.shape for name, value in shapes.items()} == {n: v.shape for n, v in expected.items()}
    assert all(value.is_meta for value in shapes.values())


def test_a_type_without_a_storage_of_its_own_is_read(tmp_path: Path) -> None:
    expected = {"x": torch.arange(8.0).to(torch.float8_e4m3fn), "y": torch.arange(3).to(torch.uint16)}
    path = saved(tmp_path / "x.ckpt", expected, "zip")
    assert {n: v.float().tolist() for n, v in tensors.read(path).items()} == {
        n: v.float().tolist() for n, v in expected.items()
    }


def test_what_trainers_leave_beside_the_weights_is_forgotten(tmp_path: Path) -> None:
    kept = {"score": np.float64(0.3), "table": np.arange(5), "raw": b"\xff\x00", "set": {1, 2}, "path": Path("a")}
    for form in ("zip", "first"):
        path = saved(tmp_path / "x.ckpt", {"state_dict": {"x": torch.ones(2)}, **kept}, form)
        assert_same(tensors.read(path), {"x": torch.ones(2)})


class Bomb:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call, self.arguments


@pytest.mark.parametrize(
    "content",
    [
        [Bomb(bytearray, 2**40)],
        {"state_dict": {"x": Bomb(bytes, 2**40)}},
        {"x": Bomb(torch.UntypedStorage, 2**40)},
        {"x": Bomb(torch.Tensor, 2**20, 2**20)},
        {"x": Bomb(torch.Size, Bomb(range, 2**40))},
        {"x": Bomb(getattr, Bomb(dict), "clear")},
        {"x": Bomb(torch.zeros, 2**40)},
        {"x": Bomb(set, Bomb(range, 2**30))},
    ],
    ids=range(8),
)
@FORMS
def test_a_pickle_makes_nothing_but_what_its_own_bytes_take(tmp_path: Path, content: object, form: str) -> None:
    data = pickle.dumps(content, protocol=2)
    path = zipped(tmp_path / "x.ckpt", data)
    if form == "first":
        head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(one, 2) for one in head) + data + pickle.dumps([], 2))
    try:
        assert tensors.read(path, "meta") == {}
    except ModelFileError as error:
        assert "weights_only" not in str(error)  # noqa: PT017


def test_encoding_again_and_again_allocates_nothing(tmp_path: Path) -> None:
    """`_codecs.encode(…, "hex")` doubles what it is given, and PyTorch allows it."""
    data = b"\x80\x02X\x04\x00\x00\x00abcd" + b"c_codecs\nencode\n" * 0
    nested = b'"x"'
    for _ in range(60):
        nested = b"c_codecs\nencode\n(" + (nested if nested != b'"x"' else b"C\x04abcd") + b"X\x03\x00\x00\x00hextR"
    path = zipped(tmp_path / "x.ckpt", b"\x80\x03" + nested + b".")
    assert data
    with pytest.raises(ModelFileError, match="no weights by name"):
        tensors.read(path, "meta")


def test_nothing_can_be_set_on_what_a_pickle_names(tmp_path: Path) -> None:
    """BUILD sets attributes of the object before it, whether a class or a function."""
    state = b"}X\x09\x00\x00\x00_functionX\x04\x00\x00\x00evils"
    for name in (b"ccollections\nOrderedDict\n", b"clightning.x\ny\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        slots = b"N" + state + b"\x86"
        for build in (state, slots):
            path = zipped(tmp_path / "x.ckpt", b"\x80\x02" + name + build + b"b.")
            with pytest.raises(ModelFileError):
                tensors.read(path, "meta")
    assert not hasattr(unpickling._Named, "_function")
    assert not hasattr(unpickling.Inert, "_function")
    assert callable(unpickling._REBUILDERS["_rebuild_tensor_v2"])


def rebuilt(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A pickle of one tensor over a storage of `count` floats, as PyTorch writes it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if value is storage else None

    storage, out = [0], io.BytesIO()
    tensor = Bomb(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    Pickler(out, protocol=2).dump({"x": tensor})
    return out.getvalue()


@pytest.mark.parametrize(
    ("count", "size", "stride", "offset"),
    [
        (4, (8,), (1,), 0),
        (4, (4,), (1,), 1),
        (4, (2, 2), (4, 1), 0),
        (4, (10**6, 10**6), (0, 0), 0),  # of one number, a million million
        (10**12, (10**12,), (1,), 0),
        (4, (-4,), (1,), 0),
        (4, (4,), (-1,), 3),
        (4, (1,) * 1000, (1,) * 1000, 0),
        (4, (2,), (1, 1), 0),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_file_is_refused(
    tmp_path: Path, count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    path = zipped(tmp_path / "x.ckpt", rebuilt(count, size, stride, offset), **{"data/0": bytes(16)})
    for where in ("meta", "cpu"):
        with pytest.raises(ModelFileError, match="damaged"):
            tensors.read(path, where)


def test_the_same_tensor_is_read_where_it_fits(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.ckpt", rebuilt(4, (2, 2), (2, 1)), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)})
    assert tensors.read(path)["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: zipped(path, bytes(10**8), zipfile.ZIP_DEFLATED), "compressed"),
        (lambda path: zipped(path, b"\x80\x02}.", zipfile.ZIP_BZIP2), "compressed"),
        (lambda path: zipped(path, bytes(2**25 + 1)), "its data.pkl has 33,554,433 bytes"),
        (lambda path: zipped(path, b"\x80\x02}.", **{"constants.pkl": b""}), "is a TorchScript program"),
        (lambda path: zipped(path, b"\x80\x02}.", byteorder=b"big"), "the other byte order"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("x", b""), "holds no data.pkl"),
        (lambda path: path.write_bytes(b"PK\x03\x04"), "damaged"),
        (lambda path: path.write_bytes(pickle.dumps({"x": 1})), "damaged"),
        (lambda path: zipped(path, b"\x80\x02" + b"]" * 10**5 + b"."), "no weights by name"),
        (lambda path: zipped(path, pickle.dumps({f"{n}": n for n in range(2**16 + 1)}, 2)), "at most 65,536 are read"),
    ],
    ids=range(10),
)
def test_what_is_no_file_of_pytorchs_says_so(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    path = tmp_path / "x.ckpt"
    make(path)
    with pytest.raises(ModelFileError, match=why):
        tensors.read(path, "meta")


@FORMS
def test_weights_within_dictionaries_have_both_names(tmp_path: Path, form: str) -> None:
    one, nets = torch.ones(2, 3), [{"a": torch.ones(1)}, {"b": torch.ones(2)}, {}, {"c": torch.ones(3)}]
    content = {"string_to_param": {"*": one}, 768: nets, 320: (nets[0],), "other": {"x": one}, "list": [{"x": one}]}
    found = tensors.read(saved(tmp_path / "x.pt", content, form))
    assert_same(
        found, {"string_to_param.*": one, "768.0.a": nets[0]["a"], "768.1.b": nets[1]["b"], "320.0.a": torch.ones(1)}
    )
    assert_same(tensors.read(saved(tmp_path / "x.pt", one, form)), {"*": one})


@FORMS
def test_plain_values_stand_beside_the_weights(tmp_path: Path, form: str) -> None:
    plain = {"structure": [1, 2.5], "name": "ink", "is": True, "none": None, "pair": (1, "a")}
    others = {"x": torch.ones(1), "nested": [[1]], "long": [1] * 65, "object": {1: 2}, 5: 6, "set": {1}}
    assert tensors.values(saved(tmp_path / "x.pt", plain | others, form)) == plain
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    assert tensors.values(tmp_path / "x.safetensors") == {}


def test_dictionaries_that_refer_to_each_other_take_no_time(tmp_path: Path) -> None:
    parts = [{str(place): place for place in range(2**15)}] * 1000
    content = dict.fromkeys(range(2**15), parts)
    with pytest.raises(ModelFileError, match="at most 65,536 are read"):
        tensors.read(zipped(tmp_path / "x.pt", pickle.dumps(content, 2)))


def test_no_reason_repeats_the_librarys_advice_or_the_files_words(tmp_path: Path) -> None:
    for content in (b"x", b"\x80\x02top-secret: canary\n", b"top-secret: canary\n" * 100, b"\x1b[31mred"):
        (tmp_path / "x.ckpt").write_bytes(content)
        with pytest.raises(ModelFileError) as error:
            tensors.read(tmp_path / "x.ckpt", "meta")
        assert not any(word in str(error.value) for word in ("weights_only", "canary", "\x1b"))
