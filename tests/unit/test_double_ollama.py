"""The Ollama double from outside: pull, create, load, embed, truncation, keep-alive, faults."""

from __future__ import annotations

import base64
import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from double_processes import Double, environment, make_host, running, set_faults, start_ollama, used_mib, wait_for

BAKED = {"model": "bge-m3", "from": "bge-m3:567m", "parameters": {"num_ctx": 8192, "num_batch": 8192}, "stream": False}


@pytest.fixture
def p40(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", "P40-24GB")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, library: str) -> Any:
    """A server that has bge-m3 as the deploy makes it."""
    host = make_host(tmp_path_factory.mktemp("p40") / "host", "P40-24GB")
    with running(start_ollama(host, OLLAMA_LAB_LIBRARY=library, OLLAMA_KEEP_ALIVE="-1")) as double:
        double.wait_ready()
        assert double.post("/api/pull", {"model": "bge-m3:567m", "stream": False}).json() == {"status": "success"}
        assert double.post("/api/create", BAKED).json() == {"status": "success"}
        yield double


def pulled(host: Path, library: str, **env: str) -> Double:
    double = start_ollama(host, OLLAMA_LAB_LIBRARY=library, **env).wait_ready()
    assert double.post("/api/pull", {"model": "bge-m3", "stream": False}).json() == {"status": "success"}
    return double


def embed(double: Double, text: Any, **more: Any) -> Any:
    answer = double.post("/api/embed", {"model": "bge-m3", "input": text, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["embeddings"]


def length(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


def test_pull_streams_progress_and_stores_the_model(p40: Path, library: str) -> None:
    with running(start_ollama(p40, OLLAMA_LAB_LIBRARY=library)) as double:
        double.wait_ready()
        assert double.get("/api/tags").json() == {"models": []}
        with httpx.stream("POST", double.url + "/api/pull", content=b'{"model":"bge-m3"}') as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            lines = [json.loads(line) for line in answer.iter_lines()]
        assert lines[0] == {"status": "pulling manifest"}
        assert [line["status"] for line in lines[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
        model = [line for line in lines if line.get("total", 0) > 10**9]
        assert model[-1]["completed"] == model[-1]["total"]
        assert len({line.get("completed", 0) for line in model}) > 5
        card = double.get("/api/tags").json()["models"][0]
        assert (card["name"], card["details"]["quantization_level"], card["size"] // 10**8) == (
            "bge-m3:latest",
            "F16",
            11,
        )
        assert (p40 / "models" / "manifests" / "registry.ollama.ai" / "library" / "bge-m3" / "latest").is_file()


def test_names_with_a_registry(p40: Path) -> None:
    with running(start_ollama(p40)) as double:
        double.wait_ready()
        body = {"model": "127.0.0.1:1/library/bge-m3:567m", "stream": False}
        refused = double.post("/api/pull", body)
        assert refused.status_code == 500
        assert (
            'Get "https://127.0.0.1:1/v2/library/bge-m3/manifests/567m": dial tcp: connect: connection refused'
            in refused.json()["error"]
        )
        assert "http://127.0.0.1:1/v2/" in double.post("/api/pull", {**body, "insecure": True}).json()["error"]


def test_unknown_models(ready: Double) -> None:
    missing = ready.post("/api/embed", {"model": "nope", "input": "x"})
    assert (missing.status_code, missing.json()) == (404, {"error": 'model "nope" not found, try pulling it first'})
    assert (
        "try pulling it first"
        in ready.post("/v1/embeddings", {"model": "nope", "input": "x"}).json()["error"]["message"]
    )
    assert ready.post("/api/pull", {"model": "nope", "stream": False}).json() == {
        "error": "pull model manifest: file does not exist"
    }
    assert ready.post("/api/generate", {"model": "bge-m3", "prompt": "x"}).json() == {
        "error": '"bge-m3" does not support generate'
    }


def test_preload_makes_it_resident_on_the_card(ready: Double) -> None:
    assert embed(ready, []) == []
    state = ready.get("/api/ps").json()["models"][0]
    assert state["size_vram"] == state["size"] > 1.5 * 2**30
    assert (state["context_length"], int(state["expires_at"][:4]) > 2200) == (8192, True)
    assert used_mib(ready.log.parent) == round(state["size"] / 2**20)
    for text in (
        "inference compute",
        "library=CUDA compute=6.1",
        "starting llama-server",
        "llama-server started in",
        "loaded runners",
    ):
        assert text in ready.text()


def test_embeddings_depend_on_the_text_and_are_finite(ready: Double) -> None:
    one, two = embed(ready, ["one", "two"])
    assert len(one) == len(two) == 1024
    assert one != two
    assert one == embed(ready, "one")[0]
    assert abs(length(one) - 1) < 1e-9
    raw = ready.post("/api/embeddings", {"model": "bge-m3", "prompt": "one"}).json()["embedding"]
    assert length(raw) > 2
    assert all(math.isfinite(value) for value in raw)
    assert abs(raw[5] / length(raw) - one[5]) < 1e-9


def test_openai_form(ready: Double) -> None:
    plain = ready.post("/v1/embeddings", {"model": "bge-m3", "input": ["one"]}).json()
    assert (plain["object"], plain["data"][0]["object"], plain["data"][0]["index"]) == ("list", "embedding", 0)
    packed = ready.post("/v1/embeddings", {"model": "bge-m3", "input": ["one"], "encoding_format": "base64"}).json()
    values = struct.unpack("<1024f", base64.b64decode(packed["data"][0]["embedding"]))
    assert abs(values[7] - plain["data"][0]["embedding"][7]) < 1e-6
    assert ready.get("/v1/models").json()["data"][0]["id"] == "bge-m3:latest"


def test_bodies_need_no_content_type(ready: Double) -> None:
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = httpx.post(ready.url + "/api/embed", content=b'{"model":"bge-m3","input":"x"}', headers=headers)
        assert answer.status_code == 200
    assert httpx.post(ready.url + "/api/embed", content=b"").json() == {"error": "missing request body"}


LONG_TEXT = " ".join(f"w{number}" for number in range(3000))  # two pieces a word: 6000 tokens
SHORT_TEXT = " ".join(f"w{number}" for number in range(1250))


def test_baked_sizes_keep_long_texts_apart(ready: Double) -> None:
    assert embed(ready, LONG_TEXT) != embed(ready, SHORT_TEXT)
    parameters = ready.post("/api/show", {"model": "bge-m3"}).json()["parameters"]
    assert sorted(parameters.splitlines()) == [
        "num_batch                      8192",
        "num_ctx                        8192",
    ]


def test_default_sizes_cut_at_2048_tokens(p40: Path, library: str) -> None:
    with running(pulled(p40, library)) as double:
        assert embed(double, LONG_TEXT) == embed(double, SHORT_TEXT)
        strict = double.post("/api/embed", {"model": "bge-m3", "input": LONG_TEXT, "truncate": False})
        assert (strict.status_code, strict.json()) == (400, {"error": "the input length exceeds the context length"})
        options = {"num_ctx": 8192, "num_batch": 8192}
        assert embed(double, LONG_TEXT, options=options) != embed(double, SHORT_TEXT, options=options)


def test_old_driver_silently_means_the_cpu(tmp_path: Path, library: str) -> None:
    host = make_host(tmp_path / "host", "P40-24GB", driver="535.183.01")
    with running(pulled(host, library)) as double:
        embed(double, "x")
        state = double.get("/api/ps").json()["models"][0]
        assert (state["size_vram"], state["size"] > 0, used_mib(host)) == (0, True, 0)
        assert "NVIDIA driver too old" in double.text()
        assert "library=cpu" in double.text()


def test_keep_alive_ends_the_residence(p40: Path, library: str) -> None:
    with running(pulled(p40, library)) as double:
        embed(double, "x", keep_alive=-1)
        assert used_mib(p40) > 1500
        embed(double, "x", keep_alive="0.2s")
        wait_for(lambda: double.get("/api/ps").json() == {"models": []}, "it is unloaded")
        assert used_mib(p40) == 0


def test_a_starting_server_prunes_partial_downloads_unless_told_not_to(p40: Path, library: str) -> None:
    partial = p40 / "models" / "blobs" / ("sha256-" + "0" * 64 + "-partial")
    partial.parent.mkdir(parents=True)
    for value, kept in (("1", True), ("", False)):
        partial.write_bytes(b"half")
        with running(start_ollama(p40, OLLAMA_LAB_LIBRARY=library, OLLAMA_NOPRUNE=value)) as double:
            double.wait_ready()
            assert partial.exists() is kept


def test_faults(p40: Path, library: str) -> None:
    with running(pulled(p40, library, STOKER_INSTANCE="ollama_bge_0")) as double:
        embed(double, "x")
        for fault, code, text in (
            ("nan", 500, "embedding contains NaN or Inf values"),
            ("error-500", 500, "simulated"),
        ):
            set_faults(p40, ollama_bge_0=fault)
            answer = double.post("/api/embed", {"model": "bge-m3", "input": "x"})
            assert (answer.status_code, text in answer.text) == (code, True)
        set_faults(p40, ollama_bge_0="nan=sick")
        assert len(embed(double, "well")) == 1
        assert double.post("/api/embed", {"model": "bge-m3", "input": ["well", "a sick text"]}).status_code == 500
        set_faults(p40, ollama_bge_0="wrong-dimension=768")
        assert len(embed(double, "x")[0]) == 768


def test_client_commands(ready: Double) -> None:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        host = env.pop("OLLAMA_HOST", f"127.0.0.1:{ready.port}")
        command = [sys.executable, "-m", "lab_ollama.cli", *arguments]
        return subprocess.run(
            command, env=environment(ready.log.parent, OLLAMA_HOST=host), capture_output=True, text=True, timeout=15
        )

    assert "bge-m3:latest" in run("list").stdout
    assert "ollama version is 0.32.15" in run("--version").stdout
    embed(ready, [])
    assert "100% GPU     8192       Forever" in run("ps").stdout
    assert "num_ctx                        8192" in run("show", "bge-m3").stdout
    down = run("list", OLLAMA_HOST="127.0.0.1:1")
    assert (down.returncode, "could not connect to ollama server" in down.stderr) == (1, True)


def test_nomic_embed_text_has_768_values_and_cuts_at_its_own_context(p40: Path, library: str) -> None:
    with running(start_ollama(p40, OLLAMA_LAB_LIBRARY=library)) as double:
        double.wait_ready()
        assert (
            double.post("/api/pull", {"model": "nomic-embed-text:v1.5", "stream": False}).json()["status"] == "success"
        )
        answer = double.post("/api/embed", {"model": "nomic-embed-text:v1.5", "input": LONG_TEXT}).json()
        assert len(answer["embeddings"][0]) == 768
        shown = double.post("/api/show", {"model": "nomic-embed-text:v1.5"}).json()
        loaded = double.get("/api/ps").json()["models"][0]
    assert answer["prompt_eval_count"] == loaded["context_length"] == 2048
    info = shown["model_info"]
    assert (info["general.architecture"], info["nomic-bert.embedding_length"]) == ("nomic-bert", 768)
    assert (shown["parameters"].split(), shown["details"]["parameter_size"]) == (["num_ctx", "8192"], "137M")
