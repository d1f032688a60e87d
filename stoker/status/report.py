"""The status as JSON. The fields are documented in docs/operations.md; programs rest on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from stoker.status.data import Card, ContainerStatus, GatewayStatus, GatewayView, HostStatus, InstanceStatus, Load


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
        "gpus": list(map(_card, host.cards)),
        "instances": list(map(_instance, host.instances)),
        "gateways": list(map(_gateway, host.gateways)),
    }


def _card(card: Card) -> dict[str, Any]:
    return {"index": card.index, "uuid": card.uuid, "used_mib": card.used_mib, "total_mib": card.total_mib}


def _container(container: ContainerStatus) -> dict[str, Any]:
    return {
        "state": container.state,
        "since": container.since,
        "seconds": container.seconds,
        "restarts": container.restarts,
        "exit_code": container.exit_code,
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
        "container": _container(one.container),
        "gpus": list(one.gpus),
        "cards": [card.uuid for card in one.cards],
        "memory": {"used_mib": one.used_mib, "predicted_mib": one.predicted_mib},
        "load": None if one.load is None else _load(one.load),
        "gateways": list(map(_view, one.gateways)),
        "drift": one.drift,
        "cause": one.cause,
        "remedy": one.remedy,
    }


def _load(load: Load) -> dict[str, Any]:
    return {
        "running": load.running,
        "waiting": load.waiting,
        "kv_cache": load.kv_cache,
        "prompt_tokens_per_second": load.prompt_tokens_per_second,
        "generated_tokens_per_second": load.generated_tokens_per_second,
        "seconds": load.seconds,
    }


def _view(view: GatewayView) -> dict[str, Any]:
    return {
        "gateway": view.gateway,
        "pool": view.pool,
        "place": view.place,
        "health": view.health,
        "drained": view.drained,
        "in_flight": view.in_flight,
    }


def _gateway(one: GatewayStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "models": list(one.models),
        "image": one.image,
        "url": one.url,
        "health": one.health,
        "container": _container(one.container),
        "drift": one.drift,
    }
