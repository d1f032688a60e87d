"""Real engines other than vLLM: llama.cpp's server and `transformers serve`, each with the tiny Llama."""

from __future__ import annotations

import sys

from double_processes import environment, make_host
from running import Entered, Running
from subjects import KEY, RealVllm, Subject, Wanted, free_port

from lab.machines import content
from lab.models import weights
from lab.real import root

TINY: dict[str, weights.Value] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 16384,
    "llama.embedding_length": 128,
    "llama.attention.head_count": 4,
    "llama.vocab_size": 4096,
}
"""What lab/models/tiny.py makes, as far as the double looks at it."""


class LlamaServer(Subject):
    """llama.cpp's server, as lab/real/llama_server.py builds it; one static program, run as it is."""

    unknown_argument = ("--model", "{model}", "--no-such-argument")
    no_model = ("--model", "/nowhere.gguf")

    def missing(self) -> str:
        there = (content.engine("llama-server") / "llama-server").exists()
        return (
            ""
            if there
            else f"there is no llama-server in {content.engine('llama-server')}: lab/up --real --engines builds it"
        )

    def start(self, wanted: Wanted) -> Running:
        slots = 4
        words = ["--alias", wanted.model, "--ctx-size", str(slots * 8192), "--parallel", str(slots), "--metrics"]
        return self._run(["--model", "{model}", *words, *(["--api-key", KEY] if wanted.key else [])], free_port())

    def command(self, *words: str) -> Running:
        return self._run(list(words), 0)

    def _run(self, words: list[str], port: int) -> Running:
        folder = content.engine("llama-server")
        where = ["--host", "127.0.0.1", "--port", str(port)] if port else []
        log = self.directory / f"engine-{len(list(self.directory.glob('engine-*')))}.log"
        given = [word.format(model=folder / "tiny-llama.gguf") for word in words]
        return Running([str(folder / "llama-server"), *given, *where], {"PATH": "/usr/bin:/bin"}, log, port)


class DoubleLlama(LlamaServer):
    """The lab's double of it, without a card, with a model of the same context. The contract asks the same of both, word for word."""

    def missing(self) -> str:
        return ""

    def _run(self, words: list[str], port: int) -> Running:
        host = make_host(self.directory / f"host-{len(list(self.directory.glob('host-*')))}")
        model = self.directory / "tiny-llama.gguf"
        if not model.exists():  # once: servers that start at this moment read it
            model.write_bytes(weights.gguf(TINY))
        where = ["--host", "127.0.0.1", "--port", str(port)] if port else []
        given = [sys.executable, "-m", "lab_llama.cli", *(word.format(model=model) for word in words), *where]
        return Running(given, environment(host, LAB_LLAMA_STOP_SECONDS="30"), host / "log", port)


class Transformers(RealVllm):
    """`transformers serve`, in the root file system of real vLLM. It knows no alias, so the model's directory has the served name."""

    def start(self, wanted: Wanted) -> Running:
        return self._run(["serve", wanted.model, "--device", "cpu"], free_port())

    def _run(self, words: list[str], port: int) -> Running:
        where = ["--host", "127.0.0.1", "--port", str(port)] if port else []
        log = self.directory / f"engine-{len(list(self.directory.glob('engine-*')))}.log"
        # A shell for the directory alone: it is replaced by the server.
        program = ["sh", "-c", 'cd /tmp/models && exec transformers "$@"', "transformers"]
        mounts = {content.folder() / "hub/models/stoker-lab/tiny-llama": "/tmp/models/llama3.1-8b"}
        command = [*root.command(mounts, self.environment()), *program, *words, *where]
        return Entered(command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, log, port)
