"""A simulated host, a model and a serving vLLM double, for the tests that speak to one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from double_processes import ROOT, Double, make_host, make_model, running, start_vllm
from double_vllm import LLAMA


@pytest.fixture(scope="module")
def v100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_host(tmp_path_factory.mktemp("v100"), "V100-32GB")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The simulated library of Ollama's models as a file URL."""
    out = tmp_path_factory.mktemp("library")
    subprocess.run(
        [sys.executable, str(ROOT / "lab" / "models" / "make.py"), str(out)], check=True, capture_output=True
    )
    return (out / "ollama").as_uri()


@pytest.fixture(scope="module")
def served(v100: Path, llama: Path) -> Iterator[Double]:
    with running(start_vllm(v100, "serve", str(llama), *LLAMA)) as double:
        yield double.wait_ready()
