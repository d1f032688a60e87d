"""The fleet on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.text import Text

from stoker.doctor.look import ago
from stoker.status.data import ContainerStatus, GatewayView, Health, HostStatus, InstanceStatus

_COLOURS: dict[Health, str] = {
    "ready": "green",
    "unproven": "yellow",
    "silent": "yellow",
    "down": "red",
    "stale": "red",
    "unknown": "red",
}

#: A phase's detail may be a sentence.
_STATE_WIDTH = 36


class Row(NamedTuple):
    """The cells of one instance or gateway, in the order of the columns."""

    instance: str
    gpu: str
    model: str
    state: str
    since: str
    memory: str
    requests: str
    cache: str
    tokens: str
    gateway: str
    image: str
    address: str


_HEADS = Row(
    *("INSTANCE", "GPU", "MODEL", "STATE", "SINCE", "GiB/PREDICTED", "RUN+WAIT", "KV", "TOKENS/S", "GATEWAY"),
    *("IMAGE", "ADDRESS"),
)

#: Columns that a narrow terminal does without, the first to go first.
_SPARE = ("address", "image", "model", "gpu", "tokens", "cache", "memory", "requests", "since")


def lines(hosts: Sequence[HostStatus], width: int | None = None) -> list[Text]:
    """A heading and a table for each host, what is wrong there, and the sum. ``width``: None for as wide as it needs."""
    rows = {host.host: [*map(_instance, host.instances), *_gateways(host)] for host in hosts}
    every = [_HEADS, *(row for of_host in rows.values() for row in of_host)]
    widths = {name: max(len(getattr(row, name)) for row in every) for name in Row._fields}
    names = _that_fit(widths, width)
    found = [_line(_HEADS, names, widths, heading=True)]
    for host in hosts:
        found += _heading(host)
        for row, entry in zip(rows[host.host], host.entries, strict=True):
            found.append(_line(row, names, widths, _COLOURS[entry.health]))
        found += _remarks(host)
    entries = [entry for host in hosts for entry in host.entries]
    left_out = [getattr(_HEADS, name) for name in Row._fields if name not in names]
    narrow = f"; a wider terminal also shows {', '.join(left_out)}" if left_out else ""
    ready = sum(entry.health == "ready" for entry in entries)
    return [*found, Text(f"{ready} of {len(entries)} ready{narrow}")]


def _that_fit(widths: dict[str, int], width: int | None) -> list[str]:
    names = list(Row._fields)
    for spare in _SPARE:
        if width is None or sum(widths[name] + 2 for name in names) - 2 <= width:
            break
        names.remove(spare)
    return names


def _line(row: Row, names: Sequence[str], widths: dict[str, int], colour: str = "", heading: bool = False) -> Text:
    line = Text(style="bold" if heading else "")
    for name in names:
        style = colour if name == "state" else _gateway_colour(row.gateway) if name == "gateway" else ""
        line.append(getattr(row, name).ljust(widths[name]), style="" if heading else style)
        line.append("  ")
    line.rstrip()
    return line


def _gateway_colour(cell: str) -> str:
    return "yellow" if any(word in cell for word in ("draining", "out", "proving")) else "red" if "down" in cell else ""


def _heading(host: HostStatus) -> Iterator[Text]:
    driver = f"driver {host.driver}, " if host.driver else ""
    facts = host.error or f"{host.system}, {driver}Docker {host.docker}"
    note = f", {host.simulated}" if host.simulated else ""
    yield Text.assemble((host.host, "bold"), "  ", (f"{facts}{note}", "red" if host.error else ""))
    cards = [f"GPU {card.index} {_gib(card.used_mib)} of {_gib(card.total_mib)}" for card in host.cards]
    if cards:
        yield Text(f"  {', '.join(cards)} GiB in use")


def _remarks(host: HostStatus) -> Iterator[Text]:
    for one in host.instances:
        if one.cause:
            before = "the start before this one ended: " if one.container.state == "running" else ""
            yield Text(f"  {one.name}: {before}{one.cause}", style="red")
            yield Text(f"    remedy: {one.remedy}")
    for words in host.drift or ():
        yield Text(f"  not as described: {words}", style="yellow")
    if host.refused:
        yield Text(f"  a deploy would be refused (stoker doctor): {host.refused}", style="yellow")


def _instance(one: InstanceStatus) -> Row:
    load = one.load
    cache = None if load is None else load.kv_cache
    tokens = None if load is None else load.tokens_per_second
    return Row(
        one.name,
        ",".join(map(str, one.gpus)),
        one.model,
        _state(one.health, one.container, one.phase),
        _since(one.container),
        _memory(one),
        "-" if load is None else f"{load.running}+{load.waiting}",
        "-" if cache is None else f"{cache:.0%}",
        "-" if tokens is None else f"{tokens:.0f}",
        _view(one.gateways),
        _short(one.image),
        one.url,
    )


def _gateways(host: HostStatus) -> Iterator[Row]:
    for one in host.gateways:
        models = ", ".join(one.models)
        state, since = _state(one.health, one.container, ""), _since(one.container)
        yield Row(one.name, "-", models, state, since, "-", "-", "-", "-", "-", _short(one.image), one.url)


def _state(health: Health, container: ContainerStatus, phase: str) -> str:
    if health == "down":
        code = container.exit_code
        return container.state if code is None or container.state == "absent" else f"{container.state} ({code})"
    words = phase if health == "silent" and phase else health
    return words if len(words) <= _STATE_WIDTH else f"{words[: _STATE_WIDTH - 1]}…"


def _since(container: ContainerStatus) -> str:
    restarts = container.restarts
    times = f"{restarts} restart{'s' if restarts != 1 else ''}" if restarts else ""
    since = "" if container.seconds is None else ago(container.seconds)
    return ", ".join(filter(None, (since, times))) or "-"


def _memory(one: InstanceStatus) -> str:
    if one.used_mib is None and one.predicted_mib is None:
        return "-"
    return f"{_gib(one.used_mib)}/{_gib(one.predicted_mib)}"


def _gib(mib: int | None) -> str:
    return "?" if mib is None else f"{mib / 1024:.1f}"


def _view(views: Sequence[GatewayView]) -> str:
    """One word where all gateways agree; with the requests that run there."""
    if not views:
        return "-"
    places = {view.place for view in views}
    if len(places) > 1:
        return ", ".join(f"{view.place} {view.gateway}" for view in views)
    running = sum(view.in_flight for view in views)
    return f"{places.pop()}, {running}" if running else places.pop()


def _short(image: str) -> str:
    """Without registry and owner."""
    return image.rpartition("/")[2]
