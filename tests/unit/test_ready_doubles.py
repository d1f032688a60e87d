"""The parsers against what the lab's doubles print and answer, and gpu-turn.py in front of them."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from double_processes import (
    Double,
    environment,
    free_port,
    make_bge,
    make_host,
    make_model,
    running,
    set_faults,
    start_ollama,
    start_vllm,
    wait_for,
)
from ready_fakes import full_body

from stoker.ready.engines import engine_diagnosis
from stoker.ready.ollama_log import ollama_progress
from stoker.ready.phase import Phase
from stoker.ready.question import Answer, Judgement, Question, judge, question, questions
from stoker.ready.target import Target
from stoker.ready.vllm_log import vllm_progress
from stoker.ready.warm_up import prompt_lengths

ROOT = Path(__file__).parents[2]
GPU_TURN = ROOT / "templates" / "gpu-turn.py"
LLAMA = ("--served-model-name", "llama3.1-8b", "--dtype", "half", "--gpu-memory-utilization", "0.45")
LLAMA += ("--max-model-len", "8192", "--block-size", "64", "--max-num-seqs", "16")


def ask(target: Target, asked: Question | None = None) -> Judgement:
    """A request (the deciding one when it is left out) and its check, as the probe makes it."""
    asked = asked or question(target)
    headers = {"content-type": "application/json"}
    answer = httpx.post(asked.url, content=full_body(asked), headers=headers, timeout=15)
    then = httpx.get(asked.then_url).text if asked.then_url else ""
    return judge(target, Answer(answer.status_code, 0.0, "", answer.text, then), asked)


def warm_up(target: Target) -> list[Judgement]:
    warmed = replace(target, prompts=prompt_lengths(8192, 2048, on_cards=True))
    return [ask(warmed, asked) for asked in questions(warmed)[:-1]]


def vllm(port: int, dimensions: int | None = None) -> Target:
    return Target("here", "vllm", "vllm", "vllm", port, "llama3.1-8b", dimensions)


def ollama(port: int) -> Target:
    return Target("here", "ollama", "ollama", "ollama", port, "bge-m3", 1024)


@pytest.fixture
def v100(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", "V100-32GB")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_model(tmp_path / "llama")


def test_vllm_goes_through_its_phases_and_answers(v100: Path, llama: Path) -> None:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA)) as double:
        double.wait_ready()
        wait_for(lambda: "Application startup complete" in double.text(), "the last line")
        text = double.text()
        # stdout and stderr are two streams, so single lines may change places: the set of phases is what counts
        cuts = [found.end() for found in re.finditer(r"[\r\n]", text)]
        seen = {progress.phase for cut in cuts if (progress := vllm_progress(text[:cut]))}
        assert seen >= set(range(Phase.STARTING, Phase.SERVING + 1))
        assert engine_diagnosis("vllm", text) is None
        assert warm_up(vllm(double.port)) == [Judgement()] * 2
        judgement = ask(vllm(double.port))
        assert judgement.wrong is None, judgement
        assert "simulated" in judgement.note


def test_a_pooling_vllm_answers_with_an_embedding(v100: Path, tmp_path: Path) -> None:
    model = make_bge(tmp_path / "bge")
    with running(
        start_vllm(v100, "serve", str(model), "--runner", "pooling", "--served-model-name", "llama3.1-8b")
    ) as double:
        double.wait_ready()
        wait_for(lambda: "Application startup complete" in double.text(), "the last line")
        assert warm_up(vllm(double.port, 1024)) == [Judgement()] * 2
        assert ask(vllm(double.port, 1024)).wrong is None


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--task=embed"], "unknown-argument"),
        (["--config", "/c/vllm_config.json"], "config-not-yaml"),
        (["--gpu-memory-utilization", "0.45", "--max-model-len", "100000"], "context-too-long"),
        (["--gpu-memory-utilization", "0.15"], "no-memory-for-cache"),
        (["--dtype", "bfloat16"], "bfloat16-unsupported"),
        (["--quantization", "gptq_marlin"], "quantization-unsupported"),
        (["--max-model-len", "200000"], "context-longer-than-model"),
    ],
)
def test_refusals_of_arguments(v100: Path, llama: Path, arguments: list[str], name: str) -> None:
    assert diagnosis_of(start_vllm(v100, "serve", str(llama), *arguments)) == name


def diagnosis_of(double: Double) -> str:
    with running(double):
        double.wait_exit()
        found = engine_diagnosis("vllm", double.text())
        assert found, double.text()
        return found.id


def test_refusals_of_host_model_and_memory(tmp_path: Path, v100: Path, llama: Path) -> None:
    bare, p40 = tmp_path / "bare", make_host(tmp_path / "p40", "P40-24GB")
    bare.mkdir()
    assert diagnosis_of(start_vllm(bare, "serve", str(llama))) == "no-gpu-in-container"
    assert diagnosis_of(start_vllm(p40, "serve", str(llama), "--max-model-len", "8192")) == "gpu-too-old"
    assert diagnosis_of(start_vllm(v100, "serve", "/nowhere")) == "model-not-found"
    cut = make_model(tmp_path / "cut")
    shard = cut / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:20])
    assert diagnosis_of(start_vllm(v100, "serve", str(cut), *LLAMA)) == "weights-damaged"
    with running(start_vllm(v100, "serve", str(llama), *LLAMA)) as first:
        first.wait_ready()
        full = start_vllm(v100, "serve", str(llama), "--gpu-memory-utilization", "0.6", "--max-model-len", "8192")
        assert diagnosis_of(full) == "gpu-memory-not-free"


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("oom-start", "gpu-out-of-memory"),
        ("crash-loading", "gpu-fault"),
        ("crash-after", "gpu-fault"),
        ("no-kernel", "no-kernel-image"),
    ],
)
def test_faults_that_end_vllm(v100: Path, llama: Path, fault: str, name: str) -> None:
    set_faults(v100, **{"llama3.1-8b": fault})
    assert diagnosis_of(start_vllm(v100, "serve", str(llama), *LLAMA)) == name


@pytest.mark.parametrize(("fault", "name"), [("garbage", "repeated-character"), ("error-500", "gpu-fault")])
def test_faults_that_show_in_the_answer_of_vllm(v100: Path, llama: Path, fault: str, name: str) -> None:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA)) as double:
        double.wait_ready()
        set_faults(v100, **{"llama3.1-8b": fault})
        wrong = ask(vllm(double.port)).wrong
        assert wrong
        assert wrong.id == name


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The simulated Ollama library as a file URL."""
    out = tmp_path_factory.mktemp("library")
    subprocess.run(
        [sys.executable, str(ROOT / "lab" / "models" / "make.py"), str(out)], check=True, capture_output=True
    )
    return (out / "ollama").as_uri()


@contextlib.contextmanager
def with_model(host: Path, library: str) -> Iterator[Double]:
    """An Ollama double that has pulled bge-m3."""
    with running(start_ollama(host, OLLAMA_LAB_LIBRARY=library, OLLAMA_KEEP_ALIVE="-1")) as double:
        double.wait_ready()
        httpx.post(double.url + "/api/pull", json={"model": "bge-m3", "stream": False}, timeout=15).raise_for_status()
        yield double


def test_ollama_loads_for_the_first_request_and_is_on_the_gpu(tmp_path: Path, library: str) -> None:
    with running(start_ollama(make_host(tmp_path / "p40", "P40-24GB"), OLLAMA_LAB_LIBRARY=library)) as double:
        double.wait_ready()
        missing = ask(ollama(double.port)).wrong
        assert missing
        assert missing.id == "ollama-model-missing"
        httpx.post(double.url + "/api/pull", json={"model": "bge-m3", "stream": False}, timeout=15).raise_for_status()
        before = ollama_progress(double.text())
        assert before
        assert before.phase is Phase.SERVING
        assert warm_up(ollama(double.port)) == [Judgement()] * 2
        judgement = ask(ollama(double.port))
        assert judgement.wrong is None
        assert "in GPU memory" in judgement.note
        after = ollama_progress(double.text())
        assert after
        assert after.detail == "model loaded"
        assert engine_diagnosis("ollama", double.text()) is None


def test_ollama_on_the_cpu_with_an_old_driver(tmp_path: Path, library: str) -> None:
    host = make_host(tmp_path / "p40", "P40-24GB", driver="535.309.01")
    with with_model(host, library) as double:
        wrong = ask(ollama(double.port)).wrong
        assert wrong
        assert wrong.id == "ollama-on-cpu"
        why = engine_diagnosis("ollama", double.text())
        assert why
        assert why.id == "ollama-driver-too-old"


@pytest.mark.parametrize(
    ("fault", "name"),
    [("nan", "embedding-not-finite"), ("wrong-dimension", "wrong-dimension"), ("error-500", "ollama-runner-died")],
)
def test_faults_that_show_in_the_answer_of_ollama(tmp_path: Path, library: str, fault: str, name: str) -> None:
    host = make_host(tmp_path / "p40", "P40-24GB")
    with with_model(host, library) as double:
        set_faults(host, **{"bge-m3": fault})
        wrong = ask(ollama(double.port)).wrong
        assert wrong
        assert wrong.id == name


def test_two_vllm_in_turn_both_get_their_cache(v100: Path, llama: Path) -> None:
    """Together they mis-measure the card (test_double_vllm.py); with gpu-turn.py they do not."""
    lock = v100 / "GPU-a.lock"
    lock.touch()
    logs, started = [], []
    try:
        for name in ("first", "second"):
            port = free_port()
            turn = ["--lock", str(lock), "--health", f"http://127.0.0.1:{port}/health", "--"]
            engine = [
                sys.executable,
                "-m",
                "lab_vllm.cli",
                "serve",
                str(llama),
                *LLAMA,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ]
            logs.append(v100 / f"{name}.log")
            with logs[-1].open("wb") as out:
                command = [sys.executable, str(GPU_TURN), *turn, *engine]
                started.append(subprocess.Popen(command, env=environment(v100), stdout=out, stderr=out))
        for log in logs:
            wait_for(lambda log=log: "engine answers, GPU lock released" in log.read_text(), log.name)
            assert "Available KV cache memory: 7.94 GiB" in log.read_text()
        assert any("waiting for the GPU (lock GPU-a.lock)" in log.read_text() for log in logs)
    finally:
        for one in started:
            one.terminate()
        codes = [one.wait(15) for one in started]
    assert codes == [0, 0]
