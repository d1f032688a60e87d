"""One instance: one container with one engine that serves one model on its GPUs."""

from __future__ import annotations

import difflib
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from stoker.engine.registry import NAMES, engine_of
from stoker.spec.base import ContainerName, EnvironmentName, Image, ModelName, Port, ServiceName, Spec
from stoker.spec.gpu_name import GpuName
from stoker.spec.vllm import Argument


def _known(name: str) -> str:
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "write one of these"
        raise ValueError(f"it must be {', '.join(map(repr, NAMES[:-1]))} or {NAMES[-1]!r}; {remedy}")
    return name


#: A module of stoker/engines.
EngineName = Annotated[str, AfterValidator(_known)]


class Instance(Spec):
    """Everything that distinguishes one engine from its neighbours."""

    name: ContainerName
    #: Compose service; the container's name with dashes when not given.
    service: ServiceName = Field(default="", validate_default=False)
    engine: EngineName
    model: ModelName
    #: Cards of the host, by index, UUID or bus address. Resolved to UUIDs there (stoker/facts/identity.py).
    #: None for an engine on the processor.
    gpus: tuple[GpuName, ...] = ()
    #: Port on the host.
    port: Port
    #: Overrides ``versions`` for this instance.
    image: Image | None = None
    #: The engine's command-line arguments, without the dashes.
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
        return engine_of(self.engine).port
