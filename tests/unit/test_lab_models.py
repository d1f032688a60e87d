"""The lab's models: small, but as valid as the checks of a deploy demand."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from lab.doubles.serve.lab_serve import gguf
from lab.models import make, weights


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert make.main([str(folder)]) == 0
    return folder


def test_every_shard_is_whole_and_holds_what_the_index_says(out: Path) -> None:
    indexes = sorted(out.glob("hub/*/*/model.safetensors.index.json"))
    assert len(indexes) == 3
    for index in indexes:
        where: dict[str, str] = json.loads(index.read_text())["weight_map"]
        for file in sorted(set(where.values())):
            content = (index.parent / file).read_bytes()
            (length,) = struct.unpack("<Q", content[:8])
            header = json.loads(content[8 : 8 + length])
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
            assert 8 + length + end == len(content)
            assert set(header) - {"__metadata__"} == {name for name, shard in where.items() if shard == file}


def test_models_carry_the_real_dimensions_and_say_that_they_are_simulated(out: Path) -> None:
    llama = out / "hub/hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"
    config = json.loads((llama / "config.json").read_text())
    assert (config["num_hidden_layers"], config["num_key_value_heads"], config["hidden_size"]) == (32, 8, 4096)
    note = json.loads((llama / "lab-weights.json").read_text())
    assert note["weights_gib"] == 5.34
    assert note["note"].startswith("Simulated")


def test_tensor_names_of_a_quantised_and_of_a_tied_model() -> None:
    quantised = weights.tensor_names(2, "gptq", tied=False)
    assert quantised["model.layers.1.mlp.down_proj.qweight"] == "I32"
    assert "lm_head.weight" in quantised
    tied = weights.tensor_names(2, "plain", tied=True)
    assert tied["model.layers.0.self_attn.q_proj.weight"] == "BF16"
    assert "lm_head.weight" not in tied


def test_ollama_manifests_name_blobs_that_are_there(out: Path) -> None:
    manifests = sorted(out.glob("ollama/v2/library/*/manifests/*"))
    assert [f"{file.parts[-3]}:{file.name}" for file in manifests] == [
        "bge-m3:567m", "bge-m3:latest", "nomic-embed-text:latest", "nomic-embed-text:v1.5"
    ]  # fmt: skip
    for file in manifests:
        library, tag = file.parents[1], file.name
        manifest = json.loads((library / "manifests" / tag).read_text())
        for blob in [manifest["config"], *manifest["layers"]]:
            content = (library / "blobs" / blob["digest"]).read_bytes()
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == blob["digest"]
            assert len(content) == blob["size"]


def test_the_same_bytes_every_time(out: Path, tmp_path: Path) -> None:
    make.main([str(tmp_path)])
    for file in sorted(out.rglob("*")):
        if file.is_file():
            assert (tmp_path / file.relative_to(out)).read_bytes() == file.read_bytes()


def test_gguf_header() -> None:
    content = weights.gguf({"general.architecture": "bert", "bert.context_length": 8192})
    assert struct.unpack("<4sIQQ", content[:24]) == (b"GGUF", 3, 0, 2)
    assert len(content) == 64 * 1024


def test_gguf_values_of_every_kind_are_read_again() -> None:
    metadata: dict[str, weights.Value] = {"a": "text", "b": 7, "c": True, "d": 0.5, "e": 1 << 40}
    assert gguf.read_metadata(weights.gguf(metadata)) == metadata


def test_a_gguf_repository_has_several_quantisations_and_each_says_how_large_the_real_one_is(out: Path) -> None:
    repository = out / "hub/Qwen/Qwen3-4B-GGUF"
    assert not (repository / "config.json").exists()
    found = {file.name: gguf.read_metadata(file.read_bytes()) for file in repository.glob("*.gguf")}
    assert {name: one["general.file_type"] for name, one in found.items()} == {
        "Qwen3-4B-Q4_K_M.gguf": 15,
        "Qwen3-4B-Q8_0.gguf": 7,
    }
    one = found["Qwen3-4B-Q4_K_M.gguf"]
    assert (one["general.architecture"], one["qwen3.context_length"], one["qwen3.block_count"]) == ("qwen3", 40960, 36)
    assert one[weights.LAB_BYTES] == 2_497_280_256


def test_chinese_embedding_models_have_512_positions_and_their_own_length(out: Path) -> None:
    for name, size in (("bge-large-zh-v1.5", 1024), ("bge-small-zh-v1.5", 512)):
        folder = out / "hub/BAAI" / name
        config = json.loads((folder / "config.json").read_text())
        assert (config["architectures"], config["hidden_size"], config["max_position_embeddings"]) == (
            ["BertModel"],
            size,
            512,
        )
        assert json.loads((folder / "1_Pooling/config.json").read_text())["word_embedding_dimension"] == size
    header = (out / "hub/BAAI/bge-small-zh-v1.5/model.safetensors").read_bytes()
    assert b"encoder.layer.3.attention.self.query.weight" in header
