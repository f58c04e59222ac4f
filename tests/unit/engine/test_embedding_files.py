"""The files of embeddings: all forms that programs write are read alike, and others are refused with the reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.errors import ModelFileError
from worker.engine.devices import Device
from worker.engine.files import tensors
from worker.engine.loading import embeddings
from worker.engine.loading.inspect import inspect

DRAW = torch.Generator().manual_seed(0)
WORD = torch.randn(3, 768, generator=DRAW)
LONG = torch.randn(2, 1280, generator=DRAW)
SHA256 = "a" * 64


def trained(parameters: object, **more: object) -> dict[str, object]:
    """A file as the web UI's training writes it."""
    about = {
        "string_to_token": {"*": 265},
        "name": "ink",
        "step": 500,
        "sd_checkpoint": "81761151",
        "sd_checkpoint_name": "v1-5",
    }
    return {**about, "string_to_param": parameters, **more}


def parameters(one: Tensor) -> torch.nn.ParameterDict:
    return torch.nn.ParameterDict({"*": torch.nn.Parameter(one)})


PICKLES: dict[str, object] = {
    "web UI": trained({"*": WORD}),
    "web UI, trained": trained({"*": torch.nn.Parameter(WORD)}),
    "web UI, a module": trained(parameters(WORD)),
    "web UI, with an optimizer": trained({"*": WORD}, optimizer_state_dict={"state": [torch.zeros(4)]}, hash=None),
    "diffusers": {"<ink>": WORD},
    "with a step": {"<ink>": WORD, "global_step": 500},
    "one tensor": WORD,
    "emb_params": {"emb_params": WORD},
}


def written(path: Path, content: object) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def read(path: Path) -> Mapping[str, Tensor]:
    found = embeddings.read(tensors.read(path))
    shapes = embeddings.read(tensors.read(path, "meta"))
    assert {name: one.shape for name, one in found.items()} == {name: one.shape for name, one in shapes.items()}
    return found


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_are_read_in_every_form(tmp_path: Path, name: str) -> None:
    for ending, is_zip in ((".pt", True), (".bin", False)):
        path = tmp_path / f"ink{ending}"
        torch.save(PICKLES[name], path, _use_new_zipfile_serialization=is_zip)
        found = read(path)
        assert [*found] == ["text_encoder"]
        assert torch.equal(found["text_encoder"], WORD)


@pytest.mark.parametrize(
    ("content", "expected", "architecture"),
    [
        ({"emb_params": WORD}, {"text_encoder": WORD}, "sd1"),
        ({"<ink>": WORD[0]}, {"text_encoder": WORD[:1]}, "sd1"),
        ({"clip_l": WORD}, {"text_encoder": WORD}, "sd1"),
        ({"x": torch.ones(75, 1024)}, {"text_encoder": torch.ones(75, 1024)}, "sd2"),
        ({"clip_l": WORD[:2], "clip_g": LONG}, {"text_encoder": WORD[:2], "text_encoder_2": LONG}, "sdxl"),
        ({"clip_g": LONG}, {"text_encoder_2": LONG}, "sdxl-refiner"),
        ({"x": LONG}, {"text_encoder_2": LONG}, "sdxl-refiner"),
        ({"x": torch.ones(4, 128)}, {"text_encoder": torch.ones(4, 128)}, None),
    ],
)
def test_safetensors_are_read_with_their_architecture(
    tmp_path: Path, content: dict[str, Tensor], expected: dict[str, Tensor], architecture: str | None
) -> None:
    found = read(written(tmp_path / "ink.safetensors", {name: one.contiguous() for name, one in content.items()}))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], one) for name, one in expected.items())
    assert embeddings.architecture(found) == architecture
    count, context = len(next(iter(expected.values()))), sum(one.shape[1] for one in expected.values())
    assert embeddings.details(found) == {"vectors": dict.fromkeys(expected, count), "context": context}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (trained({"*": WORD, "+": WORD}), "teaches 2 words; an embedding of one word is read"),
        (trained({"*": torch.ones(2, 3, 768)}), r"the shape \(2, 3, 768\); a word's are such as \(4, 768\)"),
        (trained({"*": torch.ones(())}), r"the shape \(\)"),
        (trained({"*": torch.ones(2, 2048)}), r"the shape \(2, 2048\); .*: at most 1280 wide"),
        (trained({"*": torch.ones(2, 7)}), r"the shape \(2, 7\)"),
        (trained({"*": torch.ones(76, 768)}), "has 76 vectors; a word has 1 to 75"),
        (trained({"*": torch.ones(1, 768).expand(10**6, 768)}), "a weight lies outside of it|1,000,000 vectors"),
        (trained({"*": torch.ones(0, 768)}), "has 0 vectors"),
        (trained({"*": torch.ones(2, 768, dtype=torch.int64)}), "its tensor of vectors is stored as int64"),
        (trained({str(place): place for place in range(2**16 + 1)}), "has 65,537 weights; at most 65,536 are read"),
        ({"clip_l": WORD, "clip_g": LONG}, "has 3 and 2 vectors for its text encoders"),
        ({"clip_l": WORD, "clip_g": WORD, "t5xxl": torch.ones(3, 4096)}, "a T5 text encoder"),
        (trained({}), "is not an embedding"),
        ({"a": WORD, "b": WORD}, "is not an embedding"),
        ({"x.weight": WORD}, "is not an embedding"),
    ],
    ids=range(15),
)
def test_what_is_no_embedding_of_one_word_is_refused_with_the_reason(tmp_path: Path, content: object, why: str) -> None:
    path = written(tmp_path / "ink.pt", content)
    with pytest.raises(ModelFileError, match=why):
        embeddings.read(tensors.read(path, "meta"))


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("echo executed >&2; exit 3",)


@pytest.mark.parametrize(
    "content", [Bomb(), {"string_to_param": Bomb()}, trained({"*": Bomb()}), trained({"*": WORD}, name=Bomb())]
)
def test_a_pickle_that_executes_is_refused(tmp_path: Path, content: object, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "ink.pt", content)
    with pytest.raises(ModelFileError, match=r"holds code or objects, which are not loaded \(posix.system\)"):
        tensors.read(path)
    assert "executed" not in capfd.readouterr().err


@pytest.mark.parametrize(("ending", "content"), [(".pt", trained({"*": WORD})), (".safetensors", {"emb_params": WORD})])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, content: Any) -> None:
    path = written(tmp_path / f"ink{ending}", content)
    whole = path.read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match="is damaged"):
            tensors.read(path)


def test_values_that_are_not_numbers_are_refused(tmp_path: Path, cpu: Device) -> None:
    path = written(tmp_path / "ink.safetensors", {"emb_params": WORD.clone().fill_(torch.nan)})
    with pytest.raises(ModelFileError, match="values that are not numbers"):
        embeddings.load(path, SHA256, cpu, torch.float32)


def test_a_loaded_embedding_knows_its_size_and_its_word(tmp_path: Path, cpu: Device) -> None:
    path = written(tmp_path / "ink.safetensors", {"clip_l": WORD[:2].contiguous(), "clip_g": LONG})
    found = embeddings.load(path, SHA256, cpu, torch.bfloat16)
    path.unlink()  # nothing of the file stays mapped
    assert (found.count, found.bytes) == (2, 2 * (768 + 1280) * 2)
    assert found.word("ink") == ("ink", SHA256, 2)
    assert torch.equal(found.vectors["text_encoder"], WORD[:2].bfloat16())


def test_a_scan_reads_what_a_file_is(tmp_path: Path) -> None:
    found = inspect(written(tmp_path / "ink.safetensors", {"clip_l": WORD[:2].contiguous(), "clip_g": LONG}))
    assert (found.kind, found.reason, found.architecture) == ("embedding", None, "sdxl")
    assert found.details == {"vectors": {"text_encoder": 2, "text_encoder_2": 2}, "context": 2048}
    assert found.networks == {"text_encoder": {"float32": 2 * 768}, "text_encoder_2": {"float32": 2 * 1280}}
    broken = inspect(written(tmp_path / "ink.pt", trained({"*": torch.ones(76, 768)})))
    assert (broken.kind, broken.details) == ("embedding", {})
    assert "has 76 vectors; a word has 1 to 75" in (broken.reason or "")
