"""One instance: one container with one engine that serves one model on its GPUs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stoker.spec.base import ContainerName, EnvironmentName, Image, ModelName, Port, ServiceName, Spec
from stoker.spec.gpu_name import GpuName
from stoker.spec.vllm import Argument

#: Port that the engine listens on inside its container.
CONTAINER_PORTS = {"vllm": 8000, "ollama": 11434}


class Instance(Spec):
    """Everything that distinguishes one engine from its neighbours."""

    name: ContainerName
    #: Compose service; the container's name with dashes when not given.
    service: ServiceName = Field(default="", validate_default=False)
    engine: Literal["vllm", "ollama"]
    model: ModelName
    #: Cards of the host, by index, UUID or bus address. Resolved to UUIDs there (stoker/facts/identity.py).
    gpus: tuple[GpuName, ...] = Field(min_length=1)
    #: Port on the host.
    port: Port
    #: Overrides ``versions`` for this instance.
    image: Image | None = None
    #: vLLM's command-line arguments, without the dashes.
    arguments: dict[str, Argument] = {}
    environment: dict[EnvironmentName, str] = {}

    @field_validator("gpus", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @property
    def service_name(self) -> str:
        return self.service or self.name.replace("_", "-").lower()

    @property
    def container_port(self) -> int:
        return CONTAINER_PORTS[self.engine]
