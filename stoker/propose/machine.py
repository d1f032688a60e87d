"""A host for which a fleet is proposed, and what its cards hold by the memory plan. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stoker.draft.cards import HostCards
from stoker.draft.gateways import word
from stoker.draft.shipped import Shipped
from stoker.facts.state import HostState
from stoker.models.card import OllamaCard
from stoker.plan.compatibility import Question, answers
from stoker.plan.memory.card import OVERHEAD
from stoker.plan.memory_plan import VISIBLE, plan_host
from stoker.plan.memory_view import level
from stoker.propose.offers import EMBEDDING, REQUESTS, Offer
from stoker.spec.fleet import Host
from stoker.spec.instance import Instance
from stoker.spec.settings import AnyModel, Settings
from stoker.spec.stack import Stack
from stoker.spec.vllm import Argument

#: What vLLM's instances on a card take of it together at most: what one takes by itself (v0.19.1).
_MOST = 0.9

#: Compute capability from which on cards have bfloat16.
_BFLOAT16 = (8, 0)

_MIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """A host: its address, what the inventory says of it alone, its cards. ``state`` None: nobody has looked."""

    address: str
    cards: HostCards
    data: Mapping[str, object] = field(default_factory=dict)
    state: HostState | None = None

    @property
    def seen(self) -> HostState:
        return self.state or self.cards.state()

    def runs(self, engine: str, shipped: Shipped) -> bool:
        """Whether nothing that is known of image, card and driver speaks against it."""
        question = Question(
            engine=engine,
            image=shipped.versions.of(engine),
            card=self.cards.kind.card,
            compute_capability=self.cards.kind.capability,
            driver=self.seen.driver,
            kernel_module=self.seen.kernel_module,
        )
        return all(answer.verdict != "refuse" for answer in answers(question))

    def holds(self, instances: Sequence[Instance], models: Mapping[str, AnyModel], shipped: Shipped) -> bool:
        """Whether the memory plan of these instances, and no others, is without a warning."""
        stack = Stack(project="trial", compose_file="trial.yaml", model_directory="/data", instances=tuple(instances))
        settings = Settings(versions=shipped.versions, models=dict(models))
        host = Host(self.address, self.address, self.cards.hardware, (stack,), settings)
        return level([plan_host(host, shipped.cards, self.state)]) == "fit"

    def embedding(self, gpu: int, port: int) -> Instance:
        return Instance(
            name=f"ollama_bge_{gpu}",
            engine="ollama",
            model=EMBEDDING,
            gpus=(gpu,),
            port=port,
            # One model, kept on the card: the first request of the day is as fast as the others.
            environment={"OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_KEEP_ALIVE": "-1"},
        )

    def arguments(
        self, offer: Offer, parts: int, copies: int, beside: bool, shipped: Shipped
    ) -> dict[str, Argument] | None:
        """vLLM's, for so many copies on a card (or one over several), with the longest context and then the most requests that fit.

        ``beside``: with an embedding instance on the card. None: it does not fit.
        """
        models = {offer.name: offer.model, EMBEDDING: shipped.models[EMBEDDING]}
        others = [self.embedding(0, 65535)] if beside else []
        share = self._share(copies, others, shipped)
        for length, requests in itertools.product(offer.lengths, REQUESTS) if share > 0 else ():
            found: dict[str, Argument] = {"dtype": "half"} if self.cards.kind.capability < _BFLOAT16 else {}
            found |= {"gpu-memory-utilization": share, "max-model-len": length, "max-num-seqs": requests}
            if parts > 1:
                found["tensor-parallel-size"] = parts
            if self.holds([*chat(offer, range(parts), copies, found), *others], models, shipped):
                return found
        return None

    def _share(self, copies: int, beside: Sequence[Instance], shipped: Shipped) -> float:
        """Of the card for each, so that CUDA itself and the neighbours find their part."""
        total = min(round(gpu.memory_mib * _MIB * VISIBLE) for gpu in self.seen.gpus)
        card = shipped.cards.of(shipped.models[EMBEDDING])
        fixed = len(beside) * card.estimate.high if isinstance(card, OllamaCard) else 0
        free = min(_MOST, (total - copies * OVERHEAD - fixed) / total)
        return math.floor(100 * free / copies) / 100


def chat(offer: Offer, gpus: Sequence[int], copies: int, arguments: Mapping[str, Argument]) -> tuple[Instance, ...]:
    """Instances on the same cards. Their ports are settled when all of a host are known."""
    return tuple(
        Instance(
            name=_name(offer, gpus, copies, number),
            engine="vllm",
            model=offer.name,
            gpus=tuple(gpus),
            port=1 + number,
            arguments=dict(arguments),
        )
        for number in range(copies)
    )


def _name(offer: Offer, gpus: Sequence[int], copies: int, number: int) -> str:
    """As in the default fleet: ``vllm_llama_gpu0_1``, ``vllm_qwen_gpu2``."""
    cards = "-".join(map(str, gpus))
    return f"vllm_{word(offer.name)}_gpu{cards}" + (f"_{number}" if copies > 1 else "")
