"""The double of `transformers serve` from outside: the faults of the real one (5.19.0), and the adapter of images/transformers needs no more.

The real one is asked the same by tests/real/test_transformers_adapter.py.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from double_processes import (
    DOUBLES,
    Double,
    environment,
    free_port,
    make_host,
    make_model,
    running,
    set_faults,
    used_mib,
)

NAME = "tiny"


@pytest.fixture
def v100(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", "V100-32GB")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that is not quantised, of 2 GiB."""
    directory = tmp_path / "models" / NAME
    make_model(directory)
    config = json.loads((directory / "config.json").read_text())
    config.pop("quantization_config", None)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "lab-weights.json").write_text(json.dumps({"weights_gib": 1.5, "other_gib": 0.5}))
    return directory


def start(host: Path, model: Path, *words: str) -> Double:
    port = free_port()
    env = environment(host)
    env["PYTHONPATH"] = os.pathsep.join([str(DOUBLES / "transformers"), env["PYTHONPATH"]])
    command = [
        sys.executable,
        "-m",
        "lab_transformers.cli",
        "serve",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return Double([*command, *words], env, host / "log", port)


@pytest.fixture
def ready(v100: Path, model: Path) -> Iterator[Double]:
    with running(start(v100, model, "--device", "cuda:0")) as double:
        yield double.wait_ready()


def ask(double: Double, **more: Any) -> httpx.Response:
    return double.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **more}
    )


def test_the_model_is_known_by_its_path_only(ready: Double, model: Path) -> None:
    answer = ask(ready, model=str(model)).json()
    assert answer["model"] == f"{model}@main"
    assert answer["usage"]["completion_tokens"] == 4
    refused = ask(ready, model=NAME)
    assert refused.status_code == 400
    assert refused.json() == {"detail": f"Server is pinned to '{model}'; requested '{NAME}'."}


def test_a_stream_has_no_end_mark_and_its_usage_in_the_last_chunk(ready: Double) -> None:
    lines = [line for line in ask(ready, stream=True).text.splitlines() if line]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 4


def test_what_else_it_lacks(ready: Double) -> None:
    assert ready.get("/v1/models").status_code == 500
    assert ready.get("/metrics").status_code == 404
    assert ask(ready, top_k=50).status_code == 422
    assert ask(ready, n=2, response_format={"type": "json_object"}).status_code == 200  # ignored, as the real one does


def test_it_takes_memory_of_the_card(ready: Double, v100: Path) -> None:
    assert used_mib(v100) == 400 + 2048


def test_it_ends_by_the_signal(ready: Double, v100: Path) -> None:
    ready.process.send_signal(signal.SIGTERM)
    assert ready.process.wait(10) == -signal.SIGTERM
    assert used_mib(v100) == 0


def test_too_little_memory(v100: Path, model: Path) -> None:
    (model / "lab-weights.json").write_text(json.dumps({"weights_gib": 40}))
    with running(start(v100, model, "--device", "cuda:0")) as double:
        assert double.process.wait(10) == 1
        assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate" in double.text()


def test_without_a_card(model: Path, tmp_path: Path) -> None:
    with running(start(make_host(tmp_path / "none"), model, "--device", "cuda:0")) as double:
        assert double.process.wait(10) == 1
        assert "Found no NVIDIA driver" in double.text()


def test_a_quantised_model_needs_packages_that_the_image_has_not(v100: Path, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with running(start(v100, model)) as double:
        assert double.process.wait(10) == 1
        assert "ImportError: Loading a GPTQ quantized model requires optimum (`pip install optimum`)" in double.text()


def test_a_fault(v100: Path, model: Path) -> None:
    set_faults(v100, **{NAME: "die-on-request"})
    with running(start(v100, model)) as double:
        double.wait_ready()
        with pytest.raises(httpx.TransportError):
            ask(double)
        assert double.process.wait(10) == 1
