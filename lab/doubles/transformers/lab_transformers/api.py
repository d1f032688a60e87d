"""The HTTP interface of `transformers serve` 5.19.0 (cli/serving): what differs from OpenAI's is kept.

The model is known by its path only; answers name it `PATH@main`; a stream ends without [DONE] and has its usage in the last chunk; errors
are FastAPI's `detail`; /v1/models fails without a Hugging Face cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from lab_gpu import settings
from lab_serve.http import HttpRequest, HttpResponse, json_response
from lab_serve.tokens import tokenize

TOKEN_MS = 20.0  # slower than the double of vLLM: one request at a time, no graphs
DEFAULT_TOKENS = 1024
_COMMON = {
    "model",
    "stream",
    "temperature",
    "top_p",
    "seed",
    "max_tokens",
    "frequency_penalty",
    "stop",
    "generation_config",
}
#: Fields that are taken; of them many are ignored (UNUSED_CHAT_COMPLETION_FIELDS, UNUSED_LEGACY_COMPLETION_FIELDS).
FIELDS = {
    "/v1/chat/completions": _COMMON
    | {
        "messages",
        "tools",
        "chat_template_kwargs",
        "logit_bias",
        "max_completion_tokens",
        "metadata",
        "n",
        "user",
        "logprobs",
    }
    | {"top_logprobs", "response_format", "stream_options", "tool_choice", "presence_penalty", "service_tier", "store"},
    "/v1/completions": _COMMON
    | {"prompt", "suffix", "best_of", "echo", "logprobs", "n", "presence_penalty", "stream_options", "user"},
}
_TEXT = (
    "This is a simulated reply of the Stoker lab; no model computed it. The prompt had {count} tokens and the checksum {digest}. "
    "It stands for Hugging Face Transformers, which computes one request at a time."
)


class Api:
    """Answers requests, one generation at a time."""

    def __init__(self, path: str, name: str) -> None:
        self.path, self.name = path, name
        self.turn = asyncio.Lock()

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Route one request."""
        if request.path == "/health" and request.method == "GET":
            return json_response({"status": "ok"})
        if request.path == "/v1/models" and request.method == "GET":
            return HttpResponse(500, b"Internal Server Error", "text/plain; charset=utf-8")
        if request.path not in FIELDS:
            return json_response({"detail": "Not Found"}, 404)
        if request.method != "POST":
            return json_response({"detail": "Method Not Allowed"}, 405)
        try:
            body = json.loads(request.body)
        except ValueError:
            return json_response({"detail": [{"type": "json_invalid", "msg": "JSON decode error"}]}, 422)
        return await self._generate(request.path, body)

    async def _generate(self, path: str, body: dict[str, Any]) -> HttpResponse:
        unexpected = set(body) - FIELDS[path]
        if unexpected:
            return json_response({"detail": f"Unexpected fields in the request: {unexpected}"}, 422)
        if body.get("model") not in (None, self.path):
            return json_response({"detail": f"Server is pinned to '{self.path}'; requested '{body['model']}'."}, 400)
        fault, _ = settings.fault(self.name)
        if fault == "die-on-request":
            os._exit(1)
        if fault == "error-500":
            return HttpResponse(500, b"Internal Server Error", "text/plain; charset=utf-8")
        chat = path == "/v1/chat/completions"
        prompt = json.dumps(body["messages"]) if chat else body.get("prompt", "")
        chunks = self._chunks(chat, prompt, _limits(body))
        if body.get("stream"):
            return HttpResponse(content_type="text/event-stream; charset=utf-8", stream=_lines(chunks))
        return json_response(_whole(chat, [chunk async for chunk in chunks]))

    async def _chunks(self, chat: bool, prompt: str, limits: tuple[int, int]) -> AsyncIterator[dict[str, Any]]:
        async with self.turn:
            fault, value = settings.fault(self.name)
            pieces, finish = _reply(prompt, *limits, garbage=fault == "garbage")
            head = {"id": os.urandom(8).hex(), "created": int(time.time()), "model": f"{self.path}@main"}
            head["object"] = "chat.completion.chunk" if chat else "text_completion"
            if chat:
                yield {**head, "choices": [{"delta": {"role": "assistant"}, "index": 0}]}
            delay = float(value or 1000) if fault == "slow-tokens" else settings.number("token_ms", TOKEN_MS)
            for piece in pieces:
                await asyncio.sleep(delay / 1000)
                yield {
                    **head,
                    "choices": [{"delta": {"content": piece}, "index": 0} if chat else {"text": piece, "index": 0}],
                }
            count = len(tokenize(prompt))
            usage = {"prompt_tokens": count, "completion_tokens": len(pieces), "total_tokens": count + len(pieces)}
            last = {"index": 0, "finish_reason": finish, **({"delta": {}} if chat else {"text": ""})}
            yield {**head, "choices": [last], "usage": usage}


def _limits(body: dict[str, Any]) -> tuple[int, int]:
    """Least and most tokens of the answer; a generation_config stands in place of the model's own."""
    config = json.loads(body["generation_config"]) if body.get("generation_config") else {}
    most = body.get("max_tokens") or config.get("max_new_tokens") or DEFAULT_TOKENS
    return int(config.get("min_new_tokens") or 0), int(most)


def _reply(prompt: str, least: int, most: int, *, garbage: bool) -> tuple[list[str], str]:
    """(pieces, finish reason), the same for the same prompt."""
    if garbage:
        return ["!"] * min(most, 32), "length"
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    words = _TEXT.format(count=len(tokenize(prompt)), digest=digest).split(" ")
    while len(words) < least:
        words += words
    pieces = [words[0], *(f" {word}" for word in words[1:])]
    return (pieces[:most], "length") if most < len(pieces) else (pieces, "stop")


async def _lines(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n".encode()


def _whole(chat: bool, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    choices = [chunk["choices"][0] for chunk in chunks]
    text = "".join(choice["delta"].get("content", "") if chat else choice["text"] for choice in choices)
    choice: dict[str, Any] = {"index": 0, "finish_reason": choices[-1]["finish_reason"]}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    kind = "chat.completion" if chat else "text_completion"
    return {**chunks[-1], "object": kind, "choices": [choice]}
