"""Entities of a text, by the fast model: python extract_entities.py TEXT (or the text on standard input)."""

from __future__ import annotations

import sys
from typing import Literal

import forced_json
import openai
import settings
from pydantic import BaseModel, ValidationInfo, field_validator


class Entity(BaseModel):
    name: str
    type: Literal["person", "organization", "place", "product", "date", "other"]

    @field_validator("name")
    @classmethod
    def _of_the_text(cls, name: str, info: ValidationInfo) -> str:
        if name not in (info.context or {})["text"]:
            raise ValueError(f"{name!r} is not in the text; names stand there letter by letter")
        return name


class Entities(BaseModel):
    entities: list[Entity]


def extract_entities(text: str) -> list[Entity]:
    """Each as it stands in the text. Raises ValueError when the model cannot do it, openai.OpenAIError without an answer."""
    client, model = settings.client("LLAMA")
    task = f"List the entities of this text as JSON, each name as it is written there, in its own language:\n\n{text}"
    return forced_json.ask(client, model, task, Entities, {"text": text}).entities


def main() -> None:
    text = " ".join(sys.argv[1:]) or sys.stdin.read()
    try:
        entities = extract_entities(text)
    except (ValueError, openai.OpenAIError) as error:
        sys.exit(f"no entities: {error}")
    print(Entities(entities=entities).model_dump_json(indent=2))


if __name__ == "__main__":
    main()
