"""A stack: one Compose project on one host."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from stoker.spec.base import AbsolutePath, FileName, ProjectName, Spec
from stoker.spec.gateway import Gateway
from stoker.spec.instance import Instance
from stoker.spec.web_ui import WebUi


class Stack(Spec):
    """Instances that share a Compose project and a model directory, and perhaps a gateway in front; or a gateway alone."""

    project: ProjectName
    compose_file: FileName
    #: On the host. vLLM sees it read-only as /model_data, Ollama as /root/.ollama. A stack without instances has none.
    model_directory: AbsolutePath = Field(default="", validate_default=False)
    instances: tuple[Instance, ...] = ()
    gateway: Gateway | None = None
    web_ui: WebUi | None = None

    @property
    def containers(self) -> list[str]:
        """All of its containers by name, the engines first."""
        beside = [self.web_ui.container] if self.web_ui else []
        return [*(one.name for one in self.instances), *beside, *([self.gateway.container] if self.gateway else [])]

    @field_validator("instances", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _something_to_run(self) -> Stack:
        if not self.instances and self.gateway is None:
            raise ValueError("a stack needs instances or a gateway; add one, or remove the stack")
        if self.instances and not self.model_directory:
            raise ValueError('instances need a directory for their models; add "model_directory": "/data/models"')
        return self


class GpuHardware(Spec):
    """The cards that a host is expected to have; the host's own word is checked against it."""

    count: int = Field(ge=1, le=16)
    #: Part of the name that nvidia-smi prints, for instance ``V100`` or ``Tesla P40``.
    card: str = Field(min_length=2)
    memory_gib: int = Field(ge=1, le=1024)
