"""The verdict on one host before anything is written anywhere: everything found, at once, each with its remedy."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.plan.checks import (
    certificate,
    compatibility,
    containers,
    disks,
    docker,
    driver,
    driver_hold,
    embeddings,
    firewall,
    gpu_memory,
    gpu_processes,
    gpus,
    guards,
    handmade,
    host_memory,
    local_models,
    packaging,
    ports,
    services,
    system,
)
from stoker.plan.finding import Finding
from stoker.plan.look import Check, Look
from stoker.spec.fleet import LOCAL, Host

#: What this check finds, `stoker adopt` is for.
HAND_MADE = "hand-made"

#: Name of the check -> the check, in the order in which a person reads the findings.
CHECKS: Mapping[str, Check] = {
    "system": system.check,
    "guards": guards.check,
    "packaging": packaging.check,
    "docker": docker.check,
    "driver": driver.check,
    "driver hold": driver_hold.check,
    "cards": gpus.check,
    "compatibility": compatibility.check,
    "GPU memory": gpu_memory.check,
    "GPU processes": gpu_processes.check,
    "local models": local_models.check,
    "ports": ports.check,
    "firewall": firewall.check,
    "certificate": certificate.check,
    "services": services.check,
    "containers": containers.check,
    HAND_MADE: handmade.check,
    "embeddings": embeddings.check,
    "disks": disks.check,
    "host memory": host_memory.check,
}


def findings(
    host: Host,
    state: HostState,
    now: int,
    cards: Cards | None = None,
    environment: Mapping[str, str] | None = None,
    only: tuple[str, ...] = (),
) -> list[Finding]:
    """Everything that speaks against deploying to a host, or that a person should know before. See `Look` for what is given."""
    if state.uid < 0:  # pyinfra turns a connection that is lost while a fact is gathered into an empty state
        return [
            Finding(
                host.name,
                "nothing could be found out about it: the connection was lost, or its shell does not run commands",
                f"try `{'id' if host.name == LOCAL else f'ssh {host.name} id'}`, and deploy again when that works",
                "unreachable",
                check="connection",
            )
        ]
    look = Look(host, state, now, cards, only, environment or {})
    return [
        Finding(host.name, reason.reason, reason.remedy, reason.anchor, reason.severity, name, reason.instance)
        for name, check in CHECKS.items()
        for reason in check(look)
    ]


def unreachable_sources(host: Host, reach: Mapping[str, str]) -> list[Finding]:
    """A refusal for each download source that the host cannot connect to. ``reach``: URL -> ok, name or connection."""
    words = {"name": "its name does not resolve there", "connection": "no connection could be opened from there"}
    return [
        Finding(
            host.name,
            f"{url} cannot be reached: {words[result]}",
            "set `mirrors` or `proxy` in group_data/all.py, or mend the network",
            "mirrors",
            check="downloads",
        )
        for url, result in reach.items()
        if result in words
    ]
