"""Starts the lab's doubles as processes on this machine, with a simulated host in a temporary directory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from lab.doubles.driver.cards import gpus_json

ROOT = Path(__file__).resolve().parents[2]
DOUBLES = ROOT / "lab" / "doubles"
LIMIT_SECONDS = 15.0
CARD_UUIDS = (
    "GPU-5a1c8f52-7d3e-4b1a-9c60-1f2e3d4c5b6a",
    "GPU-6b1c8f52-7d3e-4b1a-9c60-1f2e3d4c5b6a",
    "GPU-7c1c8f52-7d3e-4b1a-9c60-1f2e3d4c5b6a",
)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = LIMIT_SECONDS) -> Any:
    """Poll until the condition is true; its value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port() -> int:
    """A port nobody has right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_host(directory: Path, *cards: str, driver: str = "580.173.02") -> Path:
    """A directory that stands for a host's /etc/lab-gpu and /run/lab-gpu."""
    directory.mkdir(parents=True, exist_ok=True)
    slots = [{"card": card, "uuid": uuid} for card, uuid in zip(cards, CARD_UUIDS, strict=False)]
    (directory / "gpus.json").write_text(gpus_json({"name": "test", "gpus": slots, "driver_version": driver}))
    return directory


def environment(host: Path, **more: str) -> dict[str, str]:
    """Environment of a double's process on that host."""
    packages = [DOUBLES / "vllm", DOUBLES / "vllm" / "probe"]
    packages += [DOUBLES / name for name in ("ollama", "llama_cpp", "open_webui", "driver", "serve")]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LAB_", "OLLAMA_", "VLLM_", "CUDA_", "LLAMA_", "WEBUI_"))
    }
    settings = {
        "LAB_GPU_DIR": str(host),
        "LAB_LOAD_SECONDS": "0.2",
        "LAB_OLLAMA_LOAD_SECONDS": "0.1",
        "LAB_LLAMA_LOAD_SECONDS": "0.2",
        "LAB_LLAMA_STOP_SECONDS": "0.5",
        "LAB_TOKEN_MS": "1",
    }
    paths = {"PYTHONPATH": os.pathsep.join(map(str, packages)), "LAB_GPU_LIB": str(DOUBLES / "driver")}
    settings["VLLM_CACHE_ROOT"] = str(host / "cache")
    return {**kept, **settings, **paths, "LAB_EMBED_MS": "1", "LAB_PULL_SECONDS": "0.1", **more}


def set_faults(host: Path, **faults: str) -> None:
    """What `lab/fault` does, for targets that are Python names."""
    (host / "engine.json").write_text(json.dumps({"faults": faults}))


class Double:
    """A running double; its output is collected in a file."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path, port: int) -> None:
        self.log = log
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)

    def text(self) -> str:
        return self.log.read_bytes().decode(errors="replace")

    def listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def wait_ready(self) -> Double:
        def ready() -> bool:
            assert self.process.poll() is None, self.text()
            return self.listens()

        wait_for(ready, "the double listens")
        return self

    def wait_exit(self, seconds: float = LIMIT_SECONDS) -> int:
        return self.process.wait(seconds)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_SECONDS)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=headers, timeout=LIMIT_SECONDS)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=LIMIT_SECONDS)


@contextlib.contextmanager
def running(double: Double) -> Iterator[Double]:
    """Stop it in the end, whatever happens."""
    try:
        yield double
    finally:
        double.stop()


def start_vllm(host: Path, *arguments: str, port: int = 0, **env: str) -> Double:
    """`vllm ARGUMENTS` with --host and --port added when it serves."""
    port = port or free_port()
    given = [*arguments]
    if arguments[:1] == ("serve",):
        given += ["--host", "127.0.0.1", "--port", str(port)]
    log = host / f"vllm-{port}-{time.monotonic_ns()}.log"
    return Double([sys.executable, "-m", "lab_vllm.cli", *given], environment(host, **env), log, port)


def start_llama(host: Path, *arguments: str, **env: str) -> Double:
    """`llama-server ARGUMENTS` with --host and --port added."""
    port = free_port()
    given = [*arguments, "--host", "127.0.0.1", "--port", str(port)]
    log = host / f"llama-{port}.log"
    return Double([sys.executable, "-m", "lab_llama.cli", *given], environment(host, **env), log, port)


def start_webui(host: Path, **env: str) -> Double:
    """Open WebUI with its data below the host's directory."""
    port = free_port()
    given = {"HOST": "127.0.0.1", "PORT": str(port), "DATA_DIR": str(host / "data"), "LAB_WEBUI_START_SECONDS": "0.1"}
    log = host / f"webui-{port}.log"
    return Double([sys.executable, "-m", "lab_webui.server"], environment(host, **given, **env), log, port)


def start_ollama(host: Path, **env: str) -> Double:
    """`ollama serve` with its own model directory below the host's."""
    port = free_port()
    settings = {"OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(host / "models"), **env}
    log = host / f"ollama-{port}.log"
    return Double([sys.executable, "-m", "lab_ollama.cli", "serve"], environment(host, **settings), log, port)


def make_model(directory: Path, **config: Any) -> Path:
    """A Llama-3.1-8B-like model directory: real dimensions, tiny weights, the real model's sizes for the accounting."""
    directory.mkdir(parents=True, exist_ok=True)
    base = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 32,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True},
    }
    (directory / "config.json").write_text(json.dumps({**base, **config}))
    (directory / "lab-weights.json").write_text(json.dumps({"weights_gib": 5.34, "other_gib": 1.0}))
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        header = json.dumps({name: {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode()
        (directory / name).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    index = {"weight_map": {name: name for name in names}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def make_bge(directory: Path) -> Path:
    """A bge-m3-like model directory for a pooling server."""
    return make_model(
        directory,
        architectures=["XLMRobertaModel"],
        model_type="xlm-roberta",
        torch_dtype="float32",
        hidden_size=1024,
        num_attention_heads=16,
        num_hidden_layers=24,
        vocab_size=250002,
        max_position_embeddings=8194,
        pad_token_id=1,
        quantization_config=None,
    )


def make_bert(directory: Path, size: int, heads: int, layers: int) -> Path:
    """A directory like that of bge-large-zh-v1.5 or bge-small-zh-v1.5."""
    return make_model(
        directory,
        architectures=["BertModel"],
        model_type="bert",
        torch_dtype="float32",
        hidden_size=size,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        vocab_size=21128,
        max_position_embeddings=512,
        pad_token_id=0,
        quantization_config=None,
    )


def smi(host: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the driver double's nvidia-smi."""
    program = DOUBLES / "driver" / "root" / "usr" / "bin" / "nvidia-smi"
    return subprocess.run(
        [sys.executable, "-IS", str(program), *arguments],
        env=environment(host, **env),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def used_mib(host: Path, card: int = 0) -> int:
    """MiB in use on a card, by nvidia-smi."""
    answer = smi(host, "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", str(card))
    return int(answer.stdout)
