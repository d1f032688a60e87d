"""The engines the contract is asked of, and how each is started: a `Subject` gets what is wanted of a server and gives a `Running`."""

from __future__ import annotations

import itertools
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from double_processes import environment, free_port, make_bge, make_host, make_model
from running import Entered, Running

from lab.internet.shell import BuildError
from lab.machines import content
from lab.machines.paths import ROOT, cache
from lab.real import root
from lab.real.released import fetch

KEY = "secret"
PINNED = "0.19.1"


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
    command_lines_at_once = 1
    start_seconds = 30.0  # generous: a start that takes longer has failed
    unknown_argument: tuple[str, ...] = ("serve", "{model}", "--no-such-argument")
    no_model: tuple[str, ...] = ("serve", "/nowhere")
    stream_tokens = 600  # a stream of so many tokens lasts long enough to do something meanwhile

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path()

    def missing(self) -> str:
        """Empty when the engine can be started here, else a sentence that says what to do."""
        return ""

    @abstractmethod
    def start(self, wanted: Wanted) -> Running:
        """Start a server; it is not waited for."""

    @abstractmethod
    def command(self, *words: str) -> Running:
        """Start a command line that is expected to end by itself; `{model}` stands for a model of the engine."""


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

    def start(self, wanted: Wanted) -> Running:
        host, model = self._host(wanted.model)
        words = vllm_arguments(wanted, str(model))
        return self._run(host, words, free_port(), LAB_LOAD_SECONDS="6" if wanted.slow_load else "0.5")

    def command(self, *words: str) -> Running:
        host, model = self._host("llama3.1-8b")
        return self._run(host, [word.format(model=model) for word in words], 0)

    def _host(self, model: str) -> tuple[Path, Path]:
        host = make_host(self.directory / f"host-{len(list(self.directory.glob('host-*')))}", "V100-32GB")
        directory = self.directory / "models" / model
        if not directory.exists():  # once: servers that start at this moment read it
            (make_bge if model == "bge-m3" else make_model)(directory)
        return host, directory

    def _run(self, host: Path, words: list[str], port: int, **env: str) -> Running:
        where = ["--host", "127.0.0.1", "--port", str(port)] if port else []
        env |= {"HF_HUB_OFFLINE": "1"}
        return Running(
            [sys.executable, "-m", "lab_vllm.cli", *words, *where], environment(host, **env), host / "log", port
        )


class RealVllm(Subject):
    """vLLM built for the CPU, in its own root file system, behind gpu-turn.py as in a container of Stoker's."""

    at_once = 2
    command_lines_at_once = 2  # nearly all of each is the import of the program, on one core
    start_seconds = 240.0
    stream_tokens = 3000
    program: tuple[str, ...] = ("vllm",)

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory)
        self._numbers = itertools.count()

    def missing(self) -> str:
        return root.missing()

    def start(self, wanted: Wanted) -> Running:
        # The small cache is a matter of this machine's memory, so no part of what is wanted.
        words = [*vllm_arguments(wanted, self._model(wanted.model)), "--kv-cache-memory-bytes", "67108864"]
        return self._run(words, free_port())

    def command(self, *words: str) -> Running:
        return self._run([word.format(model=self._model("llama3.1-8b")) for word in words], 0)

    def mounts(self) -> dict[Path, str]:
        return {
            content.folder() / "hub/models/stoker-lab": "/models",
            ROOT / "templates": "/stoker",
            self.work(): "/tmp/locks",
        }

    def environment(self) -> dict[str, str]:
        return {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
        }

    def work(self) -> Path:
        """A directory for the locks, each of a card of its own: these servers do not wait for one another."""
        (self.directory / "work").mkdir(exist_ok=True)
        return self.directory / "work"

    def _model(self, name: str) -> str:
        return "/models/tiny-xlm-roberta" if name == "bge-m3" else "/models/tiny-llama"

    def _run(self, words: list[str], port: int) -> Running:
        where = ["--host", "127.0.0.1", "--port", str(port)] if port else []
        health = ["--health", f"http://127.0.0.1:{port}/health"] if port else []
        number = next(self._numbers)
        log = self.directory / f"engine-{number}.log"
        (self.work() / f"lock-{number}").touch()
        turn = ["python3", "/stoker/gpu-turn.py", "--lock", f"/tmp/locks/lock-{number}", *health, "--"]
        command = [*root.command(self.mounts(), self.environment()), *turn, *self.program, *words, *where]
        return Entered(command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, log, port)


class ReleasedApi(RealVllm):
    """The HTTP interface of the pinned release, its own code, before an engine that makes tokens up (lab/real/released_api.py)."""

    at_once = 3
    stream_tokens = 600
    # -P: beside the program lie modules with the names of others.
    program = ("python3", "-P", "/tmp/api/released_api.py")

    def missing(self) -> str:
        try:
            return root.missing() or (fetch(PINNED, cache() / "real") and "")
        except BuildError as error:
            return str(error).partition("\n")[0]

    def mounts(self) -> dict[Path, str]:
        return {**super().mounts(), fetch(PINNED, cache() / "real"): "/tmp/released", ROOT / "lab/real": "/tmp/api"}

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": "/tmp/released"}
