"""Vectors of texts, one a line on standard input: python embed.py <texts.txt >vectors.jsonl

A text for which the model gives NaN fails a whole batch (Ollama 0.32 with bge-m3: HTTP 500); so the batch is halved until that
text is alone. It gets null, and all others their vectors.
"""

from __future__ import annotations

import json
import math
import sys
import time

import openai
import settings

BATCH = 32  #: texts in one request
WAITS = (0.5, 1.0, 2.0, 4.0)  #: seconds before each further try, unless Retry-After says another time


def embed(texts: list[str]) -> list[list[float] | None]:
    """In the texts' order; None: the model has no vector for this one. Raises openai.OpenAIError without an answer."""
    # Tries of its own: OpenAI's package would repeat the batch with NaN too, which always ends the same way.
    client, model = settings.client("EMBEDDING", retries=0)
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    return [vector for batch in batches for vector in _halved(client, model, batch)]


def _halved(client: openai.OpenAI, model: str, batch: list[str]) -> list[list[float] | None]:
    try:
        vectors = _asked(client, model, batch)
    except openai.InternalServerError as error:
        if "NaN" not in str(error):
            raise
    else:
        return [vector if _finite(vector) else None for vector in vectors]
    if len(batch) == 1:
        return [None]
    middle = len(batch) // 2
    return _halved(client, model, batch[:middle]) + _halved(client, model, batch[middle:])


def _finite(vector: list[float]) -> bool:
    """Other engines answer 200 with NaN, which is null in JSON."""
    return all(value is not None and math.isfinite(value) for value in vector)


def _asked(client: openai.OpenAI, model: str, batch: list[str]) -> list[list[float]]:
    for wait in (*WAITS, None):
        try:
            answer = client.embeddings.create(model=model, input=batch)
            return [entry.embedding for entry in sorted(answer.data, key=lambda entry: entry.index)]
        except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
            if wait is None or "NaN" in str(error):
                raise
            headers = error.response.headers if isinstance(error, openai.APIStatusError) else {}
            time.sleep(float(headers.get("retry-after", wait)))
    raise AssertionError("the last try returns or raises")


def main() -> None:
    texts = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    try:
        vectors = embed(texts)
    except openai.OpenAIError as error:
        sys.exit(f"no vectors: {error}")
    for text, vector in zip(texts, vectors, strict=True):
        print(json.dumps({"text": text, "vector": vector}, ensure_ascii=False))
    if None in vectors:
        sys.exit(f"{vectors.count(None)} of {len(vectors)} texts have no vector")


if __name__ == "__main__":
    main()
