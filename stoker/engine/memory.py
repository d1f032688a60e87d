"""What a loaded model takes of a card in engines that take what they need, instead of a share of the card. Bytes; estimates."""

from __future__ import annotations

from stoker.models.card import ModelCard
from stoker.models.gguf import names_of
from stoker.plan.memory.layout import Layout, layout_of
from stoker.plan.memory.predict import GIB

#: A program's CUDA context, and what its libraries reserve: 0.3 to 0.6 GiB (as in plan/memory/card.py; not measured on a V100).
CONTEXT_LOW, CONTEXT_HIGH = round(0.3 * GIB), round(0.6 * GIB)


def gguf_bytes(card: ModelCard, file: str) -> int:
    """The weights in GGUF lie on the card as they are in the file. Raises ValueError where the card does not know the file."""
    if card.simulated_weights is not None:
        return card.simulated_weights
    sizes = [card.files[name].size if name in card.files else None for name in names_of(file)]
    if None in sizes:
        raise ValueError(f"the card of {card.repository} does not tell the size of {file}")
    return sum(size for size in sizes if size is not None)


def layout(card: ModelCard) -> Layout:
    """Raises ValueError (UnknownLayout among them) where the card's configuration does not tell."""
    if not card.config:
        raise ValueError(
            f"the card of {card.repository} has no configuration of the model, so its cache cannot be counted"
        )
    return layout_of(card.config)


def cache_bytes(known: Layout, tokens: int, value_bytes: int = 2) -> int:
    """Keys and values of so many tokens; sliding layers keep their window only. Raises ValueError for a latent cache."""
    if known.kind == "latent":
        raise ValueError("how a latent cache is kept is not computed here")
    if known.kind == "none":
        return 0
    kept = sum(tokens if window is None else min(window, tokens) for window in known.windows)
    return 2 * known.kv_heads * known.head_size * value_bytes * kept
