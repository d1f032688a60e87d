"""The proposal: chat where vLLM runs, embeddings on the other cards, one gateway to all of it. Pure; the same cards give the same fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stoker.draft.draft import Draft, Group, named_apart
from stoker.draft.gateways import networks_of, pools_of
from stoker.draft.shipped import Shipped
from stoker.propose.machine import Machine, chat
from stoker.propose.offers import EMBEDDING, Offer, chat_offers
from stoker.spec.gateway import Gateway, Kind
from stoker.spec.instance import Instance
from stoker.spec.settings import AnyModel
from stoker.spec.stack import Stack

GATEWAY_PORT = 11436
_CHAT_PORT, _EMBEDDING_PORT = 11401, 11434


class NoProposal(Exception):
    """Nothing fits: why, and what to do."""


@dataclass(frozen=True)
class Proposal:
    """A fleet, and what a person should know of it."""

    draft: Draft
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Use:
    """What goes onto a machine."""

    machine: Machine
    chat: tuple[Instance, ...] = ()
    embedding: tuple[Instance, ...] = ()


def propose(machines: Sequence[Machine], shipped: Shipped) -> Proposal:
    """Raises NoProposal."""
    offers = chat_offers(shipped)
    notes: list[str] = []
    chatting = [
        machine for machine in machines if machine.runs("vllm", shipped) and _layout(machine, offers, False, shipped)
    ]
    others = [machine for machine in machines if machine not in chatting]
    embedding = {machine.address: found for machine in others if (found := _embeddings(machine, shipped))}
    shared = chatting[-1] if chatting and not embedding else None
    uses = []
    for machine in machines:
        if machine in chatting:
            uses.append(_chat_use(machine, offers, shipped, machine is shared, notes))
        elif machine.address in embedding:
            uses.append(_Use(machine, embedding=embedding[machine.address]))
        else:
            notes.append(_unused(machine, shipped))
    if not uses:
        raise NoProposal("\n".join(["none of these hosts can serve one of the shipped models", *notes]))
    if not chatting:
        notes.append(
            "no host has cards for vLLM (compute capability 7.0 or newer, 12 GiB or more), so no chat model is proposed"
        )
    if others and chatting and embedding:
        notes.append(
            f"embeddings on {', '.join(embedding)}: vLLM does not run on those cards, or no chat model fits there"
        )
    models = _models(uses, offers, shipped)
    return Proposal(Draft(_groups(uses, models), models), tuple(notes))


def _unused(machine: Machine, shipped: Shipped) -> str:
    runs = machine.runs("vllm", shipped) or machine.runs("ollama", shipped)
    why = (
        "no shipped model fits into its cards"
        if runs
        else "no engine of the pinned versions runs on its cards with this driver"
    )
    return f"{machine.address} ({machine.cards.words}) is not used: {why}"


def _embeddings(machine: Machine, shipped: Shipped) -> tuple[Instance, ...]:
    """One on each card."""
    if not machine.runs("ollama", shipped):
        return ()
    found = tuple(machine.embedding(gpu, _EMBEDDING_PORT) for gpu in range(machine.cards.count))
    models = {EMBEDDING: shipped.models[EMBEDDING]}
    return found if machine.holds(found, models, shipped) else ()


def _chat_use(machine: Machine, offers: Sequence[Offer], shipped: Shipped, shared: bool, notes: list[str]) -> _Use:
    """Chat on all cards; where embeddings have no host of their own, one instance beside it on the last card."""
    if shared and machine.runs("ollama", shipped):
        last = machine.cards.count - 1
        embedding = machine.embedding(last, _EMBEDDING_PORT)
        found = _layout(machine, offers, True, shipped)
        if found:
            return _Use(machine, found, (embedding,))
        notes.append(f"no embeddings: beside a chat model there is no room for {EMBEDDING} on {machine.address}")
    return _Use(machine, _layout(machine, offers, False, shipped))


def _layout(machine: Machine, offers: Sequence[Offer], beside: bool, shipped: Shipped) -> tuple[Instance, ...]:
    """The most accurate model that fits on the last card, the next that is faster on the others, two on a card where they fit.

    With more than two cards a model may be spread over the last two. ``beside``: the last card holds an embedding model too.
    Empty: nothing fits.
    """
    count = machine.cards.count
    for place, offer in enumerate(offers):
        for parts in (1, 2) if count > 2 else (1,):
            arguments = machine.arguments(offer, parts, 1, beside, shipped)
            if arguments is None:
                continue
            accurate = chat(offer, range(count - parts, count), 1, arguments)
            others = _fast(machine, range(count - parts), [*offers[place + 1 :], offer], shipped)
            return (*others, *accurate)
    return ()


def _fast(machine: Machine, gpus: Sequence[int], offers: Sequence[Offer], shipped: Shipped) -> list[Instance]:
    """The first model that fits on a card by itself, on each of these cards."""
    for offer in offers if gpus else ():
        for copies in (2, 1):
            arguments = machine.arguments(offer, 1, copies, False, shipped)
            if arguments is not None:
                return [one for gpu in gpus for one in chat(offer, [gpu], copies, arguments)]
    return []


def _models(uses: Sequence[_Use], offers: Sequence[Offer], shipped: Shipped) -> dict[str, AnyModel]:
    served = {instance.model for use in uses for instance in (*use.chat, *use.embedding)}
    models: dict[str, AnyModel] = {offer.name: offer.model for offer in offers if offer.name in served}
    return models | ({EMBEDDING: shipped.models[EMBEDDING]} if EMBEDDING in served else {})


def _groups(uses: Sequence[_Use], models: Mapping[str, AnyModel]) -> tuple[Group, ...]:
    """Machines with the same cards and stacks share a group. The gateway is on the first that has embeddings, else on the first."""
    entry = next((use for use in uses if use.embedding), uses[0])
    pools = pools_of(_served(uses))
    groups: list[Group] = []
    for use in uses:
        gateway = None
        if use is entry:
            gateway = Gateway(
                container="stoker_gateway",
                service="gateway",
                port=GATEWAY_PORT,
                config_file="nginx.conf",
                pools=pools,
                allowed_networks=networks_of(use.machine.address),
            )
        stacks, hardware = tuple(_stacks(use, gateway)), use.machine.cards.hardware
        hosts = {use.machine.address: use.machine.data}
        same = [place for place, group in enumerate(groups) if (group.stacks, group.gpus) == (stacks, hardware)]
        if same:
            old = groups[same[0]]
            groups[same[0]] = Group(old.name, old.about, {**old.hosts, **hosts}, hardware, stacks)
            continue
        name = "serving" if use.chat and use.embedding else "llm" if use.chat else "embedding"
        groups.append(Group(name, f"{_about(use)}; proposed for {use.machine.cards.words}.", hosts, hardware, stacks))
    return named_apart(groups)


def _about(use: _Use) -> str:
    names = [*dict.fromkeys(instance.model for instance in (*use.chat, *use.embedding))]
    return f"Serves {' and '.join(names)}"


def _served(uses: Sequence[_Use]) -> list[tuple[str, Kind]]:
    """Embeddings first; of the chat models that one first of which there is most, so that it is the default."""
    count: dict[str, int] = {}
    for use in uses:
        for instance in use.chat:
            count[instance.model] = count.get(instance.model, 0) + 1
    served: list[tuple[str, Kind]] = [(EMBEDDING, "embeddings")] if any(use.embedding for use in uses) else []
    served += [(model, "chat") for model in sorted(count, key=lambda model: -count[model])]
    return served


def _stacks(use: _Use, gateway: Gateway | None) -> Iterator[Stack]:
    """The gateway stands in the host's first stack of those that it has."""
    if use.embedding:
        ports = (port for port in range(_EMBEDDING_PORT, 65536) if port != GATEWAY_PORT)
        instances = tuple(one.model_copy(update={"port": next(ports)}) for one in use.embedding)
        yield Stack(
            project="embedding",
            compose_file="embedding.yaml",
            model_directory="/data/ollama_models",
            instances=instances,
            gateway=gateway,
        )
    if use.chat:
        yield Stack(
            project="llm",
            compose_file="llm.yaml",
            model_directory="/data/models",
            instances=tuple(one.model_copy(update={"port": _CHAT_PORT + place}) for place, one in enumerate(use.chat)),
            gateway=None if use.embedding else gateway,
        )
