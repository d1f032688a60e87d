"""The vLLM double from outside: command line, load phases, memory, HTTP interface, stop, faults."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from double_processes import (
    Double,
    environment,
    make_bge,
    make_host,
    make_model,
    running,
    set_faults,
    smi,
    start_vllm,
    used_mib,
    wait_for,
)

LLAMA = (
    "--served-model-name",
    "llama3.1-8b",
    "--dtype",
    "half",
    "--gpu-memory-utilization",
    "0.45",
    "--max-model-len",
    "8192",
)
LLAMA += ("--block-size", "64", "--max-num-seqs", "16")
CHAT = {"model": "llama3.1-8b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
LONG = {**CHAT, "max_tokens": 4000, "ignore_eos": True}


@pytest.fixture(scope="module")
def v100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_host(tmp_path_factory.mktemp("v100"), "V100-32GB")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def served(v100: Path, llama: Path) -> Any:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA)) as double:
        yield double.wait_ready()


def ends(host: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and output of a command line that does not serve."""
    double = start_vllm(host, *arguments, **env)
    with running(double):
        return double.wait_exit(), double.text()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["serve", "m", "--task=embed"], 2, "vllm: error: unrecognized arguments: --task=embed"),
        (["serve", "m", "--swap-space", "4"], 2, "vllm: error: unrecognized arguments: --swap-space 4"),
        (
            ["serve", "m", "--max-num-seqs", "x"],
            2,
            "vllm serve: error: argument --max-num-seqs: invalid int value: 'x'",
        ),
        (
            ["serve", "m", "--dtype", "int8"],
            2,
            "invalid choice: 'int8' (choose from 'auto', 'bfloat16', 'float', 'float16', 'float32', 'half')",
        ),
        (
            ["serve", "m", "--config", "/c/vllm_config.json"],
            1,
            "ValueError: Config file must be of a yaml/yml type. json supplied",
        ),
        (["serve", "--served-model-name", "a"], 1, "`model` should be provided as the first positional argument"),
        (["serve", "m", "--max-model-len", "1.5K"], 2, "Did you mean to use 1.5k instead?"),
        (["serve", "/nowhere"], 1, "Invalid repository ID or local directory specified: '/nowhere'"),
        (["--version"], 0, "0.19.1"),
    ],
)
def test_command_line_is_refused_as_vllm_does(v100: Path, arguments: list[str], code: int, text: str) -> None:
    found, output = ends(v100, *arguments)
    assert (found, text in output) == (code, True), output


def test_underscores_config_file_and_model_option_are_accepted(v100: Path, llama: Path, tmp_path: Path) -> None:
    config = tmp_path / "vllm.yaml"
    config.write_text("max_model_len: 8k\nserved-model-name: [a, b]\nenforce-eager: true\n")
    double = start_vllm(
        v100, "serve", "--model", str(llama), "--gpu_memory_utilization", "0.3", "--config", str(config)
    )
    with running(double):
        double.wait_ready()
        cards = double.get("/v1/models").json()["data"]
    assert [(card["id"], card["max_model_len"]) for card in cards] == [("a", 8000), ("b", 8000)]
    assert "should provide the model as a positional argument" in double.text()
    assert "Capturing CUDA graphs" not in double.text()


def test_without_a_gpu_nothing_starts(tmp_path: Path) -> None:
    code, output = ends(tmp_path, "serve", "m")
    assert code == 1
    assert "RuntimeError: Failed to infer device type" in output


def test_load_phases_in_order_and_the_arithmetic_of_the_cache(served: Double) -> None:
    phases = [
        "version 0.19.1",
        "non-default args:",
        "Resolved architecture: LlamaForCausalLM",
        "Initializing a V1 LLM engine (v0.19.1)",
        "world_size=1 rank=0",
        "Starting to load model",
        "Using TRITON_ATTN attention backend out of potential backends",
        "Loading safetensors checkpoint shards:  50% Completed | 1/2",
        "Loading weights took",
        "Model loading took 5.34 GiB memory",
        "Dynamo bytecode transform time:",
        "torch.compile took",
        "Available KV cache memory: 7.94 GiB",
        "GPU KV cache size: 65,024 tokens",
        "Maximum concurrency for 8,192 tokens per request: 7.94x",
        "Capturing CUDA graphs",
        "Graph capturing finished",
        "init engine (profile, create kv cache, warmup model) took",
        "Supported tasks: ('generate',)",
        "Starting vLLM server on http://",
        "Application startup complete.",
    ]
    text = served.text()
    positions = [text.find(phase) for phase in phases]
    assert -1 not in positions, dict(zip(phases, positions, strict=True))
    assert positions == sorted(positions)
    assert re.search(r"\(EngineCore pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[core.py:106\]", text)
    assert "\r(EngineCore" in text


def test_memory_is_shown_by_nvidia_smi_with_the_engine_process(served: Double, v100: Path) -> None:
    used = used_mib(v100)
    assert 0.45 * 32494 + 400 <= used <= 0.45 * 32494 + 1024
    apps = smi(v100, "--query-compute-apps=pid,process_name,used_gpu_memory", "--format=csv,noheader,nounits").stdout
    pid, name, size = apps.strip().split(", ")
    assert (name, int(size)) == ("VLLM::EngineCore", used)
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"VLLM::EngineCore")


def test_connections_are_refused_while_loading_but_the_port_is_taken(v100: Path, llama: Path) -> None:
    first = start_vllm(
        v100, "serve", str(llama), "--gpu-memory-utilization", "0.3", "--max-model-len", "8192", LAB_LOAD_SECONDS="1.0"
    )
    with running(first):
        wait_for(lambda: "Starting to load model" in first.text(), "loading has begun")
        assert not first.listens()
        first.wait_ready()
        second = start_vllm(v100, "serve", str(llama), "--max-model-len", "8192", port=first.port)
        with running(second):
            assert second.wait_exit() == 1
            assert "[Errno 98] Address already in use" in second.text()


@pytest.mark.parametrize(
    ("card", "arguments", "text"),
    [
        (
            "V100-32GB",
            ["--gpu-memory-utilization", "0.45", "--max-model-len", "100000"],
            "(100000), (12.21 GiB KV cache is needed, which is larger than",
        ),
        ("V100-32GB", ["--gpu-memory-utilization", "0.15"], "No available memory for the cache blocks."),
        ("V100-32GB", ["--dtype", "bfloat16"], "torch.bfloat16 is not supported for quantization method gptq."),
        ("V100-32GB", ["--quantization", "gptq_marlin"], "Minimum capability: 75. Current capability: 70."),
        (
            "V100-32GB",
            ["--max-model-len", "200000"],
            "User-specified max_model_len (200000) is greater than the derived max_model_len",
        ),
        (
            "P40-24GB",
            ["--max-model-len", "8192"],
            "Found Tesla P40 which is too old to be supported by the triton GPU compiler",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_vllms_words(
    tmp_path: Path, llama: Path, card: str, arguments: list[str], text: str
) -> None:
    code, output = ends(make_host(tmp_path / "host", card), "serve", str(llama), *arguments)
    assert code == 1
    assert text in output, output


def test_bfloat16_model_is_cast_and_explicit_bfloat16_refused(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    model = make_model(tmp_path / "qwen3", torch_dtype="bfloat16", quantization_config=None)
    code, output = ends(host, "serve", str(model), "--dtype", "bfloat16")
    assert code == 1
    assert "Your Tesla V100-SXM2-32GB GPU has compute capability 7.0." in output
    assert "Engine core initialization failed. See root cause above." in output
    double = start_vllm(host, "serve", str(model), "--max-model-len", "8192")
    with running(double):
        double.wait_ready()
        assert "doesn't support torch.bfloat16. Falling back to torch.float16 for compatibility." in double.text()


def test_a_card_that_is_too_full_is_refused(served: Double, v100: Path, llama: Path) -> None:
    code, output = ends(v100, "serve", str(llama), "--gpu-memory-utilization", "0.6", "--max-model-len", "8192")
    assert code == 1
    found = re.search(
        r"Free memory on device cuda:0 \(([\d.]+)/31.73 GiB\) on startup is less than desired GPU memory utilization \(0.6, 19.04 GiB\)",
        output,
    )
    assert found, output
    assert 15 < float(found[1]) < 17
    assert output.index("Free memory on device") < output.index("Engine core initialization failed.")


def test_two_starts_at_once_mismeasure_the_card(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    pair = [start_vllm(host, "serve", str(llama), *LLAMA, LAB_LOAD_SECONDS="1.5") for _ in range(2)]
    with running(pair[0]), running(pair[1]):
        for double in pair:
            wait_for(
                lambda d=double: "Available KV cache memory" in d.text() or d.process.poll() is not None, "profiled"
            )
        sizes = [float(re.search(r"Available KV cache memory: (-?[\d.]+) GiB", double.text())[1]) for double in pair]
    assert min(sizes) < 4, sizes


def test_two_starts_in_turn_both_get_their_cache(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    with running(start_vllm(host, "serve", str(llama), *LLAMA)) as first:
        first.wait_ready()
        with running(start_vllm(host, "serve", str(llama), *LLAMA)) as second:
            second.wait_ready()
            assert "Available KV cache memory: 7.94 GiB" in second.text()
            assert used_mib(host) > 29000
    wait_for(lambda: used_mib(host) == 0, "the memory is free again")


def test_a_neighbour_that_lets_go_fails_the_profiling(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    with running(start_vllm(host, "serve", str(llama), *LLAMA)) as first:
        first.wait_ready()
        with running(start_vllm(host, "serve", str(llama), *LLAMA, LAB_LOAD_SECONDS="2")) as second:
            wait_for(lambda: "Starting to load model" in second.text(), "loading has begun")
            first.stop()
            assert second.wait_exit() == 1
            assert "AssertionError: Error in memory profiling. Initial free memory" in second.text()


def test_models_health_version_and_unknown_paths(served: Double) -> None:
    card = served.get("/v1/models").json()["data"][0]
    assert (card["id"], card["max_model_len"], card["owned_by"]) == ("llama3.1-8b", 8192, "vllm")
    assert (served.get("/health").status_code, served.get("/health").content) == (200, b"")
    assert served.get("/ping").status_code == 200
    assert served.get("/version").json() == {"version": "0.19.1"}
    assert served.get("/load").json() == {"server_load": 0}
    assert (served.get("/nope").status_code, served.get("/nope").json()) == (404, {"detail": "Not Found"})
    assert served.get("/v1/chat/completions").status_code == 405
    assert served.post("/v1/embeddings", {"model": "llama3.1-8b", "input": "x"}).status_code == 404


def test_chat_answer(served: Double) -> None:
    answer = served.post("/v1/chat/completions", CHAT).json()
    choice = answer["choices"][0]
    assert answer["object"] == "chat.completion"
    assert choice["finish_reason"] == "length"
    assert "simulated" in choice["message"]["content"]
    assert len(set(choice["message"]["content"])) > 5
    assert answer["usage"]["completion_tokens"] == 8
    assert served.post("/v1/chat/completions", CHAT).json()["choices"][0]["message"] == choice["message"]


def test_chat_stream_is_framed_as_vllm_does(served: Double) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    with httpx.stream("POST", served.url + "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = answer.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 8 + ["length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8


def test_completions_and_json(served: Double) -> None:
    answer = served.post("/v1/completions", {"model": "llama3.1-8b", "prompt": "once", "max_tokens": 5}).json()
    assert answer["choices"][0]["text"].startswith("This is a simulated")
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    }
    body = {
        **CHAT,
        "max_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }
    text = served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    assert json.loads(text) == {"name": "simulated", "ages": []}


@pytest.mark.parametrize(
    ("change", "code", "kind", "text"),
    [
        ({"model": "gpt-4"}, 404, "NotFoundError", "The model `gpt-4` does not exist."),
        ({"messages": None}, 400, "Bad Request", "'loc': ('body', 'messages')"),
        ({"max_tokens": "abc"}, 400, "Bad Request", "unable to parse string as an integer"),
        ({"max_tokens": 9000}, 400, "BadRequestError", "Please request fewer output tokens."),
        ({"max_tokens": 8190}, 400, "BadRequestError", "This model's maximum context length is 8192 tokens."),
        ({"temperature": -1}, 400, "BadRequestError", "temperature must be non-negative, got -1.0."),
    ],
)
def test_bad_requests(served: Double, change: dict[str, Any], code: int, kind: str, text: str) -> None:
    body = {name: value for name, value in {**CHAT, **change}.items() if value is not None}
    answer = served.post("/v1/chat/completions", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (code, code, kind)
    assert text in error["message"]


def test_content_type_and_broken_json(served: Double) -> None:
    url = served.url + "/v1/chat/completions"
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = httpx.post(url, content=json.dumps(CHAT), headers=headers)
        assert answer.status_code == 400
        assert "Unsupported Media Type: Only 'application/json' is allowed" in answer.json()["error"]["message"]
    answer = httpx.post(url, content="{bad", headers={"content-type": "application/json; charset=utf-8"})
    assert (answer.status_code, "JSON decode error" in answer.json()["error"]["message"]) == (400, True)


def test_key_protects_v1_only(v100: Path, llama: Path) -> None:
    host_arguments = ("--gpu-memory-utilization", "0.3", "--max-model-len", "8192", "--served-model-name", "m")
    with running(start_vllm(v100, "serve", str(llama), *host_arguments, VLLM_API_KEY="secret")) as double:
        double.wait_ready()
        assert (double.get("/v1/models").status_code, double.get("/v1/models").json()) == (
            401,
            {"error": "Unauthorized"},
        )
        assert double.get("/v1/models", authorization="Bearer secret").status_code == 200
        assert double.get("/health").status_code == 200
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        assert double.post("/invocations", body).status_code == 200


def metric(double: Double, name: str) -> float:
    found = re.search(rf"^vllm:{name}{{[^}}]*}} (\S+)$", double.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def test_metrics_live_and_a_leaving_client_frees_its_slot(served: Double) -> None:
    before = metric(served, "generation_tokens_total")
    served.post("/v1/chat/completions", CHAT)
    assert metric(served, "generation_tokens_total") == before + 8
    assert metric(served, "time_to_first_token_seconds_count") >= 1
    with httpx.stream("POST", served.url + "/v1/chat/completions", json={**LONG, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        wait_for(lambda: metric(served, "num_requests_running") == 1, "it runs")
        assert metric(served, "kv_cache_usage_perc") > 0
    wait_for(lambda: metric(served, "num_requests_running") == 0, "the slot is free")
    assert (
        'vllm:request_success_total{engine="0",finished_reason="abort",model_name="llama3.1-8b"} 1.0'
        in served.get("/metrics").text
    )


def test_more_requests_than_slots_wait(served: Double) -> None:
    results: list[int] = []

    def ask() -> None:
        results.append(served.post("/v1/chat/completions", {**LONG, "max_tokens": 300}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_for(
        lambda: metric(served, "num_requests_running") == 16 and metric(served, "num_requests_waiting") == 4,
        "16 run, 4 wait",
    )
    for thread in threads:
        thread.join()
    assert results == [200] * 20


def test_embeddings_of_a_pooling_model(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host", "RTX-4090")
    model = make_bge(tmp_path / "bge-m3")
    arguments = (
        "--runner",
        "pooling",
        "--served-model-name",
        "bge-m3",
        "--max-model-len",
        "8192",
        "--max-num-seqs",
        "256",
    )
    with running(start_vllm(host, "serve", str(model), *arguments)) as double:
        double.wait_ready()
        answer = double.post("/v1/embeddings", {"model": "bge-m3", "input": ["one", "two"]}).json()
        vectors = [item["embedding"] for item in answer["data"]]
        assert [len(vector) for vector in vectors] == [1024, 1024]
        assert vectors[0] != vectors[1]
        assert abs(sum(value * value for value in vectors[0]) - 1) < 1e-9
        assert double.post("/v1/chat/completions", CHAT).status_code == 404
        assert "GPU KV cache size" not in double.text()
        too_long = double.post("/v1/embeddings", {"model": "bge-m3", "input": "word " * 9000})
        assert (too_long.status_code, "maximum context length is 8192" in too_long.text) == (400, True)


def stream_in_thread(double: Double, body: dict[str, Any]) -> tuple[threading.Thread, list[str]]:
    lines: list[str] = []

    def read() -> None:
        url = double.url + "/v1/chat/completions"
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as answer,
        ):
            lines.extend(line for line in answer.iter_lines() if line)

    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: metric(double, "num_requests_running") == 1, "the request runs")
    return thread, lines


def test_sigterm_aborts_and_exits_0(v100: Path, llama: Path) -> None:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA)) as double:
        double.wait_ready()
        thread, lines = stream_in_thread(double, LONG)
        began = time.monotonic()
        double.process.send_signal(signal.SIGTERM)
        assert double.wait_exit() == 0
        assert time.monotonic() - began < 2
        thread.join()
        assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "abort"
        assert lines[-1] == "data: [DONE]"
        for line in ("Shutdown initiated (timeout=0)", "Aborting 1 requests", "Shutdown complete"):
            assert line in double.text()


def test_sigterm_with_a_timeout_drains(v100: Path, llama: Path) -> None:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA, "--shutdown-timeout", "30")) as double:
        double.wait_ready()
        thread, lines = stream_in_thread(double, {**LONG, "max_tokens": 600})
        double.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "Draining 1 in-flight requests (timeout=30s)" in double.text(), "it drains")
        assert double.get("/health").status_code == 200
        refused = double.post("/v1/chat/completions", CHAT)
        assert (refused.status_code, "cannot schedule new futures after shutdown" in refused.text) == (500, True)
        assert double.wait_exit() == 0
        thread.join()
        assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"


def test_sigterm_while_loading_ends_it_and_frees_the_card(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    with running(start_vllm(host, "serve", str(llama), *LLAMA, LAB_LOAD_SECONDS="6")) as double:
        wait_for(lambda: "Loading safetensors" in double.text(), "loading has begun")
        double.process.send_signal(signal.SIGTERM)
        assert double.wait_exit() == 130
    wait_for(lambda: used_mib(host) == 0, "the card is free")


def engine_pid(host: Path) -> int:
    return int(smi(host, "--query-compute-apps=pid", "--format=csv,noheader").stdout.split()[0])


def test_engine_death_is_503_and_exit_0(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    with running(start_vllm(host, "serve", str(llama), *LLAMA)) as double:
        double.wait_ready()
        os.kill(engine_pid(host), signal.SIGKILL)
        wait_for(lambda: double.get("/health").status_code == 503, "health is 503", 1.0)
        assert double.get("/v1/models").status_code == 200
        assert "Engine core proc EngineCore died unexpectedly" in double.text()
        answer = double.post("/v1/chat/completions", CHAT)
        assert answer.status_code == 500
        assert double.wait_exit(6) == 0


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("oom-start", 1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB."),
        ("crash-loading", 1, "EngineCore failed to start."),
        ("crash-after=0.1", 1, "unspecified launch failure"),
    ],
)
def test_faults_that_end_the_engine(tmp_path: Path, llama: Path, fault: str, code: int, text: str) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    set_faults(host, vllm_llama_gpu0_0=fault)
    found, output = ends(host, "serve", str(llama), *LLAMA, STOKER_INSTANCE="vllm_llama_gpu0_0")
    assert (found, text in output) == (code, True), output


def test_faults_that_can_be_set_while_it_runs(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    with running(start_vllm(host, "serve", str(llama), *LLAMA)) as double:
        double.wait_ready()
        (host / "engine.json").write_text(json.dumps({"faults": {"llama3.1-8b": "garbage"}}))
        assert double.post("/v1/chat/completions", CHAT).json()["choices"][0]["message"]["content"] == "!" * 8
        (host / "engine.json").write_text(json.dumps({"faults": {"all": "error-500"}}))
        assert double.post("/v1/chat/completions", CHAT).status_code == 500
        (host / "engine.json").write_text(json.dumps({"faults": {"all": "hang-requests"}}))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(double.url + "/v1/chat/completions", json=CHAT, timeout=0.3)
        assert double.get("/health").status_code == 200
        (host / "engine.json").write_text(json.dumps({"faults": {"all": "die-on-request"}}))
        assert double.post("/v1/chat/completions", CHAT).status_code == 500
        assert double.wait_exit() == 0


def test_hang_while_loading_is_stopped_by_sigterm(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    with running(start_vllm(host, "serve", str(llama), *LLAMA, LAB_FAULT="hang-loading")) as double:
        wait_for(lambda: "0% Completed" in double.text(), "loading has begun")
        with pytest.raises(subprocess.TimeoutExpired):
            double.wait_exit(0.5)
        double.process.send_signal(signal.SIGTERM)
        assert double.wait_exit() == 130


def test_an_engine_that_takes_too_long_is_given_up(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    code, output = ends(host, "serve", str(llama), *LLAMA, LAB_FAULT="hang-loading", VLLM_ENGINE_READY_TIMEOUT_S="1")
    assert code == 1
    assert "TimeoutError: Timed out waiting for engine core processes to start." in output


def test_a_client_that_stays_can_hang_the_stop(v100: Path, llama: Path) -> None:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA, LAB_FAULT="hang-shutdown")) as double:
        double.wait_ready()
        thread, lines = stream_in_thread(double, LONG)
        double.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "Waiting for connections to close." in double.text(), "it waits for the client")
        with pytest.raises(subprocess.TimeoutExpired):
            double.wait_exit(0.5)
        double.stop()
        thread.join()
        assert "data: [DONE]" not in lines


def test_debug_names_the_cache_size_to_set(v100: Path, llama: Path) -> None:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA, VLLM_LOGGING_LEVEL="DEBUG")) as double:
        double.wait_ready()
        found = re.search(r"Replace gpu_memory_utilization config with `--kv-cache-memory=(\d+)`", double.text())
    assert found
    arguments = ("--gpu-memory-utilization", "0.05", "--max-model-len", "8192", "--kv-cache-memory-bytes", found[1])
    with running(start_vllm(v100, "serve", str(llama), *arguments)) as double:
        double.wait_ready()
        assert "skipped memory profiling" in double.text()
        assert "Available KV cache memory" not in double.text()


PROBE = (
    "import torch;print(torch.__version__,torch.cuda.get_arch_list(),torch.cuda.get_device_capability());"
    "print(torch.ones(4,device='cuda',dtype=torch.half).sum())"
)


@pytest.mark.parametrize(
    ("card", "code", "text"),
    [
        ("V100-32GB", 0, "tensor(4., device='cuda:0', dtype=torch.float16)"),
        ("P40-24GB", 1, "no kernel image is available for execution"),
    ],
)
def test_the_preflight_probe_of_the_image(tmp_path: Path, card: str, code: int, text: str) -> None:
    host = make_host(tmp_path / "host", card)
    command = [sys.executable, "-c", PROBE]
    answer = subprocess.run(command, env=environment(host), capture_output=True, text=True, timeout=15)
    assert (answer.returncode, text in answer.stdout + answer.stderr) == (code, True)
    assert "'sm_70'" in answer.stdout
