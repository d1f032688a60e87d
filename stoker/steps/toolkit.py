"""NVIDIA's container toolkit: packages, the CDI description of the cards, and the persistence daemon."""

from __future__ import annotations

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps.action import Action, File, write_files
from stoker.steps.packages import Package, install, missing

CDI = "/var/run/cdi/nvidia.yaml"
PERSISTENCE = "nvidia-persistenced.service"
UNITS = "/etc/systemd/system"

#: CUDA needs this device. Nothing makes it on a machine without a screen until somebody asks, and what is absent when the
#: description is written is left out of it (toolkit 1.20.0; mended upstream after that release).
_UVM = "/dev/nvidia-uvm"

_NODES = "nvidia-ctk system create-device-nodes --control-devices --load-kernel-modules"

#: Docker must not restore containers before the cards are described: a start that fails then is not tried again, whatever the
#: restart policy says (moby#39559).
_DROP_INS = (
    File(
        f"{UNITS}/docker.service.d/stoker.conf",
        "# Written by Stoker: the GPUs are described before containers are started at boot.\n"
        "[Unit]\nWants=nvidia-cdi-refresh.service\nAfter=nvidia-cdi-refresh.service nvidia-persistenced.service\n",
    ),
    File(
        f"{UNITS}/nvidia-cdi-refresh.service.d/stoker.conf",
        "# Written by Stoker: the devices exist before they are described.\n"
        f"[Service]\nExecStartPre=-/usr/bin/{_NODES}\n",
    ),
)


def packages(host: Host) -> list[Package]:
    if host.gpus is None:
        return []
    version = host.settings.versions.container_toolkit
    names = (
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    )
    return [Package(name, version) for name in names]


def files() -> list[str]:
    """Files whose state the step must see."""
    return [file.path for file in _DROP_INS]


def actions(host: Host, state: HostState) -> list[Action]:
    if host.gpus is None:
        return []
    found = []
    lacking = missing(state, packages(host))
    if lacking:
        found.append(install(lacking))
    if host.settings.docker.gpus_by_cdi:
        found += _by_cdi(state, bool(lacking))
    elif lacking and state.docker_running:
        running = sum(container.running for container in state.containers.values())
        # Docker looks for NVIDIA's hook when it starts.
        found.append(
            Action(
                "restart Docker so that it finds the toolkit",
                "systemctl restart docker.service",
                interrupts=f"{running} running containers" if running else "",
            )
        )
    persistence = state.units.get(PERSISTENCE, "")
    if persistence and not persistence.startswith("active"):
        found.append(
            Action(
                "start nvidia-persistenced, now and at boot",
                f"systemctl enable --now {PERSISTENCE} 2>&1 || systemctl start {PERSISTENCE}",
            )
        )
    return found


def _by_cdi(state: HostState, changed: bool) -> list[Action]:
    """``changed``: the toolkit is about to be installed or changed."""
    found = []
    stale = [file for file in _DROP_INS if not file.is_on(state)]
    if stale:
        script, stdin = write_files(stale, UNITS, after="systemctl daemon-reload")
        found.append(
            Action(
                f"order Docker after the GPUs at boot: write {', '.join(file.path for file in stale)}", script, stdin
            )
        )
    described = state.contents.get(CDI, "")
    wanted = [_UVM, *(gpu.uuid for gpu in state.gpus)]
    if changed or any(word not in described for word in wanted):
        uuids = " && ".join(f"grep -q {word} {CDI}" for word in wanted)
        generate = f"nvidia-ctk cdi generate --device-name-strategy=index --device-name-strategy=uuid --output={CDI}"
        # The toolkit's own service writes it at boot too; ask it first, so that both ways give the same.
        found.append(
            Action(
                f"describe {len(state.gpus)} GPUs for containers in {CDI}",
                f"{_NODES} >/dev/null 2>&1; systemctl restart nvidia-cdi-refresh.service 2>/dev/null; {{ {uuids}; }} 2>/dev/null || "
                f"{{ {generate} && {uuids}; }}",
            )
        )
    return found
