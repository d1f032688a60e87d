"""The memory plan of a host: what each instance will take of its cards, and what that leaves. Pure.

Without a host's state the cards are those that group_data describes; with it those that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stoker.engine.registry import engine_of
from stoker.facts.identity import by_name
from stoker.facts.manifest import is_complete
from stoker.facts.state import HostState
from stoker.models.card import Cards, ModelCard, OllamaCard, mismatch
from stoker.models.weights import FLOAT_BYTES, UnknownSize, Weights, of_card, of_files
from stoker.plan import local_models
from stoker.plan.compatibility import engine_version
from stoker.plan.memory.card import CardSum, FixedUse, card_sum
from stoker.plan.memory.kv_cache import DEFAULT_BLOCK_SIZE, CacheSettings, version_of
from stoker.plan.memory.layout import UnknownLayout, attention_heads, layout_of
from stoker.plan.memory.limits import limits
from stoker.plan.memory.predict import GIB, InstanceMemory, Prediction, predict
from stoker.plan.memory.verdict import Verdict, judge_card, judge_instance
from stoker.spec.fleet import Host
from stoker.spec.gpu_name import GpuName, label
from stoker.spec.instance import Instance
from stoker.spec.settings import FilesModel, HubModel, LocalModel, OllamaModel

#: What a CUDA program sees of the memory that nvidia-smi prints: 31.73 of 32 GiB on a V100, 23.87 of 24 on a P40, 23.68 of 24 on an
#: RTX 3090 (torch's messages in public reports). The least of these, rounded.
VISIBLE = 0.99

_MIB = 1 << 20


@dataclass(frozen=True)
class InstancePlan:
    """One instance. Either ``prediction`` or ``fixed`` is there, or ``unknown`` says why nothing can be said."""

    name: str
    model: str
    gpus: tuple[GpuName, ...]
    weights: Weights | None = None
    prediction: Prediction | None = None
    fixed: FixedUse | None = None
    verdict: Verdict | None = None
    unknown: str = ""
    remedy: str = ""
    #: Why the card may describe another revision than the one that is served.
    doubt: str = ""


@dataclass(frozen=True)
class CardPlan:
    """One card and all that is described on it. ``measured``: the host was asked; else group_data was believed."""

    label: str
    name: str
    measured: bool
    sum: CardSum
    verdict: Verdict
    #: Instances on it of which nothing can be said.
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostPlan:
    """All instances and cards of one host. ``not_applicable``: instances that use no card, and why."""

    host: str
    instances: tuple[InstancePlan, ...]
    cards: tuple[CardPlan, ...]
    not_applicable: Mapping[str, str]


@dataclass(frozen=True)
class _Gpu:
    key: GpuName
    label: str
    name: str
    total: int
    measured: bool


def plan_host(host: Host, known: Cards, state: HostState | None = None) -> HostPlan:
    """What will lie on each card of a host."""
    gpus = _gpus(host, state)
    instances: list[InstancePlan] = []
    on_card: dict[GpuName, tuple[_Gpu, list[InstancePlan]]] = {}
    not_applicable: dict[str, str] = {}
    for _, instance in host.instances():
        profile = host.profile_of(instance)
        if not profile.uses_cards:
            not_applicable[instance.name] = profile.not_applicable
            continue
        mine = [gpus[name] for name in instance.gpus if name in gpus]
        least = min((gpu.total for gpu in mine), default=0)
        plan = _instance(host, instance, known, state, least)
        instances.append(plan)
        for gpu in mine:
            on_card.setdefault(gpu.key, (gpu, []))[1].append(plan)
    cards = [_card(gpu, plans) for gpu, plans in on_card.values()]
    return HostPlan(host.name, tuple(instances), tuple(cards), not_applicable)


def _gpus(host: Host, state: HostState | None) -> dict[GpuName, _Gpu]:
    """Every name of a card -> the card."""
    if state is not None and state.gpus:
        return {
            name: _Gpu(gpu.uuid, f"GPU {gpu.index}", gpu.name, round(gpu.memory_mib * _MIB * VISIBLE), True)
            for name, gpu in by_name(state).items()
        }
    if host.gpus is None:
        return {}
    total = round(host.gpus.memory_gib * 1024 * _MIB * VISIBLE)
    names = {name for _, instance in host.instances() for name in instance.gpus}
    return {name: _Gpu(name, label(name), host.gpus.card, total, False) for name in names}


def _card(gpu: _Gpu, plans: list[InstancePlan]) -> CardPlan:
    predictions = [plan.prediction for plan in plans if plan.prediction]
    fixed = [plan.fixed for plan in plans if plan.fixed]
    return CardPlan(
        gpu.label,
        gpu.name,
        gpu.measured,
        card_sum(gpu.total, predictions, fixed),
        judge_card(gpu.label, gpu.total, predictions, fixed),
        tuple(plan.name for plan in plans if plan.unknown),
    )


def _instance(host: Host, instance: Instance, known: Cards, state: HostState | None, total: int) -> InstancePlan:
    model = host.model_of(instance)
    card = known.of(model)
    if card is None and isinstance(model, LocalModel) and state is not None:
        card = local_models.card(local_models.directory_of(host, instance, model), state)

    def unknown(why: str, remedy: str) -> InstancePlan:
        return InstancePlan(instance.name, instance.model, instance.gpus, unknown=why, remedy=remedy)

    if not total:
        return unknown("none of its cards is there, or it does not tell its memory", "see the check of the cards")
    if isinstance(card, OllamaCard):
        use = FixedUse(instance.name, card.estimate.high, card.estimate.low)
        weights = Weights(card.size, card.source.size)
        return InstancePlan(instance.name, instance.model, instance.gpus, weights=weights, fixed=use)
    if isinstance(model, OllamaModel):
        return unknown(f"there is no card of {model.library}", "write one into group_data/cards, see docs/plan.md")
    if card is None:
        if isinstance(model, LocalModel):
            return unknown(
                f"the directory {model.directory} was not looked at yet", "see the check of the model's files"
            )
        file = f"group_data/cards/{model.repository.replace('/', '--')}.json"
        return unknown(
            f"there is no card of {model.repository}", f"stoker models describe {model.repository} --output {file}"
        )
    engine = engine_of(instance.engine)
    by_card = engine.memory
    if by_card is None and not engine.has_vllm_memory:
        share = engine.share(instance.arguments)
        if not share:
            return unknown(
                f"what {engine.title} takes is not known", "watch its first start; the engine's log says what it takes"
            )
        return InstancePlan(
            instance.name, instance.model, instance.gpus, fixed=FixedUse(instance.name, round(share * total))
        )
    if by_card is not None:
        try:
            return InstancePlan(
                instance.name, instance.model, instance.gpus, fixed=by_card(instance, card, model.file or "")
            )
        except (UnknownSize, UnknownLayout, ValueError) as error:
            return unknown(str(error), "watch its first start; the engine's log says what it takes")
    try:
        weights = _weights(host, instance, model, card, state)
        memory = instance_memory(instance, host.image_of(instance), card, weights.bytes)
        heads = attention_heads(card.config)
    except (UnknownSize, UnknownLayout, ValueError) as error:
        return unknown(str(error), "watch its first start; the engine's log says what it takes")
    prediction = predict(memory, total)
    refused = tuple(limits(prediction, heads, _longer_allowed(instance)))
    return InstancePlan(
        instance.name,
        instance.model,
        instance.gpus,
        weights,
        prediction,
        verdict=Verdict(instance.name, refused) if refused else judge_instance(prediction),
        doubt=(mismatch(card, model) or "") if isinstance(model, HubModel) else "",
    )


def _longer_allowed(instance: Instance) -> bool:
    """Whether vLLM does not hold an instance to the context of the model's configuration, or is given another configuration."""
    said = instance.environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "")
    return said in ("1", "true", "True") or any(name.partition(".")[0] == "hf-overrides" for name in instance.arguments)


def _weights(host: Host, instance: Instance, model: FilesModel, card: ModelCard, state: HostState | None) -> Weights:
    """By the files on the host where they are complete; else by the card. In the lab the card says what is simulated."""
    loaded = FLOAT_BYTES.get(str(instance.arguments.get("dtype") or "auto"), 2)
    stack = next(stack for stack, one in host.instances() if one.name == instance.name)
    directory = f"{stack.model_directory}/{model.directory}"
    if (
        state is not None
        and card.simulated_weights is None
        and isinstance(model, HubModel)
        and is_complete(directory, model, state)
    ):
        found = of_files(state.model_files[directory], card.config, loaded)
        return Weights(found.bytes, f"{found.source} on the host")
    return of_card(card, loaded)


def instance_memory(instance: Instance, image: str, card: ModelCard, weights_bytes: int) -> InstanceMemory:
    """An instance's arguments and its model's card as what the arithmetic asks for, with vLLM's defaults. Raises ValueError."""
    layout = layout_of(card.config)
    version = version_of(engine_version(image, "vllm").version)
    given = instance.arguments
    if given.get("quantization") and not card.config.get("quantization_config"):
        raise ValueError(
            f"quantization = {given['quantization']!r} makes weights smaller while they are loaded; how small is not computed here"
        )
    if given.get("offload-group-size"):
        raise ValueError("how much of the weights offload-group-size leaves on the card is not computed here")
    shortens = str(given.get("max-model-len")).strip().lower() in ("auto", "-1")
    length = layout.positions if shortens else _number(given, "max-model-len", layout.positions)
    if length is None:
        raise ValueError("neither max-model-len nor the model's configuration says how long its context is")
    dtype = str(given.get("dtype") or "auto")
    return InstanceMemory(
        name=instance.name,
        layout=layout,
        weights_bytes=weights_bytes,
        shortens=shortens,
        offloaded_bytes=_gibibytes(given.get("cpu-offload-gb")),
        max_model_len=length,
        settings=CacheSettings(
            version=version,
            max_num_batched_tokens=_number(given, "max-num-batched-tokens", 2048) or 2048,
            block_size=_number(given, "block-size", DEFAULT_BLOCK_SIZE) or DEFAULT_BLOCK_SIZE,
            dtype=dtype,
            kv_cache_dtype=str(given.get("kv-cache-dtype") or "auto"),
            tensor_parallel=_number(given, "tensor-parallel-size", 1) or 1,
            pipeline_parallel=_number(given, "pipeline-parallel-size", 1) or 1,
            decode_context_parallel=_number(given, "decode-context-parallel-size", 1) or 1,
            hybrid=not given.get("disable-hybrid-kv-cache-manager"),
        ),
        utilization=_share(given.get("gpu-memory-utilization"), version),
        max_num_seqs=_number(given, "max-num-seqs", 256) or 256,
        enforce_eager=bool(given.get("enforce-eager")),
        kv_cache_memory_bytes=_number(given, "kv-cache-memory-bytes", None),
        num_gpu_blocks_override=_number(given, "num-gpu-blocks-override", None),
    )


def _gibibytes(given: object) -> int:
    """vLLM calls them GB and counts GiB (cpu_offload_gb: "the space in GiB to offload to CPU, per GPU")."""
    return round(given * GIB) if isinstance(given, int | float) and given > 0 else 0


def _share(given: object, version: tuple[int, int]) -> float:
    """vLLM's default is 0.9 in 0.19.1 and 0.92 in 0.33 (its released wheels); where between them it changed is not known."""
    return float(given) if isinstance(given, int | float) else 0.92 if version >= (0, 33) else 0.9


_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _number(given: Mapping[str, object], name: str, default: int | None) -> int | None:
    """A count as vLLM's parser reads it: 8192, "8k" is 8000 and "8K" 8192 (v0.19.1, ``human_readable_int``)."""
    value = given.get(name)
    if value is None:
        return default
    text = str(value)
    head, suffix = (text[:-1], text[-1]) if text[-1:].isalpha() else (text, "")
    try:
        number = int(float(head) * _SUFFIXES[suffix])
    except (ValueError, KeyError, OverflowError):
        number = 0
    if number < 1:
        raise ValueError(f"{name} = {value!r} is no number that the plan can count with")
    return number
