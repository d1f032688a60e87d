"""What is proposed: the models whose cards are shipped, the more accurate first. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.draft.shipped import Shipped
from stoker.spec.settings import HubModel

#: Chat models by the repository of their card: the name under which one is served, and the contexts to try, the most wished for first.
_CHAT = (
    ("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", "qwen2.5-14b", (16384, 8192, 4096, 2048)),
    ("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", "llama3.1-8b", (8192, 4096, 2048)),
    ("Qwen/Qwen3-4B", "qwen3-4b", (8192, 4096, 2048)),
)

#: Requests at once (max-num-seqs) to try with each context.
REQUESTS = (32, 16, 8, 4)

EMBEDDING = "bge-m3"


@dataclass(frozen=True)
class Offer:
    """A chat model for vLLM."""

    name: str
    model: HubModel
    lengths: tuple[int, ...]


def chat_offers(shipped: Shipped) -> list[Offer]:
    """Those that have a card: without one nobody knows whether they fit."""
    found = []
    for repository, name, lengths in _CHAT:
        model = shipped.hub(repository.partition("/")[2])
        if model is not None and repository in shipped.cards.hub:
            found.append(Offer(name, model, lengths))
    return found
