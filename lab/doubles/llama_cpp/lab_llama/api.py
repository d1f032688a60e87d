"""llama-server's HTTP interface, as far as clients of a text or embedding model use it."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from lab_gpu import settings
from lab_serve.http import HttpRequest, HttpResponse, json_response
from lab_serve.replies import reply, stop_at
from lab_serve.tokens import token_ids, tokenize
from lab_serve.vectors import normalised, vector

from lab_llama import FINGERPRINT
from lab_llama.answers import Answer, event
from lab_llama.arguments import Options
from lab_llama.loading import Loaded
from lab_llama.log import said_by
from lab_llama.slots import Slots

Route = Callable[[HttpRequest], Awaitable[HttpResponse]]
PUBLIC = ("/health", "/v1/health", "/")
"""Paths that need no key."""
JSON_TYPE = "application/json; charset=utf-8"
DEFAULT_EMBED_MS = 20.0


class Refusal(Exception):
    """An answer {"error": {...}}."""

    def __init__(self, code: int, text: str, kind: str = "invalid_request_error", **more: int) -> None:
        super().__init__(text)
        self.code = code
        self.body = {"error": {"code": code, "message": text, "type": kind, **more}}


class Api:
    """Answers requests of one server; before `loaded` is set everything is 503."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loaded: Loaded | None = None
        self.slots = Slots(options.parallel, options.aliases)
        self.name = options.aliases[0]
        self.unfinished = 0
        chat, text, embed = self.chat, self.completion, self.embeddings
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/health"): self.health,
            ("GET", "/v1/health"): self.health,
            ("GET", "/metrics"): self.metrics,
            ("GET", "/props"): self.props,
            ("GET", "/models"): self.models,
            ("GET", "/v1/models"): self.models,
            ("POST", "/v1/completions"): text,
            ("POST", "/chat/completions"): chat,
            ("POST", "/v1/chat/completions"): chat,
            ("POST", "/v1/embeddings"): embed,
            ("POST", "/tokenize"): self.tokenize,
        }
        if options.has_page:
            self.routes["GET", "/"] = self.page

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one request; bodies need no Content-Type."""
        self.unfinished += 1
        try:
            response = await self._answer(request)
        except Refusal as refusal:
            if request.method == "POST":
                said_by("srv", "operator()", f"got exception: {json.dumps(refusal.body, separators=(',', ':'))}", "W")
            response = json_response(refusal.body, refusal.code)
        finally:
            self.unfinished -= 1
        if response.status >= 400:
            response.headers["Connection"], response.ends_connection = "close", True
        if response.content_type == "application/json":
            response.content_type = JSON_TYPE
        response.headers.setdefault("Access-Control-Allow-Origin", request.headers.get("origin", ""))
        return response

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        if request.method == "OPTIONS":
            return HttpResponse(200, content_type="text/html")
        if self.options.keys and request.path not in PUBLIC and not self._authorized(request):
            said_by("srv", "operator()", "unauthorized: Invalid API Key", "W")
            return _error(401, "Invalid API Key", "authentication_error")
        if self.loaded is None:
            return _error(503, "Loading model", "unavailable_error")
        route = self.routes.get(("GET" if request.method == "HEAD" else request.method, request.path))
        if route is None:
            return _error(404, "File Not Found", "not_found_error")
        return await route(request)

    def _authorized(self, request: HttpRequest) -> bool:
        key = request.headers.get("authorization", "") or request.headers.get("x-api-key", "")
        return key.removeprefix("Bearer ") in self.options.keys

    @property
    def ready(self) -> Loaded:
        """The model; asked for only once there is one."""
        assert self.loaded is not None
        return self.loaded

    async def health(self, request: HttpRequest) -> HttpResponse:
        return json_response({"status": "ok"})

    async def page(self, request: HttpRequest) -> HttpResponse:
        text = "<!doctype html><html><head><title>llama.cpp</title></head><body>llama.cpp (simulated by the Stoker lab)</body></html>"
        return HttpResponse(200, text.encode(), "text/html; charset=utf-8")

    async def metrics(self, request: HttpRequest) -> HttpResponse:
        if not self.options.metrics:
            raise Refusal(
                501, "This server does not support metrics endpoint. Start it with `--metrics`", "not_supported_error"
            )
        return HttpResponse(200, self.slots.metrics().encode(), "text/plain; version=0.0.4")

    async def props(self, request: HttpRequest) -> HttpResponse:
        loaded, options = self.ready, self.options
        about = {"model_alias": self.name, "model_ftype": loaded.model.file_type, "model_path": options.model}
        generation = {"default_generation_settings": {"n_ctx": loaded.slot_context}, "total_slots": options.parallel}
        endpoints = {"endpoint_slots": True, "endpoint_props": False, "endpoint_metrics": options.metrics}
        template = loaded.model.metadata.get("tokenizer.chat_template", "")
        rest = {"chat_template": template, "build_info": FINGERPRINT, "is_sleeping": False, "lab_note": "simulated"}
        return json_response({**generation, **about, **endpoints, **rest})

    async def models(self, request: HttpRequest) -> HttpResponse:
        model = self.ready.model
        meta = {
            "vocab_type": 2,
            "n_vocab": model.vocabulary,
            "n_ctx": self.ready.slot_context,
            "n_ctx_train": model.trained_context,
            "n_embd": model.embedding,
            "n_params": model.weights,
            "size": model.size,
            "ftype": model.file_type,
        }
        card: dict[str, Any] = {"id": self.name, "aliases": list(self.options.aliases), "tags": [], "object": "model"}
        card |= {"created": int(time.time()), "owned_by": "llamacpp", "meta": meta}
        details = {
            "parent_model": "",
            "format": "gguf",
            "family": "",
            "families": [""],
            "parameter_size": "",
            "quantization_level": "",
        }
        ollama: dict[str, Any] = {
            "name": self.name,
            "model": self.name,
            "modified_at": "",
            "size": "",
            "digest": "",
            "type": "model",
        }
        ollama |= {
            "description": "",
            "tags": [""],
            "capabilities": ["completion"],
            "parameters": "",
            "details": details,
        }
        return json_response({"models": [ollama], "object": "list", "data": [card]})

    async def chat(self, request: HttpRequest) -> HttpResponse:
        body = _body(request)
        if "messages" not in body:
            raise Refusal(400, "'messages' is required")
        if not isinstance(body["messages"], list):
            raise Refusal(400, "Expected 'messages' to be an array")
        return await self._generate(body, _chat_text(body["messages"]), chat=True)

    async def completion(self, request: HttpRequest) -> HttpResponse:
        body = _body(request)
        if "prompt" not in body:
            raise Refusal(400, "[json.exception.out_of_range.403] key 'prompt' not found")
        prompt = body["prompt"]
        if isinstance(prompt, list):
            prompt = " ".join(map(str, prompt))
        return await self._generate(body, str(prompt), chat=False)

    async def _generate(self, body: dict[str, Any], prompt: str, *, chat: bool) -> HttpResponse:
        count, slots = _number(body, "n", 1), self.options.parallel
        if not 1 <= count <= slots:
            raise Refusal(400, f"Field 'n': Value must be between 1 <= value <= {slots}, but got {count}")
        fault = await self._act_on_fault()
        tokens, room = len(tokenize(prompt)) or 1, self.ready.slot_context
        self._check_context(tokens)
        limit = _limit(body)
        words, reason = reply(
            prompt,
            min(room - tokens, limit) if limit else room - tokens,
            garbage=fault == "garbage",
            exact=bool(body.get("ignore_eos")),
            response_format=body.get("response_format"),
        )
        words, reason = stop_at(words, reason, body.get("stop"))
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        answers = [
            Answer(self.name, tokens, reason, chat=chat, usage_wanted=usage, index=index) for index in range(count)
        ]
        replies = [self.slots.generate(words, answer.timing) for answer in answers]
        if body.get("stream"):
            stream = self._stream(list(zip(answers, replies, strict=True)))
            buffering = {"X-Accel-Buffering": "no"}
            return HttpResponse(200, content_type="text/event-stream", stream=stream, headers=buffering)
        texts = await asyncio.gather(*map(_joined, replies))
        return json_response(answers[0].whole(list(zip(answers, texts, strict=True))))

    async def _stream(self, replies: list[tuple[Answer, AsyncGenerator[str, None]]]) -> AsyncIterator[bytes]:
        """The events of each reply, one reply after the other."""
        self.unfinished += 1
        try:
            for answer, pieces in replies:
                for chunk in answer.opening():
                    yield event(chunk)
                async for piece in pieces:
                    yield event(answer.piece(piece))
                for chunk in answer.closing():
                    yield event(chunk)
            yield b"data: [DONE]\n\n"
        finally:
            self.unfinished -= 1
            for _, pieces in replies:
                await pieces.aclose()

    def _check_context(self, tokens: int) -> None:
        room = self.ready.slot_context
        if tokens > room:
            text = f"request ({tokens} tokens) exceeds the available context size ({room} tokens), try increasing it"
            raise Refusal(400, text, "exceed_context_size_error", n_prompt_tokens=tokens, n_ctx=room)

    async def embeddings(self, request: HttpRequest) -> HttpResponse:
        body = _body(request)
        if not self.options.embeddings:
            raise Refusal(
                501, "This server does not support embeddings. Start it with `--embeddings`", "not_supported_error"
            )
        if self.options.pooling == "none":
            raise Refusal(400, "Pooling type 'none' is not OAI compatible. Please use a different pooling type")
        given = body.get("input", body.get("content"))
        if given is None:
            raise Refusal(400, '"input" or "content" must be provided')
        texts = given if isinstance(given, list) and not all(isinstance(item, int) for item in given) else [given]
        fault = await self._act_on_fault()
        size = self.ready.model.embedding // 2 if fault == "wrong-dimension" else self.ready.model.embedding
        data, total = [], 0
        for index, text in enumerate(texts):
            pieces = tokenize(text) if isinstance(text, str) else list(map(str, text))
            if not pieces:
                raise Refusal(400, "Input content cannot be empty")
            count = len(pieces) + (2 if self.ready.model.encoder else 0)
            if count > self.options.micro_batch:
                limit = f"increase the physical batch size (current batch size: {self.options.micro_batch})"
                raise Refusal(500, f"input ({count} tokens) is too large to process. {limit}", "server_error")
            self._check_context(count)
            async with self.slots.slot():
                await asyncio.sleep(settings.number("embed_ms", DEFAULT_EMBED_MS) / 1000)
            self.slots.count_prompt(count, settings.number("embed_ms", DEFAULT_EMBED_MS) / 1000)
            values: Any = normalised(vector(pieces, size))
            if body.get("encoding_format") == "base64":
                values = base64.b64encode(struct.pack(f"<{size}f", *values)).decode()
            data.append({"embedding": values, "index": index, "object": "embedding"})
            total += count
        usage = {"prompt_tokens": total, "total_tokens": total}
        return json_response({"model": body.get("model", self.name), "object": "list", "usage": usage, "data": data})

    async def tokenize(self, request: HttpRequest) -> HttpResponse:
        pieces = tokenize(str(_body(request).get("content", "")))
        return json_response({"tokens": token_ids(pieces, self.ready.model.vocabulary)})

    async def _act_on_fault(self) -> str:
        fault, _ = settings.fault(*self.options.aliases)
        if fault == "error-500":
            raise Refusal(500, "Compute error. (simulated)", "server_error")
        if fault == "hang-requests":
            await asyncio.Event().wait()
        return fault


def _error(code: int, text: str, kind: str) -> HttpResponse:
    return json_response({"error": {"message": text, "type": kind, "code": code}}, code)


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError as error:
        where = f"parse error at line 1, column {getattr(error, 'pos', 0) + 1}"
        raise Refusal(
            500, f"[json.exception.parse_error.101] {where}: syntax error (simulated)", "server_error"
        ) from error
    if not isinstance(body, dict):
        return {}  # a list is looked into for its fields, and has none
    return body


def _limit(body: dict[str, Any]) -> int:
    """The most tokens that are wanted; 0 for no limit. Raises Refusal."""
    names = ("max_completion_tokens", "max_tokens", "n_predict")
    given = next((_number(body, name, 0) for name in names if body.get(name) is not None), 0)
    return max(given, 0)


def _number(body: dict[str, Any], name: str, default: int) -> int:
    """A whole number of the body. Raises Refusal."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = {bool: "boolean", str: "string", list: "array", dict: "object"}[type(value)]
        raise Refusal(400, f"Field '{name}': [json.exception.type_error.302] type must be number, but is {kind}")
    return int(value)


async def _joined(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


def _chat_text(messages: list[Any]) -> str:
    parts = []
    for message in messages:
        if not isinstance(message, dict) or "role" not in message:
            shown = json.dumps(message, separators=(",", ":"))
            raise Refusal(500, f"Failed to parse messages: Missing 'role' in message: {shown}", "server_error")
        content = message.get("content") or ""
        if isinstance(content, list):
            content = " ".join(str(item.get("text", "")) for item in content if isinstance(item, dict))
        parts.append(f"<|im_start|>{message['role']} {content} <|im_end|>")
    return "\n".join(parts)
