"""The engines the contract is asked of, and how each is started.

An engine is switched by its class here only: `Subject.start` gets what is wanted of a server and gives a `Running`.
The real ones are found by environment variables:

    STOKER_REAL_VLLM       program: the `vllm` of a CPU build (engine vllm-cpu)
    STOKER_RELEASED_VLLM   program: the Python that can import the released v0.19.1 (engine vllm-0.19.1-api, see released_api.py)
    STOKER_REAL_MODELS     directory with the models tiny-llama and tiny-xlmr
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from double_processes import DOUBLES, environment, free_port, make_bge, make_host, make_model
from running import Running

KEY = "secret"
CASES = DOUBLES / "vllm" / "recorded_cli.json"
Verdict = tuple[int, str]


@dataclass(frozen=True)
class Wanted:
    """What a server is wanted for; an engine's own arguments follow from it."""

    model: str = "llama3.1-8b"
    key: bool = False
    shutdown_timeout: int = 0
    slow_load: bool = False


class Subject(ABC):
    """One engine."""

    at_once = 6  # servers that may run at the same time
    start_seconds = 30.0  # generous: a start that takes longer has failed
    stream_tokens = 600  # a stream of so many tokens lasts long enough to do something meanwhile
    embedding_size = 1024

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path()

    @abstractmethod
    def missing(self) -> str:
        """Empty when the engine can be started here, else one clause of a sentence that says what to do."""

    @abstractmethod
    def start(self, wanted: Wanted) -> Running:
        """Start a server; it is not waited for."""

    @abstractmethod
    def command(self, arguments: list[str]) -> Running:
        """Start a command line that is expected to end by itself; `{model}` stands for a model of the engine."""

    @abstractmethod
    def verdicts(self, lines: list[list[str]]) -> list[Verdict]:
        """What the engine's own parser says to command lines: exit code, and the error's words."""


def vllm_arguments(wanted: Wanted, model: str) -> list[str]:
    """`vllm serve` as Stoker's default fleet would write it, eager so that a start is quick."""
    words = ["serve", model, "--served-model-name", wanted.model, "--max-model-len", "8192", "--enforce-eager"]
    if wanted.model == "bge-m3":
        words += ["--runner", "pooling"]
    else:
        words += ["--dtype", "half", "--gpu-memory-utilization", "0.45", "--block-size", "64", "--max-num-seqs", "16"]
    if wanted.key:
        words += ["--api-key", KEY]
    if wanted.shutdown_timeout:
        words += ["--shutdown-timeout", str(wanted.shutdown_timeout)]
    return words


class DoubleVllm(Subject):
    """The lab's double, each server on a simulated host of its own."""

    def missing(self) -> str:
        return ""

    def start(self, wanted: Wanted) -> Running:
        host, model = self._host(wanted.model)
        words = vllm_arguments(wanted, str(model))
        return self._run(host, words, free_port(), LAB_LOAD_SECONDS="6" if wanted.slow_load else "0.5")

    def command(self, arguments: list[str]) -> Running:
        host, model = self._host("llama3.1-8b")
        return self._run(host, [word.format(model=model) for word in arguments], 0)

    def verdicts(self, lines: list[list[str]]) -> list[Verdict]:
        script = Path(__file__).with_name("ask_double.py")
        return _ask_script([sys.executable, str(script)], lines, environment(self.directory))

    def _host(self, model: str) -> tuple[Path, Path]:
        number = len(list(self.directory.glob("host-*")))
        host = make_host(self.directory / f"host-{number}", "V100-32GB")
        make = make_bge if model == "bge-m3" else make_model
        return host, make(self.directory / "models" / model)

    def _run(self, host: Path, words: list[str], port: int, **env: str) -> Running:
        where = ["--host", "127.0.0.1", "--port", str(port)] if port else []
        command = [sys.executable, "-m", "lab_vllm.cli", *words, *where]
        return Running(command, environment(host, **env), host / "engine.log", port)


class RealVllm(Subject):
    """vLLM built for the CPU."""

    program_variable = "STOKER_REAL_VLLM"
    at_once = 2
    start_seconds = 240.0
    stream_tokens = 3000
    embedding_size = 128

    def missing(self) -> str:
        for name, kind in ((self.program_variable, "program"), ("STOKER_REAL_MODELS", "directory of models")):
            path = os.environ.get(name, "")
            if not path or not Path(path).exists():
                return f"{name} has to name the {kind}, but " + (f"there is nothing at {path}" if path else "is not set")
        return ""

    def start(self, wanted: Wanted) -> Running:
        return self._run(vllm_arguments(wanted, str(self._model(wanted.model))), free_port())

    def command(self, arguments: list[str]) -> Running:
        return self._run([word.format(model=self._model("llama3.1-8b")) for word in arguments], 0)

    def verdicts(self, lines: list[list[str]]) -> list[Verdict]:
        python = Path(os.environ[self.program_variable]).with_name("python")
        return _ask_script([str(python), str(DOUBLES / "vllm" / "record_cli.py")], lines, self.environment())

    def environment(self) -> dict[str, str]:
        """Offline, and with as little memory and as few busy threads as it can do with."""
        settings = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
        return {**kept, **settings, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "DO_NOT_TRACK": "1"}

    def program(self) -> list[str]:
        return [os.environ[self.program_variable]]

    def _model(self, name: str) -> Path:
        return Path(os.environ["STOKER_REAL_MODELS"]) / ("tiny-xlmr" if name == "bge-m3" else "tiny-llama")

    def _run(self, words: list[str], port: int) -> Running:
        # The 64 MiB cache is a matter of this machine's memory, so no part of what is wanted.
        where = ["--host", "127.0.0.1", "--port", str(port), "--kv-cache-memory-bytes", "67108864"] if port else []
        log = self.directory / f"engine-{len(list(self.directory.glob('engine-*')))}.log"
        running = Running([*self.program(), *words, *where], self.environment(), log, port)
        # Busy loops of an engine would starve every other session of a small machine for seconds.
        with contextlib.suppress(OSError):
            Path(f"/proc/{running.process.pid}/autogroup").write_text("5")
        return running


class ReleasedApi(RealVllm):
    """The HTTP interface of the released v0.19.1, its own code, before an engine that only makes tokens up."""

    program_variable = "STOKER_RELEASED_VLLM"
    stream_tokens = 600

    def program(self) -> list[str]:
        return [os.environ[self.program_variable], str(DOUBLES / "vllm" / "released_api.py")]


def _ask_script(program: list[str], lines: list[list[str]], env: dict[str, str]) -> list[Verdict]:
    """Verdicts of a script that takes command lines as JSON on its standard input."""
    answer = subprocess.run(
        program,
        input=json.dumps([{"arguments": line} for line in lines]),
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return [(case["code"], case["text"]) for case in json.loads(answer.stdout)]


SUBJECTS: dict[str, type[Subject]] = {"double": DoubleVllm, "vllm-0.19.1-api": ReleasedApi, "vllm-cpu": RealVllm}
