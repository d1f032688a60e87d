"""Is a container what the description says? Pure: Docker's and nvidia-smi's words in; raises CheckFailed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stoker.smoke.check import CheckFailed
from stoker.spec.gpu_name import GpuName, bus_id, label

#: What `docker inspect` or the SDK's inspect_container returns.
Inspection = Mapping[str, Any]

#: The argument of nvidia-smi whose output :func:`cards` reads.
CARDS_COMMAND = "nvidia-smi --query-gpu=index,uuid,memory.used,memory.total,pci.bus_id --format=csv,noheader,nounits"
#: The same inside a container: which cards it sees.
VISIBLE_COMMAND = "nvidia-smi --query-gpu=uuid --format=csv,noheader"

#: MiB. A card with nothing on it uses a few; a CUDA context alone takes some hundred.
_LEAST_USED_MIB = 100
#: vLLM takes its share at its start and keeps it; less than this part of the shares means that an instance is not there.
_LEAST_SHARE = 0.75


@dataclass(frozen=True)
class Card:
    """One GPU as the host's nvidia-smi reports it. Memory in MiB."""

    index: int
    uuid: str
    used_mib: int
    total_mib: int
    bus_id: str = ""


def cards(output: str) -> list[Card]:
    """Output of CARDS_COMMAND."""
    found = []
    for row in csv.reader(output.strip().splitlines(), skipinitialspace=True):
        try:
            index, uuid, used, total, address = (cell.strip() for cell in row)
            found.append(Card(int(index), uuid, int(used), int(total), bus_id(address)))
        except ValueError:
            raise CheckFailed(
                "rows of index, uuid, memory.used, memory.total, pci.bus_id",
                f"nvidia-smi printed: {', '.join(row)}",
                "run nvidia-smi there; an [N/A] or an error means a sick card or driver",
            ) from None
    return found


def running(name: str, before: Inspection | None, now: Inspection | None, image: str) -> str:
    """The container exists, runs the pinned image, and did not restart while the checks ran."""
    if now is None:
        raise CheckFailed(f"a container {name}", "there is none", "deploy again")
    state = now.get("State") or {}
    if state.get("Status") != "running":
        reason = f": {state['Error']}" if state.get("Error") else ""
        raise CheckFailed(
            "status running",
            f"{state.get('Status')}, exit code {state.get('ExitCode')}{reason}",
            f"docker logs --tail 50 {name} says why; the next deploy starts it again",
        )
    restarts = int(now.get("RestartCount") or 0)
    if before is not None and (before.get("Id"), (before.get("State") or {}).get("StartedAt")) != (
        now.get("Id"),
        state.get("StartedAt"),
    ):
        raise CheckFailed(
            "no restart while the checks ran",
            f"it was started again at {state.get('StartedAt')} ({restarts} restarts in all)",
            f"docker logs --tail 200 {name} says what ended it",
        )
    used = (now.get("Config") or {}).get("Image")
    if used != image:
        raise CheckFailed(
            f"image {image}", f"image {used}", "deploy again: the container is older than the description"
        )
    health = (state.get("Health") or {}).get("Status")
    if health == "unhealthy":
        log = ((state.get("Health") or {}).get("Log") or [{}])[-1]
        raise CheckFailed(
            "a healthy container",
            f"unhealthy: {str(log.get('Output', '')).strip()[:300]}",
            f"docker logs --tail 50 {name}",
        )
    note = f", {restarts} restart{'s' if restarts > 1 else ''} before this smoke" if restarts else ", 0 restarts"
    return f"{image}{note}"


def gpus(described: Sequence[GpuName], by_name: Mapping[GpuName, Card], inspection: Inspection, visible: str) -> str:
    """The container was given the described cards and no other, and still sees them. ``by_name``: as identity.named."""
    missing = [name for name in described if name not in by_name]
    if missing:
        there = ", ".join(sorted({card.uuid for card in by_name.values()}))
        raise CheckFailed(
            f"{label(missing[0])} on the host",
            f"nvidia-smi shows {there or 'no GPU'}",
            "see dmesg for a card that fell off the bus",
        )
    wanted = {by_name[name].uuid: label(name) for name in described}
    called = {by_name[name].uuid: label(name) for name in by_name if isinstance(name, int)} | wanted
    by_index = {str(card.index): card.uuid for card in by_name.values()}
    given = {by_index.get(name, name) for name in requested(inspection)}
    if given != set(wanted):
        made_with = _list(called.get(uuid, uuid) for uuid in given) or "no GPU"
        raise CheckFailed(
            _list(wanted.values()),
            f"the container was made with {made_with}",
            "deploy again: the container is older than the description",
        )
    seen = {line.strip() for line in visible.splitlines() if line.strip()}
    if seen != set(wanted):
        remedy = (
            "the container lost a GPU (a daemon-reload does that to containers without CDI): deploy again, or recreate it"
            if set(wanted) - seen
            else "it reaches cards of other instances: deploy again; is the CDI specification of the host up to date?"
        )
        visible_now = _list(called.get(uuid, uuid) for uuid in seen) or "no GPU"
        raise CheckFailed(f"{_list(wanted.values())} alone seen in the container", f"it sees {visible_now}", remedy)
    return ", ".join(wanted.values())


def requested(inspection: Inspection) -> set[str]:
    """UUIDs or indices of the cards that the container asks for: by CDI, by a device request, or by the variable of NVIDIA's runtime."""
    found: set[str] = set()
    host_config = inspection.get("HostConfig") or {}
    for request in host_config.get("DeviceRequests") or []:
        identifiers = request.get("DeviceIDs") or (["all"] if request.get("Count") == -1 else [])
        found |= {identifier.rpartition("=")[2] for identifier in identifiers}
    if not found:
        variables = dict(entry.partition("=")[::2] for entry in (inspection.get("Config") or {}).get("Env") or [])
        found = {
            name for name in variables.get("NVIDIA_VISIBLE_DEVICES", "").split(",") if name not in ("", "void", "none")
        }
    return found


def memory(card: Card, shares: Mapping[str, float | None]) -> str:
    """The card holds what its instances should hold.

    ``shares`` maps each instance on the card to the share of the memory that it takes for good, or None where that is not known.
    """
    held = f"{card.used_mib} of {card.total_mib} MiB used"
    names = ", ".join(shares)
    if card.used_mib < _LEAST_USED_MIB:
        raise CheckFailed(
            f"memory in use by {names}",
            held,
            "no engine is on this card: read the logs (docker logs); Ollama may run on the CPU",
        )
    if card.used_mib > card.total_mib:
        raise CheckFailed("no more than there is", held, "run nvidia-smi there: the driver reports nonsense")
    known = sum(share for share in shares.values() if share is not None)
    if card.used_mib < known * card.total_mib * _LEAST_SHARE:
        raise CheckFailed(
            f"about {known * card.total_mib:.0f} MiB, the shares of {names}",
            held,
            "an instance of this card is not loaded, or took less memory than it should: read the logs",
        )
    return held


def _list(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted(values, key=str))
