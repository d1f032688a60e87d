"""Model names: `bge-m3` is library/bge-m3:latest."""

from __future__ import annotations

import re
from dataclasses import dataclass

REGISTRY = "registry.ollama.ai"


@dataclass(frozen=True)
class Name:
    """A full model name."""

    namespace: str
    model: str
    tag: str

    @property
    def short(self) -> str:
        """As Ollama shows it: without the default namespace, with the tag."""
        head = "" if self.namespace == "library" else f"{self.namespace}/"
        return f"{head}{self.model}:{self.tag}"


def parse(text: str) -> Name | None:
    """The name, or None when it is not one."""
    match = re.fullmatch(r"(?:([\w.-]+)/)?([\w.-]+)(?::([\w.-]+))?", text)
    if not match:
        return None
    return Name(match[1] or "library", match[2], match[3] or "latest")
