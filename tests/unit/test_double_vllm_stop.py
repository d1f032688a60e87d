"""The vLLM double from outside: what of its stops is certain (the real one's are not), and how it fails when told to.

What it shares with the real engine is in tests/contract.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from double_processes import (
    make_host,
    running,
    set_faults,
    start_vllm,
    used_mib,
    wait_for,
)
from double_vllm import CHAT, LLAMA, LONG, ends, stream_in_thread


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


def test_sigterm_while_loading_ends_it_and_frees_the_card(tmp_path: Path, llama: Path) -> None:
    host = make_host(tmp_path / "host", "V100-32GB")
    with running(start_vllm(host, "serve", str(llama), *LLAMA, LAB_LOAD_SECONDS="6")) as double:
        wait_for(lambda: "Loading safetensors" in double.text(), "loading has begun")
        double.process.send_signal(signal.SIGTERM)
        assert double.wait_exit() == 130
    wait_for(lambda: used_mib(host) == 0, "the card is free")


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
