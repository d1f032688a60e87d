"""The vLLM double from outside: load phases, cards, memory.

What it shares with the real engine is in tests/contract, its command line in test_double_vllm_cli.py.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from double_processes import (
    Double,
    environment,
    make_bert,
    make_host,
    make_model,
    running,
    smi,
    start_vllm,
    used_mib,
    wait_for,
)
from double_vllm import LLAMA, ends


def test_online_a_model_that_is_not_there_is_refused_in_other_words(v100: Path) -> None:
    code, output = ends(v100, "serve", "/nowhere")
    assert (code, "Invalid repository ID or local directory specified: '/nowhere'" in output) == (1, True), output


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


def test_connections_are_refused_while_loading_but_the_port_is_taken(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    arguments = ("--gpu-memory-utilization", "0.3", "--max-model-len", "8192")
    first = start_vllm(host, "serve", str(llama), *arguments, LAB_LOAD_SECONDS="1.0")
    with running(first):
        wait_for(lambda: "Starting to load model" in first.text(), "loading has begun")
        assert not first.listens()
        first.wait_ready()
        # SO_REUSEPORT: another vLLM of the same user gets the port as well (found with the release's own server).
        with running(start_vllm(host, "serve", str(llama), *arguments, port=first.port)) as second:
            wait_for(lambda: "Application startup complete" in second.text(), "the second one serves on the same port")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with running(start_vllm(host, "serve", str(llama), "--max-model-len", "8192", port=port)) as third:
            assert third.wait_exit() == 1
            assert "[Errno 98] Address already in use" in third.text()


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


def test_an_engine_that_takes_too_long_is_given_up(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    code, output = ends(host, "serve", str(llama), *LLAMA, LAB_FAULT="hang-loading", VLLM_ENGINE_READY_TIMEOUT_S="1")
    assert code == 1
    assert "TimeoutError: Timed out waiting for engine core processes to start." in output


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


@pytest.mark.parametrize(("size", "heads", "layers"), [(1024, 16, 24), (512, 8, 4)])
def test_a_bert_model_embeds_with_its_own_length_and_512_tokens(
    v100: Path, tmp_path: Path, size: int, heads: int, layers: int
) -> None:
    model = make_bert(tmp_path / "bge-zh", size, heads, layers)
    given = ("--runner", "pooling", "--dtype", "half", "--gpu-memory-utilization", "0.3")
    with running(start_vllm(v100, "serve", str(model), *given)) as double:
        double.wait_ready()
        assert double.get("/v1/models").json()["data"][0]["max_model_len"] == 512
        answer = double.post("/v1/embeddings", {"model": str(model), "input": "你好"}).json()
        long = double.post("/v1/embeddings", {"model": str(model), "input": "字" * 511})
    assert len(answer["data"][0]["embedding"]) == size
    assert (long.status_code, "maximum context length is 512 tokens" in long.text) == (400, True)


def test_a_bert_model_with_more_than_512_tokens_is_refused(v100: Path, tmp_path: Path) -> None:
    model = make_bert(tmp_path / "bge-zh", 1024, 16, 24)
    code, output = ends(v100, "serve", str(model), "--runner", "pooling", "--max-model-len", "8192")
    assert code == 1
    assert "max_model_len (8192) is greater than the derived max_model_len (max_position_embeddings=512" in output
