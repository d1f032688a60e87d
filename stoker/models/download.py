"""How much a model is to download, from its card."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from stoker.models.card import Cards, ModelCard, OllamaCard, mismatch
from stoker.models.gguf import parts_of
from stoker.models.weights import UnknownSize, loaded_files, of_card
from stoker.spec.settings import AnyModel, HubModel


@dataclass(frozen=True)
class Download:
    """``sure``: at least that much, by the sizes of the very files; else computed, or of another revision."""

    bytes: int
    sure: bool


def is_wanted(path: str, model: HubModel) -> bool:
    """Whether a file of the repository is downloaded."""
    if model.file:
        return fnmatch.fnmatch(path, parts_of(model.file))
    return not any(fnmatch.fnmatch(path, pattern) for pattern in model.exclude)


def download_of(model: AnyModel, cards: Cards) -> Download | None:
    """None: there is no card, or it tells no size. The lab's stand-ins for weights simulate a size that nobody downloads."""
    card = cards.of(model)
    if isinstance(card, OllamaCard):
        return Download(card.size, True)
    if not isinstance(card, ModelCard) or not isinstance(model, HubModel):
        return None
    sizes = {path: size for path, size in card.sizes.items() if is_wanted(path, model)}
    known = sum(size for size in sizes.values() if size is not None)
    weights = list(sizes) if model.file else loaded_files(sizes)
    if weights and all(sizes[path] is not None for path in weights):
        return Download(known, mismatch(card, model) is None)
    if card.simulated_weights is not None:
        return None
    try:
        return Download(known + of_card(card).bytes, False)
    except UnknownSize:
        return None
