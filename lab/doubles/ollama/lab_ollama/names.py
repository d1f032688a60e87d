"""Model names: `bge-m3` is registry.ollama.ai/library/bge-m3:latest; a name may say another registry."""

from __future__ import annotations

import re
from dataclasses import dataclass

REGISTRY = "registry.ollama.ai"
_NAME = re.compile(r"(?:https?://)?(?:(?:([\w.-]+(?::\d+)?)/)?([\w.-]+)/)?([\w.-]+)(?::([\w.-]+))?")


@dataclass(frozen=True)
class Name:
    """A full model name."""

    namespace: str
    model: str
    tag: str
    host: str = REGISTRY

    @property
    def short(self) -> str:
        """As Ollama shows it: without the defaults in front, with the tag."""
        head = f"{self.host}/{self.namespace}/" if self.host != REGISTRY else ""
        if not head and self.namespace != "library":
            head = f"{self.namespace}/"
        return f"{head}{self.model}:{self.tag}"


def parse(text: str) -> Name | None:
    """The name, or None when it is not one."""
    match = _NAME.fullmatch(text)
    if not match:
        return None
    return Name(match[2] or "library", match[3], match[4] or "latest", match[1] or REGISTRY)
