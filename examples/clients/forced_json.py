"""An answer that is JSON of a given form: forced on the model, and checked all the same."""

from __future__ import annotations

from typing import Any, TypeVar

from openai import OpenAI
from pydantic import BaseModel

Form = TypeVar("Form", bound=BaseModel)


def ask(client: OpenAI, model: str, task: str, form: type[Form], context: dict[str, Any], tries: int = 3) -> Form:
    """``context`` is for the form's own validators. Raises ValueError when no answer of ``tries`` was right."""
    messages: list[Any] = [{"role": "user", "content": task}]
    schema: Any = {"name": form.__name__, "schema": form.model_json_schema(), "strict": True}
    for tried in range(1, tries + 1):
        answer = client.chat.completions.create(
            model=model,
            messages=messages,
            response_format={"type": "json_schema", "json_schema": schema},
            temperature=0,
            max_tokens=1024,
        )
        content, ending = answer.choices[0].message.content or "", answer.choices[0].finish_reason
        try:
            if ending == "length":  # what is forced is a beginning of JSON, not its end
                raise ValueError("the answer is longer than max_tokens")
            return form.model_validate_json(content, context=context)
        except ValueError as error:  # pydantic's ValidationError is one
            if tried == tries:
                raise
            wrong = f"This is wrong, answer again: {error}"
            messages += [{"role": "assistant", "content": content}, {"role": "user", "content": wrong}]
    raise ValueError("tries must be 1 or more")
