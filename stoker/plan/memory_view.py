"""The memory plan for people, a bar for each card, and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rich.markup import escape

from stoker.plan.memory.verdict import Finding, Verdict, gib
from stoker.plan.memory_plan import CardPlan, HostPlan, InstancePlan
from stoker.plan.read_back import Measured, gap, sentence

BAR = 40

_COLOURS = {"fit": "green", "warn": "yellow", "refuse": "red"}


def level(plans: Sequence[HostPlan]) -> str:
    """The worst verdict of all: fit, warn or refuse; a plan with an unknown instance is a warning."""
    found = {verdict.level for plan in plans for verdict in _verdicts(plan)}
    unknown = any(one.unknown for plan in plans for one in plan.instances)
    return "refuse" if "refuse" in found else "warn" if "warn" in found or unknown else "fit"


def _verdicts(plan: HostPlan) -> Iterator[Verdict]:
    yield from (one.verdict for one in plan.instances if one.verdict)
    yield from (card.verdict for card in plan.cards)


def lines(plan: HostPlan, logged: Mapping[str, Measured]) -> Iterator[str]:
    """One host, as rich's markup."""
    yield f"[bold]{escape(plan.host)}[/]"
    by_name = {one.name: one for one in plan.instances}
    told: set[str] = set()
    for card in plan.cards:
        size = "found there" if card.measured else "as described"
        yield f"  [bold]{escape(card.label)}[/]  {escape(card.name)}, {gib(card.sum.total)} for programs ({size})"
        yield f"    {_bar(card)}"
        for alike in _alike([by_name[use.instance.name] for use in card.sum.instances]):
            yield from _instances(alike, logged, alike[0].name in told)
            told |= {one.name for one in alike}
        for use in card.sum.fixed:
            yield f"    {escape(use.name)}  {escape(by_name[use.name].model)}: up to {gib(use.bytes)}, an estimate"
        for name in card.unknown:
            yield from _unknown(by_name[name])
        yield from _findings(card.verdict.findings)
    on_cards = {name for card in plan.cards for name in card.unknown}
    for one in plan.instances:
        if one.unknown and one.name not in on_cards:  # none of its cards is there
            yield from _unknown(one)
    for name, why in plan.not_applicable.items():
        yield f"  {escape(name)}: {escape(why)}"


def _unknown(one: InstancePlan) -> Iterator[str]:
    yield f"    [yellow]{escape(one.name)}[/]  {escape(one.model)}: {escape(one.unknown)}"
    yield f"      to do: {escape(one.remedy)}"


def _bar(card: CardPlan) -> str:
    """Weights, KV cache, and the rest of what is claimed, against the whole card."""
    total = max(card.sum.total, 1)
    weights = sum(one.weights for one in card.sum.instances) + card.sum.fixed_bytes
    cache = sum(one.blocks * one.pool.block_bytes for one in card.sum.instances)
    rest = max(card.sum.claimed + card.sum.fixed_bytes - weights - cache, 0) + card.sum.overhead
    cells, used, drawn = "", 0, 0
    for size, sign in ((weights, "█"), (cache, "▓"), (rest, "▒")):
        used += size
        until = min(round(BAR * used / total), BAR)
        cells += sign * max(until - drawn, 0)
        drawn = max(until, drawn)
    colour = _COLOURS[card.verdict.level]
    free = f"{gib(card.sum.leftover)} free" if card.sum.leftover >= 0 else f"{gib(-card.sum.leftover)} too much"
    return f"[{colour}]{cells}{'░' * (BAR - drawn)}[/] █ weights {gib(weights)}  ▓ KV cache {gib(cache)}  ▒ other {gib(rest)}  ░ {free}"


def _alike(plans: Sequence[InstancePlan]) -> list[list[InstancePlan]]:
    """Instances that differ in nothing but their names are told of once."""
    groups: list[list[InstancePlan]] = []
    for one in plans:
        same = [group for group in groups if _nameless(group[0]) == _nameless(one)]
        if same:
            same[0].append(one)
        else:
            groups.append([one])
    return groups


def _nameless(one: InstancePlan) -> object:
    prediction = one.prediction and replace(one.prediction, instance=replace(one.prediction.instance, name=""))
    return one.model, one.gpus, prediction, one.weights, one.doubt


def _instances(alike: Sequence[InstancePlan], logged: Mapping[str, Measured], again: bool) -> Iterator[str]:
    one = alike[0]
    name = escape(", ".join(each.name for each in alike))
    prediction, verdict = one.prediction, one.verdict
    assert prediction is not None
    assert verdict is not None
    word = f"[{_COLOURS[verdict.level]}]{verdict.level}[/]"
    if again:  # it stands on several cards, and was told of at the first
        yield f"    {name}  {escape(one.model)}: its part of {gib(prediction.claim)}"
        return
    cache = "no KV cache"
    if prediction.concurrency is not None:
        length = prediction.instance.max_model_len
        cache = (
            f"KV cache {gib(prediction.available)} = {prediction.tokens:,} tokens of {prediction.pool.bytes_per_token / 1024:g} KiB, "
            f"{prediction.concurrency:.2f}x at {length:,}"
        )
    yield f"    {name}  {escape(one.model)}: {word}" + (", each" if len(alike) > 1 else "")
    source = one.weights.source if one.weights else ""
    yield (
        f"      {prediction.instance.utilization:g} of the card = {gib(prediction.requested)}; weights {gib(prediction.weights)} "
        f"({escape(source)}); to compute about {gib(prediction.other)}; {cache}"
    )
    if one.doubt:
        yield f"      [dim]{escape(one.doubt)}[/]"
    for each in alike:
        if each.name in logged and (compared := sentence(f"log of {each.name}", prediction, logged[each.name])):
            small, words = compared
            yield f"      [{'green' if small else 'yellow'}]{escape(words)}[/]"
    yield from _findings(verdict.findings)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"      [{_COLOURS[finding.level]}]{finding.level}[/]: {escape(finding.text)}"
        if finding.remedies:
            yield f"        what would fit: {escape(' or '.join(finding.remedies))}"


def as_data(plan: HostPlan, logged: Mapping[str, Measured]) -> dict[str, object]:
    """One host for --json; sizes in bytes."""
    return {
        "host": plan.host,
        "instances": [_instance_data(one, logged.get(one.name)) for one in plan.instances],
        "cards": [
            {
                "gpu": card.label,
                "name": card.name,
                "measured": card.measured,
                "total": card.sum.total,
                "claimed": card.sum.claimed + card.sum.fixed_bytes,
                "overhead": card.sum.overhead,
                "leftover": card.sum.leftover,
                "verdict": card.verdict.level,
                "findings": _findings_data(card.verdict.findings),
            }
            for card in plan.cards
        ],
        "not_applicable": dict(plan.not_applicable),
    }


def _instance_data(one: InstancePlan, measured: Measured | None) -> dict[str, object]:
    data: dict[str, object] = {"name": one.name, "model": one.model, "gpus": list(one.gpus)}
    if one.unknown:
        return data | {"verdict": "unknown", "why": one.unknown, "remedy": one.remedy}
    weights = {"weights": one.weights.bytes, "source": one.weights.source} if one.weights else {}
    if one.fixed:
        return data | weights | {"estimate": one.fixed.bytes, "verdict": "fit"}
    prediction, verdict = one.prediction, one.verdict
    assert prediction is not None
    assert verdict is not None
    found: dict[str, object] = {
        "utilization": prediction.instance.utilization,
        "requested": prediction.requested,
        "weights_on_a_card": prediction.weights,
        "other": prediction.other,
        "available": prediction.available,
        "kv_bytes_per_token": prediction.pool.bytes_per_token,
        "blocks": prediction.blocks,
        "tokens": prediction.tokens,
        "max_model_len": prediction.instance.max_model_len,
        "concurrency": prediction.concurrency,
        "longest_max_model_len": prediction.longest,
        "verdict": verdict.level,
        "findings": _findings_data(verdict.findings),
        "doubt": one.doubt,
    }
    if measured:
        found["measured"] = {
            "tokens": measured.tokens,
            "concurrency": measured.concurrency,
            "available_gib": measured.available_gib,
            "gap": gap(prediction, measured),
        }
    return data | weights | found


def _findings_data(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [{"level": one.level, "text": one.text, "remedies": list(one.remedies)} for one in findings]
