"""Open WebUI beside a stack's Ollama instances: for looking at models, pulling and trying them."""

from __future__ import annotations

from typing import Annotated

from stoker.spec.base import ContainerName, Port, ServiceName, Spec, form

#: Docker's rule for volumes, within Compose's.
VolumeName = Annotated[
    str, form(r"^[a-z0-9][a-z0-9_-]{0,62}$", "at most 63 signs: lower-case letters, digits, and _ -")
]

#: Port that it listens on inside its container (its Dockerfile, ``PORT=8080``).
CONTAINER_PORT = 8080


class WebUi(Spec):
    """One container. Accounts are on; the first that is made there is the administrator's."""

    container: ContainerName = "ollama-webui"
    service: ServiceName = "ollama-webui"
    port: Port = 3000
    #: Of Docker, named after the project too; accounts and conversations are in it, and stay when the container goes.
    volume: VolumeName = "open-webui"
