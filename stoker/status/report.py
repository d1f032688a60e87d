"""The status as JSON. The fields are documented in docs/operations.md; programs rest on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from stoker.status.data import GatewayStatus, GatewayView, HostStatus, InstanceStatus


def as_json(hosts: Sequence[HostStatus]) -> str:
    return json.dumps(_data(hosts), indent=2)


def as_line(hosts: Sequence[HostStatus], width: int | None) -> list[Text]:
    """In one line, for programs that read one look after the other."""
    return [Text(json.dumps(_data(hosts)))]


def _data(hosts: Sequence[HostStatus]) -> dict[str, Any]:
    return {"ready": all(host.ready for host in hosts), "hosts": list(map(_host, hosts))}


def _host(host: HostStatus) -> dict[str, Any]:
    return {
        "host": host.host,
        "error": host.error,
        "system": host.system,
        "driver": host.driver,
        "docker": host.docker,
        "simulated": host.simulated,
        "drift": None if host.drift is None else list(host.drift),
        "refused": host.refused,
        "gpus": list(map(asdict, host.cards)),
        "instances": list(map(_instance, host.instances)),
        "gateways": list(map(_gateway, host.gateways)),
    }


def _instance(one: InstanceStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "engine": one.engine,
        "model": one.model,
        "image": one.image,
        "url": one.url,
        "health": one.health,
        "phase": one.phase,
        "container": asdict(one.container),
        "gpus": list(one.gpus),
        "cards": [card.uuid for card in one.cards],
        "memory": {"used_mib": one.used_mib, "predicted_mib": one.predicted_mib},
        "load": None if one.load is None else asdict(one.load),
        "gateways": list(map(_view, one.gateways)),
        "drift": one.drift,
        "cause": one.cause,
        "remedy": one.remedy,
    }


def _view(view: GatewayView) -> dict[str, Any]:
    return {**asdict(view), "place": view.place}


def _gateway(one: GatewayStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "models": list(one.models),
        "image": one.image,
        "url": one.url,
        "health": one.health,
        "container": asdict(one.container),
        "drift": one.drift,
    }
