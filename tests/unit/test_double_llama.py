"""The double of llama.cpp's server from outside: command line, loading, memory of cards, answers, faults, its end.

Status codes, texts and forms of answers were compared with the real program of the same commit (lab/real/llama_server.py).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from double_processes import (
    LIMIT_SECONDS,
    Double,
    environment,
    make_host,
    running,
    set_faults,
    start_llama,
    used_mib,
    wait_for,
)

from lab.models import weights
from stoker.engines.llama_cpp import ENGINE
from stoker.ready.phase import Phase

MIB = 1024 * 1024
QWEN: dict[str, weights.Value] = {
    "general.architecture": "qwen3",
    "general.file_type": 15,
    "qwen3.block_count": 36,
    "qwen3.context_length": 40960,
    "qwen3.embedding_length": 2560,
    "qwen3.attention.head_count": 32,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
    "qwen3.vocab_size": 151936,
    weights.LAB_BYTES: 2_497_280_256,
}
BERT: dict[str, weights.Value] = {
    "general.architecture": "bert",
    "general.file_type": 1,
    "bert.block_count": 24,
    "bert.context_length": 512,
    "bert.embedding_length": 1024,
    "bert.attention.head_count": 16,
    "bert.vocab_size": 21128,
}
CHAT = {"model": "anything", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
#: Weights, cache of 8192 tokens, logits of 512 tokens and the context of CUDA, in MiB.
QWEN_MIB = 2_497_280_256 / MIB + 8192 * 147456 / MIB + 512 * 151936 * 4 / MIB + 8 + 300


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "Qwen3-4B-Q4_K_M.gguf"
    file.write_bytes(weights.gguf(QWEN))
    return file


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", "RTX-4090", "RTX-3090")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, qwen: Path) -> Iterator[Double]:
    card = make_host(tmp_path_factory.mktemp("host") / "host", "RTX-4090")
    given = ("-m", str(qwen), "--alias", "qwen3-4b", "-c", "8192", "-np", "2", "-ngl", "99", "--metrics", "--no-webui")
    with running(start_llama(card, *given)) as double:
        loaded(double)
        yield double


def loaded(double: Double) -> Double:
    double.wait_ready()
    wait_for(lambda: double.get("/health").status_code == 200 or double.process.poll() is not None, "it is loaded")
    assert double.process.poll() is None, double.text()
    return double


def ends(host: Path, *arguments: str, **env: str) -> tuple[int, str]:
    with running(start_llama(host, *arguments, **env)) as double:
        return double.wait_exit(), double.text()


def events(double: Double, body: dict[str, Any]) -> list[str]:
    with httpx.stream("POST", double.url + "/v1/chat/completions", json=body, timeout=LIMIT_SECONDS) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        return [line.removeprefix("data: ") for line in answer.iter_lines() if line]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--no-such-option"], "error: invalid argument: --no-such-option"),
        (["-c", "x"], 'error while handling argument "-c": stoi\n\nusage:\n-c, --ctx-size N'),
        (["-np", "0"], 'error while handling argument "-np": error: invalid value for n_parallel'),
        (["-fa", "perhaps"], "error: unknown value for --flash-attn: 'perhaps'"),
        (["--pooling", "first"], 'error while handling argument "--pooling": invalid value'),
    ],
)
def test_a_wrong_command_line_is_refused_in_the_programs_words(host: Path, arguments: list[str], said: str) -> None:
    code, output = ends(host, *arguments)
    assert (code, said in output) == (1, True), output


def test_environment_variables_count_and_the_command_line_overwrites_them(host: Path, qwen: Path) -> None:
    code, output = ends(host, LLAMA_ARG_CTX_SIZE="x")
    assert (code, 'error while handling environment variable "LLAMA_ARG_CTX_SIZE": stoi' in output) == (1, True)
    env = {
        "LLAMA_ARG_MODEL": str(qwen),
        "LLAMA_ARG_HOST": "192.0.2.1",
        "LLAMA_API_KEY": "secret",
        "LLAMA_ARG_CTX_SIZE": "4096",
    }
    with running(start_llama(host, **env)) as double:
        loaded(double)
        assert double.get("/v1/models").status_code == 401
        assert double.get("/v1/models", Authorization="Bearer secret").json()["data"][0]["id"] == str(qwen)
        assert double.get("/v1/models", **{"X-Api-Key": "secret"}).status_code == 200
    assert "warn: LLAMA_ARG_HOST environment variable is set, but will be overwritten" in double.text()


def test_everything_is_503_while_it_loads(host: Path, qwen: Path) -> None:
    with running(start_llama(host, "-m", str(qwen), LAB_LLAMA_LOAD_SECONDS="1")) as double:
        double.wait_ready()
        body = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
        for path in ("/health", "/v1/models"):
            answer = double.get(path)
            assert (answer.status_code, answer.json()) == (503, body)
        loaded(double)
        assert double.get("/health").json() == {"status": "ok"}
    phases = [
        "llama_server: initializing",
        "load_model: loading model '",
        "load_model: initializing, n_slots = 4, n_ctx_slot = ",
    ]
    phases += ["llama_server: model loaded", "llama_server: listening on http://127.0.0.1:"]
    positions = [double.text().find(phase) for phase in phases]
    assert positions == sorted(positions)
    assert -1 not in positions, double.text()


def phase(double: Double) -> Phase | None:
    # Without the lines of requests, which tell nothing of the start.
    found = ENGINE.progress("\n".join(line for line in double.text().splitlines() if " slot " not in line))
    return found.phase if found else None


def test_the_phases_of_its_log_are_known(ready: Double, host: Path, qwen: Path) -> None:
    assert phase(ready) is Phase.SERVING
    with running(start_llama(host, "-m", str(qwen), LAB_LLAMA_LOAD_SECONDS="30")) as double:
        double.wait_ready()
        wait_for(lambda: "loading model" in double.text(), "it loads")
        assert phase(double) is Phase.LOADING


def test_a_host_without_a_card_is_not_taken_for_one_with(host: Path) -> None:
    """The probe of a card is what a deploy runs in the image."""
    probe = ENGINE.profiles["llama-cpp-cuda"].card_proof
    script = (
        probe[-1]
        .replace("/app/llama-server", f"{sys.executable} -m lab_llama.cli")
        .replace("/tmp/devices", str(host / "devices"))
    )
    for visible, code in (("0", 0), ("", 1)):
        done = subprocess.run(
            ["sh", "-c", script], env=environment(host, CUDA_VISIBLE_DEVICES=visible), capture_output=True, check=False
        )
        assert done.returncode == code, done.stdout


def test_memory_is_taken_on_the_visible_card_and_given_back(host: Path, qwen: Path) -> None:
    given = ("-m", str(qwen), "-c", "8192", "-ngl", "99")
    with running(start_llama(host, *given, CUDA_VISIBLE_DEVICES="1")) as double:
        loaded(double)
        assert used_mib(host, 0) < 100
        assert used_mib(host, 1) == pytest.approx(QWEN_MIB, abs=100)
        double.process.terminate()
        assert double.wait_exit() == 0
    assert used_mib(host, 1) < 100


def test_layers_are_spread_over_all_visible_cards(host: Path, qwen: Path) -> None:
    with running(start_llama(host, "-m", str(qwen), "-c", "8192", "-ngl", "all")) as double:
        loaded(double)
        assert used_mib(host, 0) + used_mib(host, 1) == pytest.approx(QWEN_MIB + 300, abs=150)
        assert min(used_mib(host, 0), used_mib(host, 1)) > 1500


@pytest.mark.parametrize("more", [["-ngl", "0"], []])
def test_without_layers_or_without_a_card_no_memory_of_a_card_is_taken(host: Path, qwen: Path, more: list[str]) -> None:
    with running(start_llama(host, "-m", str(qwen), *more, **({} if more else {"CUDA_VISIBLE_DEVICES": ""}))) as double:
        loaded(double)
        assert used_mib(host, 0) + used_mib(host, 1) < 100


def test_what_the_command_line_sets_and_does_not_fit_is_out_of_memory(host: Path, qwen: Path) -> None:
    code, output = ends(host, "-m", str(qwen), "-c", "200000", "-ngl", "99", CUDA_VISIBLE_DEVICES="0")
    assert code == 1
    lines = [
        "W common_fit_params: failed to fit params to free device memory: n_gpu_layers already set by user to 99, abort",
        r"E ggml_backend_cuda_buffer_type_alloc_buffer: allocating [\d.]+ MiB on device 0: cudaMalloc failed: out of memory",
        r"E alloc_tensor_range: failed to allocate CUDA0 buffer of size \d+",
        "E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
        "E srv    load_model: failed to create_context with model",
        "E srv  llama_server: exiting due to model loading error",
    ]
    found = [re.search(line, output) for line in lines]
    assert all(found), output


def test_what_it_leaves_open_is_made_to_fit(host: Path, qwen: Path) -> None:
    large = qwen.with_name("large.gguf")
    large.write_bytes(weights.gguf({**QWEN, weights.LAB_BYTES: 30 << 30}))
    with running(start_llama(host, "-m", str(large), CUDA_VISIBLE_DEVICES="0")) as double:
        loaded(double)
        assert double.get("/props").json()["default_generation_settings"]["n_ctx"] == 4096
        assert 15_000 < used_mib(host, 0) < 24_210


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "failed to open GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1", "invalid magic characters: 'vers', expected 'GGUF'"),
        (weights.gguf({"general.architecture": "unheard"}), "unknown model architecture: 'unheard'"),
    ],
)
def test_a_file_that_is_no_model_is_told(host: Path, tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    code, output = ends(host, "-m", str(file))
    assert (code, said in output, "exiting due to model loading error" in output) == (1, True, True), output


def test_a_chat_answers_under_every_name(ready: Double) -> None:
    answer = ready.post("/v1/chat/completions", CHAT).json()
    assert (answer["model"], answer["object"], answer["system_fingerprint"]) == (
        "qwen3-4b",
        "chat.completion",
        "b11312-0c1e57098",
    )
    assert answer["choices"][0]["finish_reason"] == "length"
    assert "simulated" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == answer["timings"]["predicted_n"] == 5
    two = ready.post("/v1/chat/completions", {**CHAT, "n": 2}).json()
    assert ([choice["index"] for choice in two["choices"]], two["usage"]["completion_tokens"]) == ([0, 1], 10)
    text = ready.post("/v1/completions", {"prompt": "hello", "max_tokens": 3}).json()
    assert (text["object"], text["usage"]["completion_tokens"]) == ("text_completion", 3)


def test_a_stream_begins_with_the_role_and_ends_with_counts_and_done(ready: Double) -> None:
    lines = events(ready, {**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[1:-1]] == [None] * 5 + ["length"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 5)
    assert "timings" in json.loads(events(ready, {**CHAT, "stream": True})[-2])


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/chat/completions", {}, 400, "'messages' is required"),
        ("/v1/chat/completions", {"messages": "x"}, 400, "Expected 'messages' to be an array"),
        ("/v1/chat/completions", {**CHAT, "n": 3}, 400, "Field 'n': Value must be between 1 <= value <= 2, but got 3"),
        (
            "/v1/chat/completions",
            {**CHAT, "max_tokens": "x"},
            400,
            "Field 'max_tokens': [json.exception.type_error.302] type must be number, but is string",
        ),
        ("/v1/completions", {}, 400, "[json.exception.out_of_range.403] key 'prompt' not found"),
        (
            "/v1/embeddings",
            {"input": "x"},
            501,
            "This server does not support embeddings. Start it with `--embeddings`",
        ),
        ("/v1/nothing", {}, 404, "File Not Found"),
    ],
)
def test_refusals(ready: Double, path: str, body: dict[str, Any], status: int, said: str) -> None:
    answer = ready.post(path, body)
    assert (answer.status_code, answer.json()["error"]["message"], answer.headers["connection"]) == (
        status,
        said,
        "close",
    )


def test_a_prompt_beyond_the_slots_context_is_refused_with_both_numbers(ready: Double) -> None:
    answer = ready.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 5000}]})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 4096)
    assert error["n_prompt_tokens"] > 5000


def test_metrics_count_and_need_their_switch(ready: Double, host: Path, qwen: Path) -> None:
    ready.post("/v1/chat/completions", CHAT)
    text = ready.get("/metrics").text
    found = dict(re.findall(r"^llamacpp:(\w+) (\S+)$", text, re.MULTILINE))
    assert float(found["tokens_predicted_total"]) >= 5
    assert (found["requests_processing"], found["requests_deferred"]) == ("0", "0")
    with running(start_llama(host, "-m", str(qwen))) as double:
        assert loaded(double).get("/metrics").status_code == 501


def test_requests_beyond_the_slots_are_deferred(ready: Double) -> None:
    long = {**CHAT, "max_tokens": 300, "ignore_eos": True}
    threads = [threading.Thread(target=ready.post, args=("/v1/chat/completions", long)) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: "llamacpp:requests_deferred 1\n" in ready.get("/metrics").text, "one request is deferred")
    assert "llamacpp:requests_processing 2\n" in ready.get("/metrics").text
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    wait_for(lambda: "llamacpp:requests_processing 0\n" in ready.get("/metrics").text, "all are done")


def test_embeddings_have_the_models_length_and_a_limit(host: Path, tmp_path: Path) -> None:
    file = tmp_path / "bge.gguf"
    file.write_bytes(weights.gguf(BERT))
    with running(start_llama(host, "-m", str(file), "--embeddings", "--pooling", "cls", "-np", "1")) as double:
        loaded(double)
        answer = double.post("/v1/embeddings", {"input": ["a", "b"], "model": "bge"}).json()
        assert ([len(one["embedding"]) for one in answer["data"]], answer["model"]) == ([1024, 1024], "bge")
        long = double.post("/v1/embeddings", {"input": "word " * 600})
        assert (long.status_code, "increase the physical batch size (current batch size: 512)" in long.text) == (
            500,
            True,
        )
    assert "embeddings enabled with n_batch (2048) > n_ubatch (512)" in double.text()


def test_faults(host: Path, qwen: Path) -> None:
    set_faults(host, qwen="oom-start")
    code, output = ends(host, "-m", str(qwen), "-a", "qwen", "-ngl", "99")
    assert (code, "error loading model: unable to allocate CUDA0 buffer" in output) == (1, True), output
    set_faults(host)
    with running(start_llama(host, "-m", str(qwen), "-a", "qwen")) as double:
        loaded(double)
        set_faults(host, qwen="error-500")
        assert double.post("/v1/chat/completions", CHAT).status_code == 500
        set_faults(host, qwen="crash-after")
        assert double.wait_exit() == -9


def test_sigterm_with_a_stream_closes_the_port_and_cuts_the_stream(host: Path, qwen: Path) -> None:
    with running(start_llama(host, "-m", str(qwen), LAB_TOKEN_MS="20")) as double:
        loaded(double)
        body = {**CHAT, "stream": True, "max_tokens": 2000, "ignore_eos": True}
        with httpx.stream("POST", double.url + "/v1/chat/completions", json=body, timeout=LIMIT_SECONDS) as answer:
            lines = answer.iter_lines()
            next(lines)
            double.process.terminate()
            wait_for(lambda: not double.listens(), "the port is closed")
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert double.wait_exit() == 0
    assert "cleaning up before exit..." in double.text()


def test_devices_are_listed(host: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab_llama.cli", "--list-devices"],
        env=environment(host),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[:2] == [
        "Available devices:",
        "  CUDA0: NVIDIA GeForce RTX 4090 (24210 MiB, 24210 MiB free)",
    ]
