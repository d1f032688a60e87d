"""What a new fact does to a memory, by the more accurate model: python judge_memory_action.py FACT [MEMORY...]"""

from __future__ import annotations

import sys
from typing import Literal

import forced_json
import openai
import settings
from pydantic import BaseModel, ValidationInfo, model_validator


class Judgement(BaseModel):
    action: Literal["ADD", "UPDATE", "DELETE", "NONE"]
    memory: int
    text: str

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Judgement:
        memories = (info.context or {})["memories"]
        if self.action in ("UPDATE", "DELETE") and not 1 <= self.memory <= len(memories):
            raise ValueError(f"{self.action} of memory {self.memory}, but there are {len(memories)}")
        if self.action in ("ADD", "UPDATE") and not self.text.strip():
            raise ValueError(f"{self.action} needs a text")
        return self


TASK = """Memories:
{memories}

New fact: {fact}

Decide what to do, as JSON. action is ADD when the fact is new, UPDATE when it changes or completes one memory, DELETE when it makes
one memory wrong and leaves nothing to remember, NONE when the memories say it already. memory is the number of the memory that is
updated or deleted, else 0. text is what is to be remembered, else empty."""


def judge_memory_action(fact: str, memories: list[str]) -> Judgement:
    """Raises ValueError when the model cannot do it, openai.OpenAIError without an answer."""
    client, model = settings.client("QWEN")
    listed = "\n".join(f"{number}. {memory}" for number, memory in enumerate(memories, 1)) or "(none)"
    task = TASK.format(memories=listed, fact=fact)
    return forced_json.ask(client, model, task, Judgement, {"memories": memories})


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        print(judge_memory_action(sys.argv[1], sys.argv[2:]).model_dump_json(indent=2))
    except (ValueError, openai.OpenAIError) as error:
        sys.exit(f"no judgement: {error}")


if __name__ == "__main__":
    main()
