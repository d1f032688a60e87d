"""The hand-made stacks of tests/data/handmade as the probe finds them running."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from stoker.facts.state import Container
from support.fleet import PROJECT

FILES = PROJECT / "tests/data/handmade"
DIRECTORY = "/home/ops/stacks"


def containers(file: str, project: str = "") -> dict[str, Container]:
    """Every container that the Compose file describes, running. ``project`` instead of the file's own."""
    described: dict[str, Any] = yaml.safe_load((FILES / file).read_text(encoding="utf-8"))
    found = [_container(service, file, project or described["name"]) for service in described["services"].values()]
    return {one.name: one for one in found}


def _container(service: dict[str, Any], file: str, project: str) -> Container:
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    mounts = [volume.split(":")[:2] for volume in service["volumes"]]
    return Container(
        name=service["container_name"],
        id="f" * 64,
        image_id="sha256:" + "1" * 64,
        status="running",
        started_at="2026-11-01T10:00:00Z",
        restarts=0,
        configuration="",
        project=project,
        ports=frozenset(int(port.split(":")[0]) for port in service["ports"]),
        image=service["image"],
        config_files=(f"{DIRECTORY}/{file}",),
        command=tuple(shlex.split(service.get("command", ""))),
        restart=service.get("restart", "no"),
        mounts=tuple((source.replace("./", f"{DIRECTORY}/"), inside) for source, inside in mounts),
        gpus=tuple(identity for device in devices for identity in device["device_ids"]),
    )
