"""Requests before the checked one: prompts of several lengths, so that no user pays for what an engine prepares at first use.

A CUDA graph, a Triton kernel or a compiled shape that is missing is made by the request that needs it first; and some
engines are well until a long prompt comes (vllm#36802: a T4 whose server died of its first request). The lengths are
facts of the instance, the time they may take is bounded.
"""

from __future__ import annotations

import json
from typing import Final

#: Tokens of the first prompt: above what GPTQ's small kernel takes (50 rows), within one step of any engine.
SHORT: Final = 256

#: Of the longest where nothing is known of the instance: within every default (Ollama's batch is 2048).
UNKNOWN_CONTEXT: Final = 1024

#: Of the longest on a processor, which reads some hundred tokens a second.
WITHOUT_CARD: Final = 512

#: Seconds for a prompt after the first; a longer one is told and not waited for.
LONG_SECONDS: Final = 60

#: Words, figures and signs, as texts have them; about so many tokens in the tokenizers of Llama, Qwen and XLM-RoBERTa.
SENTENCE: Final = "The server answered 200 in 12.5 ms, x = a[i] + 1; the quick brown fox jumps over the lazy dog. "
TOKENS: Final = 34


def prompt_lengths(context: int | None, batch: int, on_cards: bool) -> tuple[int, ...]:
    """Tokens of the prompts, the shortest first. `context` is max_model_len where it is known, `batch` max_num_batched_tokens.

    The longest fills two steps of the engine and at most half the context: how many tokens a text has is only about known.
    """
    longest = min(context // 2, 2 * batch) if context else UNKNOWN_CONTEXT
    if not on_cards:
        longest = min(longest, WITHOUT_CARD)
    return (SHORT, longest) if longest >= 2 * SHORT else (longest,) if longest >= 2 * TOKENS else ()


def sentences(tokens: int) -> int:
    """How often SENTENCE makes about so many tokens."""
    return max(tokens // TOKENS, 1)


def as_json(text: str) -> str:
    """As it stands inside the quotes of a JSON string."""
    return json.dumps(text)[1:-1]
