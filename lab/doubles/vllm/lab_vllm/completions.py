"""/v1/chat/completions and /v1/completions, whole and streamed."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from lab_gpu import settings
from lab_serve.http import HttpRequest, HttpResponse, json_response
from lab_serve.replies import reply, stop_at
from lab_serve.tokens import tokenize

from lab_vllm.engine_config import EngineConfig
from lab_vllm.errors import ApiError, bad_request, engine_dead
from lab_vllm.generation import EngineDeadError, Request, Scheduler
from lab_vllm.requests import chat_text, check_fields, check_length, check_sampling, output_limit, value_error


class Completions:
    """Generates for one model."""

    def __init__(self, config: EngineConfig, scheduler: Scheduler) -> None:
        self.config, self.scheduler = config, scheduler

    async def chat(self, request: HttpRequest, body: dict[str, Any]) -> HttpResponse:
        """POST /v1/chat/completions."""
        check_fields(request, body, ("messages",))
        if not body["messages"]:
            raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
        if body.get("tools") and body.get("tool_choice", "auto") == "auto" and not self.config.auto_tool_choice:
            text = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            raise ApiError(400, "BadRequestError", text)
        return await self._generate(body, [chat_text(body["messages"])], Chat(self._name(body), body))

    async def completion(self, request: HttpRequest, body: dict[str, Any]) -> HttpResponse:
        """POST /v1/completions."""
        check_fields(request, body, ())
        prompt = body.get("prompt")
        if prompt is None or prompt == "":
            raise value_error(request, body, "Either prompt or prompt_embeds must be provided and non-empty.")
        if prompt == []:
            raise bad_request("You must pass at least one prompt")
        if isinstance(prompt, str):
            prompts = [prompt]
        elif all(isinstance(item, int) for item in prompt):
            prompts = [" ".join(map(str, prompt))]
        else:
            prompts = [item if isinstance(item, str) else " ".join(map(str, item)) for item in prompt]
        if output_limit(body) is None:
            body = {**body, "max_tokens": 16}  # the default of the completions API
        return await self._generate(body, prompts, Text(self._name(body), body))

    def _name(self, body: dict[str, Any]) -> str:
        return str(body.get("model") or self.config.served_names[0])

    async def _generate(self, body: dict[str, Any], prompts: list[str], form: Chat | Text) -> HttpResponse:
        check_sampling(body)
        count = int(body.get("n") or 1)
        garbage = settings.fault(*self.config.served_names)[0] == "garbage"
        sequences = []
        for prompt in prompts:
            tokens = len(tokenize(prompt))
            room = check_length(tokens, body, self.config.max_model_len)
            limit = output_limit(body)
            words, reason = reply(
                prompt,
                room if limit is None and body.get("ignore_eos") else limit,
                garbage=garbage,
                exact=bool(body.get("ignore_eos") or body.get("min_tokens")),
                response_format=body.get("response_format"),
            )
            words, reason = stop_at(words, reason, body.get("stop"))
            for _ in range(count):
                sequences.append((Request(tokens, limit or room), words, reason))
        form.prompt_tokens = sum(request.prompt_tokens for request, _, _ in sequences[::count])
        if body.get("stream"):
            return HttpResponse(
                200, content_type="text/event-stream; charset=utf-8", stream=self._stream(sequences, form)
            )
        results = await asyncio.gather(*(self._collect(sequence) for sequence in sequences))
        return json_response(form.whole(results))

    async def _collect(self, sequence: tuple[Request, list[str], str]) -> tuple[str, str, int]:
        request, words, final = sequence
        text, reason = "", final
        async for piece, ended in self.scheduler.run(request, words, final):
            text += piece
            reason = ended or reason
        return text, reason, request.produced

    async def _stream(self, sequences: list[tuple[Request, list[str], str]], form: Chat | Text) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[tuple[int, str, str | None] | EngineDeadError | None] = asyncio.Queue()

        async def feed(index: int, sequence: tuple[Request, list[str], str]) -> None:
            request, words, final = sequence
            try:
                async for piece, ended in self.scheduler.run(request, words, final):
                    queue.put_nowait((index, piece, ended))
            except EngineDeadError as error:
                queue.put_nowait(error)
            finally:
                queue.put_nowait(None)

        tasks = [asyncio.ensure_future(feed(index, sequence)) for index, sequence in enumerate(sequences)]
        try:
            open_streams = len(tasks)
            opened = False
            while open_streams:
                item = await queue.get()
                if item is None:
                    open_streams -= 1
                    continue
                if isinstance(item, EngineDeadError):
                    yield _event(engine_dead().body())
                    break
                if not opened:  # vLLM sends the role with the first token, not before
                    opened = True
                    for event in form.opening(len(sequences)):
                        yield _event(event)
                produced = sum(request.produced for request, _, _ in sequences)
                yield _event(form.piece(*item, produced))
            if form.usage_wanted and not self.scheduler.dead:
                yield _event(form.usage_event(sum(request.produced for request, _, _ in sequences)))
            yield b"data: [DONE]\n\n"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Form(ABC):
    """What both forms of an answer share."""

    kind, chunk_kind, prefix = "", "", ""

    def __init__(self, model: str, body: dict[str, Any]) -> None:
        options = body.get("stream_options") or {}
        self.usage_wanted = bool(options.get("include_usage"))
        self.continuous = bool(options.get("continuous_usage_stats")) and self.usage_wanted
        self.head = {"id": f"{self.prefix}-{secrets.token_hex(8)}", "created": int(time.time()), "model": model}
        self.prompt_tokens = 0

    def usage(self, produced: int) -> dict[str, Any]:
        total = self.prompt_tokens + produced
        return {"prompt_tokens": self.prompt_tokens, "total_tokens": total, "completion_tokens": produced}

    def whole(self, results: list[tuple[str, str, int]]) -> dict[str, Any]:
        """The answer in one piece, from (text, finish reason, tokens) of each sequence."""
        choices = [self.choice(index, text, reason) for index, (text, reason, _) in enumerate(results)]
        usage = {**self.usage(sum(tokens for _, _, tokens in results)), "prompt_tokens_details": None}
        return {
            **self._about(self.kind),
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": None,
            "usage": usage,
        }

    @abstractmethod
    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        """One of the answer's choices, in the shape of this endpoint."""

    def usage_event(self, produced: int) -> dict[str, Any]:
        """The last chunk, with the token counts."""
        return {**self._about(self.chunk_kind), "choices": [], "usage": self.usage(produced)}

    def _about(self, kind: str) -> dict[str, Any]:
        return {"id": self.head["id"], "object": kind, "created": self.head["created"], "model": self.head["model"]}


class Chat(Form):
    """chat.completion."""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def whole(self, results: list[tuple[str, str, int]]) -> dict[str, Any]:
        return {**super().whole(results), "prompt_logprobs": None, "prompt_token_ids": None, "kv_transfer_params": None}

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
        }
        message.update({"function_call": None, "tool_calls": [], "reasoning": None})
        ending = {"logprobs": None, "finish_reason": reason, "stop_reason": None, "token_ids": None}
        return {"index": index, "message": message, **ending}

    def opening(self, count: int) -> list[dict[str, Any]]:
        """The first chunk of every choice: the role, no text."""
        choice = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        usage = {"usage": self.usage(0)} if self.continuous else {}
        about = self._about(self.chunk_kind)
        return [
            {**about, "choices": [{"index": index, **choice}], "prompt_token_ids": None, **usage}
            for index in range(count)
        ]

    def piece(self, index: int, text: str, reason: str | None, produced: int) -> dict[str, Any]:
        """The chunk of one token."""
        chunk = self._chunk(index, {"content": text}, reason)
        return {**chunk, "usage": self.usage(produced)} if self.continuous else chunk

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        if reason:
            choice["stop_reason"] = None
        return {**self._about(self.chunk_kind), "choices": [{**choice, "token_ids": None}]}


class Text(Form):
    """text_completion."""

    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"

    def whole(self, results: list[tuple[str, str, int]]) -> dict[str, Any]:
        return {**super().whole(results), "kv_transfer_params": None}

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        ending = {"stop_reason": None, "token_ids": None, "prompt_logprobs": None, "prompt_token_ids": None}
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason, **ending}

    def opening(self, count: int) -> list[dict[str, Any]]:
        return []

    def piece(self, index: int, text: str, reason: str | None, produced: int) -> dict[str, Any]:
        ending = {"stop_reason": None, "prompt_token_ids": None, "token_ids": None}
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason, **ending}
        return {
            **self._about(self.chunk_kind),
            "choices": [choice],
            "usage": self.usage(produced) if self.continuous else None,
        }


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
