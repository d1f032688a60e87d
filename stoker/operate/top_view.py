"""Cards and containers as lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from stoker.operate.top import HostTop, Process


def lines(hosts: Sequence[HostTop], width: int | None = None) -> list[Text]:
    """Cards and containers of each host. ``width`` is not needed: a terminal's own end cuts names of processes."""
    found: list[Text] = []
    names = max((len(use.name) for host in hosts for use in host.containers), default=0)
    models = max((len(card.name) for host in hosts for card in host.cards), default=0)
    for host in hosts:
        found.append(Text.assemble((host.host, "bold"), *([("  " + host.error, "red")] if host.error else [])))
        for card in host.cards:
            busy = _of(card.utilization_percent, "%", 3)
            memory = f"{_gib(card.memory_used_mib):>5} of {_gib(card.memory_total_mib)} GiB"
            power = f"{_of(card.power_watts, '', 3)} of {_of(card.power_limit_watts, 'W', 0)}"
            owners = ", ".join(map(_process, card.processes)) or "nobody"
            found.append(
                Text(
                    f"  GPU {card.index}  {card.name:<{models}}  {busy}  {memory}  {_of(card.temperature_celsius, '°C', 3)}  {power}  {owners}"
                )
            )
        for use in host.containers:
            memory = "?" if use.memory_mib is None else f"{use.memory_mib:,.0f}"
            found.append(Text(f"  {use.name:<{names}}  CPU {_of(use.cpu_percent, '%', 5)}  memory {memory:>8} MiB"))
    return found


def _of(value: float | None, unit: str, width: int) -> str:
    return f"{'?' if value is None else f'{value:.0f}':>{width}}{' ' if unit else ''}{unit}"


def _gib(mib: float | None) -> str:
    return "?" if mib is None else f"{mib / 1024:.1f}"


def _process(one: Process) -> str:
    who = one.instance or f"{one.name} (process {one.pid})"
    return who if one.memory_mib is None else f"{who} {one.memory_mib / 1024:.1f}"
