"""A reply in the forms of /v1/chat/completions and /v1/completions, whole and as chunks."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from lab_llama import FINGERPRINT
from lab_llama.slots import Timing


class Answer:
    """One reply to a prompt; with `n` there are several, told apart by `index`."""

    def __init__(
        self, model: str, prompt_tokens: int, reason: str, *, chat: bool, usage_wanted: bool, index: int
    ) -> None:
        self.reason, self.chat, self.usage_wanted, self.index = reason, chat, usage_wanted, index
        self.timing = Timing(prompt_tokens)
        identity = f"chatcmpl-{secrets.token_hex(16)}"
        self.head = {"created": int(time.time()), "id": identity, "model": model, "system_fingerprint": FINGERPRINT}

    def whole(self, replies: Sequence[tuple[Answer, str]]) -> dict[str, Any]:
        """The answer in one piece, with all replies to the prompt; the counts are of all, the timings of this one."""
        kind = "chat.completion" if self.chat else "text_completion"
        choices = [answer.choice(text) for answer, text in replies]
        usage = self.usage(sum(answer.timing.produced for answer, _ in replies))
        return {"choices": choices, **self.head, "object": kind, "usage": usage, "timings": self.timing.shown()}

    def choice(self, text: str) -> dict[str, Any]:
        """This reply among the answer's choices."""
        choice: dict[str, Any] = {"finish_reason": self.reason, "index": self.index}
        if self.chat:
            return {**choice, "message": {"role": "assistant", "content": text}}
        return {**choice, "text": text, "logprobs": None}

    def opening(self) -> list[dict[str, Any]]:
        """The first chunk of a chat: the role."""
        return [self._chunk({"role": "assistant", "content": None}, None)] if self.chat else []

    def piece(self, text: str) -> dict[str, Any]:
        """The chunk of one token."""
        return self._chunk({"content": text}, None, text)

    def closing(self) -> list[dict[str, Any]]:
        """The chunk with the reason of the end, and the counts: a text has them in it, a chat on request in one more chunk."""
        events = [self._chunk({}, self.reason)]
        if not self.chat:
            events[0]["usage"] = self.usage(self.timing.produced)
        elif self.usage_wanted:
            events.append({**self._chunk({}, None), "choices": [], "usage": self.usage(self.timing.produced)})
        events[-1]["timings"] = self.timing.shown()
        return events

    def usage(self, produced: int) -> dict[str, Any]:
        """The counts of the prompt and of `produced` tokens."""
        prompt = self.timing.prompt_tokens
        counts = {"completion_tokens": produced, "prompt_tokens": prompt, "total_tokens": prompt + produced}
        return {**counts, "prompt_tokens_details": {"cached_tokens": 0}}

    def _chunk(self, delta: dict[str, Any], reason: str | None, text: str = "") -> dict[str, Any]:
        choice: dict[str, Any] = {"finish_reason": reason, "index": self.index}
        choice |= {"delta": delta} if self.chat else {"text": text, "logprobs": None}
        return {"choices": [choice], **self.head, "object": "chat.completion.chunk" if self.chat else "text_completion"}


def event(content: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
