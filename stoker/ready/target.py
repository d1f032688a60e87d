"""What is waited for."""

from __future__ import annotations

from dataclasses import dataclass, field

from stoker.engine.registry import engine_of
from stoker.ready.failure import NOTHING, Known


@dataclass(frozen=True, slots=True)
class Target:
    """One instance on one host.

    `model` is the name in requests. `port` is the published port at `address`, as seen from the host itself.
    `expect_dimensions` makes an instance an embedding one (as `pooling` does); its answers must have that length. `prompts`: tokens of the prompts that it is asked before its answer is checked. `known`: for diagnoses.
    `gpu_required` applies to Ollama, which serves from the CPU without an error when it has no GPU.
    `gpus` names the cards (any names, the same for neighbours on one card), for the view and for start order; `uuids` are the
    same cards for nvidia-smi, where they are known. `weights` says which files it loads, so that another model under the
    same name is not taken for it.
    """

    host: str
    name: str
    engine: str
    container: str
    port: int
    model: str
    expect_dimensions: int | None = None
    gpu_required: bool = True
    gpus: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    pooling: bool = False
    prompts: tuple[int, ...] = ()
    known: Known = field(default=NOTHING, compare=False, repr=False)
    uuids: tuple[str, ...] = ()
    weights: str = ""

    @property
    def embeds(self) -> bool:
        return self.engine == "ollama" or self.pooling or self.expect_dimensions is not None

    @property
    def health_url(self) -> str:
        """200 once the engine serves; Ollama's once the server listens (no model yet)."""
        return f"http://{self.address}:{self.port}{self.health_path}"

    @property
    def health_path(self) -> str:
        return engine_of(self.engine).health_path
