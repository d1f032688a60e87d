"""/v1/embeddings of a pooling model: vectors that depend on the text, normalised, without meaning."""

from __future__ import annotations

import base64
import secrets
import struct
import time
from typing import Any

from lab_gpu import settings
from lab_serve.tokens import tokenize
from lab_serve.vectors import normalised, vector

from lab_vllm.engine_config import EngineConfig
from lab_vllm.errors import bad_request


def embed(body: dict[str, Any], config: EngineConfig) -> dict[str, Any]:
    """The answer to an embeddings request. Raises ApiError for texts beyond the model's length."""
    given = body["input"]
    texts = given if isinstance(given, list) and not all(isinstance(item, int) for item in given) else [given]
    fault, value = settings.fault(*config.served_names)
    size = int(value or config.model.hidden_size // 2) if fault == "wrong-dimension" else config.model.hidden_size
    data, total = [], 0
    for index, text in enumerate(texts):
        pieces = tokenize(text) if isinstance(text, str) else list(map(str, text))
        count = len(pieces) + 2  # begin and end marks of XLM-RoBERTa
        if count > config.max_model_len:
            raise bad_request(
                f"This model's maximum context length is {config.max_model_len} tokens. However, you requested 0 output tokens and your "
                f"prompt contains at least {config.max_model_len + 1} input tokens, for a total of at least {config.max_model_len + 1} "
                "tokens. Please reduce the length of the input prompt or the number of requested output tokens.",
                "input_tokens",
            )
        total += count
        values: list[Any] = list(normalised(vector(pieces, size)))
        if fault == "nan":
            values = [None] * size  # NaN as the JSON library of the server writes it
        if body.get("encoding_format") == "base64" and fault != "nan":
            embedding: Any = base64.b64encode(struct.pack(f"<{size}f", *values)).decode()
        else:
            embedding = values
        data.append({"index": index, "object": "embedding", "embedding": embedding})
    usage = {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0, "prompt_tokens_details": None}
    name = body.get("model") or config.served_names[0]
    head = {"id": f"embd-{secrets.token_hex(8)}", "object": "list", "created": int(time.time()), "model": name}
    return {**head, "data": data, "usage": usage}
