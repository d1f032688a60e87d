"""NVIDIA's container toolkit: packages, the CDI description of the cards, and the persistence daemon."""

from __future__ import annotations

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps.action import Action
from stoker.steps.packages import Package, install, missing

CDI = "/var/run/cdi/nvidia.yaml"
PERSISTENCE = "nvidia-persistenced.service"


def packages(host: Host) -> list[Package]:
    version = host.settings.versions.container_toolkit
    names = (
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    )
    return [Package(name, version) for name in names]


def actions(host: Host, state: HostState) -> list[Action]:
    found = []
    lacking = missing(state, packages(host))
    if lacking:
        found.append(install(lacking))
    described = state.contents.get(CDI, "")
    if lacking or any(gpu.uuid not in described for gpu in state.gpus):
        uuids = " && ".join(f"grep -q {gpu.uuid} {CDI}" for gpu in state.gpus)
        generate = f"nvidia-ctk cdi generate --device-name-strategy=index --device-name-strategy=uuid --output={CDI}"
        # The toolkit's own service writes it at boot too; ask it first, so that both ways give the same.
        found.append(
            Action(
                f"describe {len(state.gpus)} GPUs for containers in {CDI}",
                f"systemctl start nvidia-cdi-refresh.service 2>/dev/null; {{ {uuids}; }} 2>/dev/null || {generate}",
            )
        )
    persistence = state.units.get(PERSISTENCE, "")
    if persistence.strip() and not persistence.endswith("not-found") and not persistence.startswith("active"):
        found.append(
            Action(
                "start nvidia-persistenced, now and at boot",
                f"systemctl enable --now {PERSISTENCE} 2>&1 || systemctl start {PERSISTENCE}",
            )
        )
    return found
