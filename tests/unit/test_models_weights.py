"""Bytes of weights: from headers of files at hand, from file sizes, and the lab's stand-ins."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from lab.models import weights as stand_ins
from stoker.models.headers import INDEX, BadWeights, tensor_bytes
from stoker.models.weights import (
    UnknownSize,
    from_headers,
    from_sizes,
    loaded_files,
    of_files,
    per_rank,
    simulated,
    simulated_bytes,
    stored_bytes,
)

HALF, SINGLE = {"torch_dtype": "float16"}, {"torch_dtype": "float32"}


def safetensors(**tensors: tuple[str, int]) -> bytes:
    """A file with tensors of the data type and the bytes given."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": [size], "data_offsets": [offset, offset + size]}  # type: ignore[dict-item]
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def model(directory: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (directory / f"{name}.safetensors").write_bytes(content)
    return directory


def index(directory: Path, *files: str) -> None:
    (directory / INDEX).write_text(json.dumps({"weight_map": {f"t{at}": file for at, file in enumerate(files)}}))


def test_headers_of_all_shards_are_summed_by_type(tmp_path: Path) -> None:
    model(tmp_path, a=safetensors(x=("F16", 10), y=("I32", 40)), b=safetensors(z=("F16", 6)))
    assert tensor_bytes(tmp_path) == {"F16": 16, "I32": 40}


def test_the_index_decides_which_files_count(tmp_path: Path) -> None:
    model(tmp_path, a=safetensors(x=("F16", 10)), consolidated=safetensors(x=("F16", 10)))
    index(tmp_path, "a.safetensors")
    assert tensor_bytes(tmp_path) == {"F16": 10}


def test_the_labs_files_are_valid(tmp_path: Path) -> None:
    names = stand_ins.tensor_names(2, "gptq", False)
    for name, content in stand_ins.shard(names, 2).items():
        (tmp_path / name).write_bytes(content)
    assert sum(tensor_bytes(tmp_path).values()) == sum(
        stand_ins.ELEMENTS * stand_ins.BYTES[dtype] for dtype in names.values()
    )


def test_no_files_are_no_tensors(tmp_path: Path) -> None:
    assert tensor_bytes(tmp_path) == {}


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model(tmp_path, a=safetensors(x=("F16", 10)))
    index(tmp_path, "a.safetensors", "b.safetensors")
    with pytest.raises(BadWeights, match=r"names b\.safetensors, which is not there"):
        tensor_bytes(tmp_path)


WHOLE = safetensors(x=("F16", 100))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5000000000\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WHOLE[:-1], f"has {len(WHOLE) - 1} bytes, its header says {len(WHOLE)}"),
        (WHOLE + b"x", f"its header says {len(WHOLE)}"),
        (WHOLE[:20], "no safetensors header"),
        (b"", "no safetensors header"),
        (b"PK\x03\x04" + bytes(50), "no safetensors header"),
        (struct.pack("<Q", 2) + b"[]", "no safetensors header"),
        (struct.pack("<Q", 13) + b'{"x":{"a":1}}', "no safetensors header"),
        (POINTER, "Git LFS pointer"),
    ],
)
def test_files_that_are_not_whole_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BadWeights, match=words) as raised:
        tensor_bytes(model(tmp_path, a=content))
    assert str(tmp_path / "a.safetensors") in str(raised.value)
    assert "fetch" in str(raised.value)


def test_an_index_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(BadWeights, match="cannot be read"):
        tensor_bytes(tmp_path)


def test_floats_are_loaded_in_the_engines_type_and_integers_as_they_are() -> None:
    tensors = {"F32": 400, "BF16": 200, "I32": 100, "F8_E4M3": 10}
    assert from_headers(tensors).bytes == 200 + 200 + 100 + 10
    assert from_headers(tensors, loaded_bytes=4).bytes == 400 + 400 + 100 + 10


def test_only_the_files_that_are_loaded_count() -> None:
    sizes = {
        "model-1.safetensors": 10,
        "model-2.safetensors": 20,
        "consolidated.safetensors": 30,
        "pytorch_model.bin": 30,
        "onnx/m.safetensors": 9,
    }
    found = from_sizes(sizes, HALF)
    assert found is not None
    assert (found.bytes, found.source) == (30, "sizes of the safetensors files")


def test_without_safetensors_the_next_format_counts() -> None:
    assert loaded_files(["pytorch_model.bin", "colbert_linear.pt", "training_args.bin", "onnx/x.bin"]) == [
        "pytorch_model.bin"
    ]
    assert loaded_files(["consolidated.safetensors"]) == ["consolidated.safetensors"]
    assert loaded_files(["model.pt", "optimizer.pt"]) == ["model.pt"]
    assert loaded_files(["config.json"]) == []


def test_single_precision_is_loaded_as_half_and_told() -> None:
    found = from_sizes({"pytorch_model.bin": 1000}, SINGLE)
    assert found is not None
    assert found.bytes == 500
    assert "loaded as 2" in found.source
    unchanged = from_sizes({"pytorch_model.bin": 1000}, SINGLE, loaded_bytes=4)
    assert unchanged is not None
    assert unchanged.bytes == 1000


def test_quantised_files_are_loaded_as_they_are() -> None:
    found = from_sizes({"model.safetensors": 1000}, {**SINGLE, "quantization_config": {}})
    assert found is not None
    assert found.bytes == 1000


def test_one_unknown_size_makes_the_sum_unknown() -> None:
    sizes = {"a.safetensors": 10, "b.safetensors": None}
    assert from_sizes(sizes, HALF) is None
    with pytest.raises(UnknownSize, match="sizes of the weight files are not known, and"):
        of_files(sizes, {"model_type": "nothing known"})


def test_the_type_in_the_files_may_stand_in_the_text_models_part() -> None:
    assert stored_bytes({"text_config": {"dtype": "float32"}}) == 4
    assert stored_bytes({"dtype": "bfloat16"}) == 2
    assert stored_bytes({}) is None


@pytest.mark.parametrize(("total", "ranks", "share"), [(100, 1, 100), (100, 3, 34), (5_733_000_000, 2, 2_866_500_000)])
def test_tensor_parallel_divides(total: int, ranks: int, share: int) -> None:
    assert per_rank(total, ranks) == share


def test_in_the_lab_the_note_decides() -> None:
    note = json.dumps({"weights_gib": 5.34, "other_gib": 1.0})
    found = simulated_bytes(["model.safetensors", "lab-weights.json"], {"lab-weights.json": note}.__getitem__)
    assert found == pytest.approx(5.34 * 2**30, abs=1)
    assert simulated(found).source == "simulated (lab-weights.json)"
    assert simulated_bytes(["model.safetensors"], {}.__getitem__) is None
