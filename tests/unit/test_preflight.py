"""Every reason of the preflight against a deploy, each on an otherwise sound host, with its remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.fleet import EMBEDDING, LLM, Data, instances
from support.states import DRIVER, NOW, bare, cards, converged, fleet_and_host

from stoker.facts.gpus import Gpu
from stoker.facts.state import Container, HostState, Listener, parse
from stoker.facts.surroundings import Dockers
from stoker.plan.preflight import findings, unreachable_sources

DAEMON_JSON = "/etc/docker/daemon.json"


@dataclass(frozen=True)
class Case:
    """A host with one thing wrong, and the refusal that it must make."""

    change: Callable[[HostState], HostState]
    reason: str  #: the whole of it
    remedy: str  #: part of it
    anchor: str
    group: str = "llm"


def having(**changes: Any) -> Callable[[HostState], HostState]:
    return lambda state: replace(state, **changes)


def with_gpu(index: int, **changes: Any) -> Callable[[HostState], HostState]:
    def change(state: HostState) -> HostState:
        return replace(state, gpus=tuple(replace(gpu, **changes) if gpu.index == index else gpu for gpu in state.gpus))

    return change


def with_gpus(count: int) -> Callable[[HostState], HostState]:
    return lambda state: replace(state, gpus=state.gpus[:count])


def without_driver(words: str) -> Callable[[HostState], HostState]:
    return having(gpus=(), driver="", gpu_error=words)


def with_room(path: str, gib: float) -> Callable[[HostState], HostState]:
    return lambda state: replace(state, free_bytes={**state.free_bytes, path: int(gib * (1 << 30))})


def foreign(name: str, project: str, *ports: int, status: str = "running") -> Container:
    return Container(name, "f" * 64, "sha256:1", status, "2026-11-01T10:00:00Z", 0, "", project, frozenset(ports))


SS_IPV6 = 'LISTEN 0 128 [::1]:11402 [::]:* users:(("python3",pid=78,fd=3))'

CASES = {
    "no root": Case(
        having(uid=1000, user="operator"), "the user operator has no root privileges", "`_sudo = True`", "privileges"
    ),
    "another processor": Case(
        having(architecture="aarch64"),
        "the processor is aarch64, the pinned engine images are built for x86_64",
        "use an x86_64 machine",
        "unsupported-system",
    ),
    "clock ahead": Case(having(time=NOW + 301), "its clock is 301 s ahead of this machine's", "chrony", "clock"),
    "clock behind": Case(having(time=NOW - 4000), "its clock is 4000 s behind this machine's", "chrony", "clock"),
    "Docker as a snap": Case(
        having(dockers=Dockers("/snap/bin/docker")),
        "Docker is installed as a snap, which cannot use the container toolkit",
        "snap remove docker",
        "docker-from-snap",
    ),
    "broken daemon.json": Case(
        having(contents={DAEMON_JSON: '{"mtu": 1400,}'}),
        "/etc/docker/daemon.json cannot be read (Expecting property name enclosed in double quotes: line 1 column 14 "
        "(char 13)); Docker would not start with it",
        "does not overwrite it",
        "daemon-json",
    ),
    "daemon.json of another kind": Case(
        having(contents={DAEMON_JSON: "[]"}),
        "/etc/docker/daemon.json cannot be read (it is not an object); Docker would not start with it",
        "does not overwrite it",
        "daemon-json",
    ),
    "no driver": Case(
        without_driver("sh: 1: nvidia-smi: not found"),
        "no NVIDIA driver is installed",
        "branch 580 (nvidia-driver-cuda and nvidia-kernel-dkms of NVIDIA's repository)",
        "driver-missing",
    ),
    "driver that knows less": Case(
        without_driver('Field "compute_cap" is not a valid field to query.'),
        "its nvidia-smi does not know all that is asked of it, so the driver is older than the pinned images need (branch 525); "
        'it says: Field "compute_cap" is not a valid field to query.',
        "install branch 580",
        "driver-branch",
    ),
    "driver upgraded under the module": Case(
        without_driver("Failed to initialize NVML: Driver/library version mismatch"),
        "nvidia-smi says: Failed to initialize NVML: Driver/library version mismatch",
        "reboot the host",
        "driver-mismatch",
    ),
    "module not loaded": Case(
        without_driver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
        "nvidia-smi says: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "dkms autoinstall",
        "driver-not-loaded",
    ),
    "branch without the card": Case(
        having(driver="590.44.01"),
        "driver 590.44.01 has no support for Tesla V100-SXM2-32GB: 580 is the last branch that has",
        "install branch 580 and hold it",
        "driver-branch",
    ),
    "driver of another age": Case(
        having(driver="470.256.02"),
        "driver 470.256.02 is too old for the pinned images (CUDA 12)",
        "install branch 580",
        "driver-branch",
    ),
    "Ollama would use the CPU": Case(
        having(driver="550.163.01"),
        "with driver 550.163.01 Ollama 0.32.15 would serve from the CPU instead of the Tesla P40, without an error",
        "(570 is the oldest that works)",
        "ollama-driver-too-old",
        group="embedding",
    ),
    "a card is divided": Case(
        lambda state: replace(state, gpus=(*state.gpus[:2], replace(state.gpus[2], mig=True))),
        "GPU 2 (Tesla V100-SXM2-32GB), wanted by vllm_qwen_gpu2, is divided (MIG): programs see only its parts, and Stoker hands out "
        "whole cards",
        "nvidia-smi -i GPU-00000002-5b8e-47c1-9d2a-000000000002 -mig 0",
        "gpu-divided",
    ),
    "a card is missing": Case(
        with_gpus(2),
        "it has 2 GPUs, described are 3; there are 0 = GPU-00000000-5b8e-47c1-9d2a-000000000000 = 0000:1a:00.0 "
        "(Tesla V100-SXM2-32GB, 32 GiB), 1 = GPU-00000001-5b8e-47c1-9d2a-000000000001 = 0000:1b:00.0 "
        "(Tesla V100-SXM2-32GB, 32 GiB)",
        "lspci",
        "gpu-count",
    ),
    "another card": Case(
        with_gpu(1, name="Tesla T4", compute_capability="7.5"),
        "GPU 1 is a Tesla T4, described is 'V100'",
        "correct `gpus`",
        "gpu-count",
    ),
    "a smaller card": Case(
        with_gpu(2, memory_mib=16384), "GPU 2 has 16.0 GiB, described are 32", "correct `gpus`", "gpu-count"
    ),
    "port taken": Case(
        having(listeners=(Listener(11403, "python3 (process 77)"),)),
        "port 11403, wanted by vllm_llama_gpu1_0, is held by python3 (process 77)",
        "stop it, or choose another port",
        "port-taken",
    ),
    "port taken by somebody unknown": Case(
        having(listeners=(Listener(11434, ""),)),
        "port 11434, wanted by vllm_nginx, is held by another process",
        "stop it",
        "port-taken",
    ),
    "Ollama installed on the host itself": Case(
        having(listeners=(Listener(22, "sshd (process 1)"), Listener(11434, "ollama (process 9)"))),
        "port 11434, wanted by ollama_bge_0, is held by ollama (process 9)",
        "stop it",
        "port-taken",
        group="embedding",
    ),
    "port published by a stranger's container": Case(
        having(
            listeners=(Listener(11405, "docker-proxy (process 5)"),),
            containers={"old": foreign("old", "old-stack", 11405)},
        ),
        "port 11405, wanted by vllm_qwen_gpu2, is held by the container old",
        "stop it",
        "port-taken",
    ),
    "port taken on IPv6's own machine only": Case(
        lambda state: replace(state, listeners=parse(["@@stoker listeners", SS_IPV6]).listeners),
        "port 11402, wanted by vllm_llama_gpu0_1, is held by python3 (process 78)",
        "stop it",
        "port-taken",
    ),
    "port of a container that is paused": Case(
        having(containers={"old": foreign("old", "", 11405, status="paused")}),
        "port 11405, wanted by vllm_qwen_gpu2, is held by the container old",
        "stop it",
        "port-taken",
    ),
    "the same without docker-proxy": Case(
        having(containers={"old": foreign("old", "", 11405)}),
        "port 11405, wanted by vllm_qwen_gpu2, is held by the container old",
        "stop it",
        "port-taken",
    ),
    "name taken by hand": Case(
        having(containers={"vllm_nginx": foreign("vllm_nginx", "", status="exited")}),
        "a container named vllm_nginx exists already and was not made by Compose",
        "docker rm -f vllm_nginx",
        "container-name",
    ),
    "no room for images": Case(
        with_room("/var/lib", 1.5),
        "the disk of /var/lib has 1.5 GiB free, still to come are about 29.6: logs and caches 2.0, "
        "vllm/vllm-openai:v0.19.1 26.6, nginx:1.30.6-alpine 0.9 (assumed)",
        "make room",
        "disk",
    ),
    "no room for models": Case(
        with_room("/data/projects/models", 0.25),
        "the disk of /data/projects/models has 0.2 GiB free, still to come are about 1.0: "
        "model files beside those named 1.0",
        "make room",
        "disk",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_reason_against(case: Case) -> None:
    _, host = fleet_and_host(case.group)
    found = findings(host, case.change(bare(host)), NOW)
    assert [refusal.reason for refusal in found] == [case.reason]
    (refusal,) = found
    assert refusal.host == host.name
    assert case.remedy in refusal.remedy
    assert refusal.anchor == case.anchor


@pytest.mark.parametrize("group", ["llm", "embedding"])
def test_nothing_speaks_against_a_bare_or_a_converged_host(group: str) -> None:
    fleet, host = fleet_and_host(group)
    assert findings(host, bare(host), NOW) == []
    assert findings(host, converged(fleet, host), NOW) == []


@pytest.mark.parametrize(
    "change",
    [
        having(time=NOW + 299),
        having(time=0),
        having(contents={DAEMON_JSON: "\n"}),
        having(driver="535.288.01"),  # old, and right for a V100
        with_gpu(0, memory_mib=32510),
        with_gpu(0, name="Tesla V100-PCIE-32GB"),
        having(listeners=(Listener(22, "sshd (process 1)"), Listener(11401, "x"))[:1]),
        having(containers={"grafana": foreign("grafana", "monitoring", 3000)}),
        having(containers={"old": foreign("old", "old-stack", 11405, status="exited")}),
    ],
)
def test_what_is_no_reason(change: Callable[[HostState], HostState]) -> None:
    _, host = fleet_and_host("llm")
    assert findings(host, change(bare(host)), NOW) == []


def published(state: HostState, ports: dict[str, int]) -> HostState:
    """A host whose containers publish ports, docker-proxy listening for each."""
    containers = {
        name: replace(container, ports=frozenset({ports[name]}) if name in ports else frozenset())
        for name, container in state.containers.items()
    }
    listeners = [Listener(port, f"docker-proxy (process {port})") for port in ports.values()]
    return replace(state, containers=containers, listeners=listeners)


PORTS = {
    "vllm_llama_gpu0_0": 11401,
    "vllm_llama_gpu0_1": 11402,
    "vllm_llama_gpu1_0": 11403,
    "vllm_llama_gpu1_1": 11404,
    "vllm_qwen_gpu2": 11405,
    "vllm_nginx": 11434,
}


def test_our_own_containers_hold_our_ports() -> None:
    fleet, host = fleet_and_host("llm")
    assert findings(host, published(converged(fleet, host), PORTS), NOW) == []


def test_ports_may_be_exchanged_between_described_containers() -> None:
    fleet, host = fleet_and_host("llm")
    swapped = {**PORTS, "vllm_qwen_gpu2": 11401, "vllm_llama_gpu0_0": 11405}
    assert findings(host, published(converged(fleet, host), swapped), NOW) == []


def test_a_new_port_may_be_taken_although_the_container_runs_on_its_old_one() -> None:
    old_fleet, old_host = fleet_and_host("llm")

    def change(data: Data) -> None:
        instances(data, "llm")[4]["port"] = 8080

    _, host = fleet_and_host("llm", change)
    state = published(converged(old_fleet, old_host), PORTS)
    state = replace(state, listeners=[*state.listeners, Listener(8080, "tomcat (process 9)")])
    (refusal,) = findings(host, state, NOW)
    assert refusal.reason == "port 8080, wanted by vllm_qwen_gpu2, is held by tomcat (process 9)"


def test_a_container_of_another_project_of_the_same_host_holds_a_port() -> None:
    """Compose would fail in the middle of the deploy: Docker's answer is that the port is already allocated."""
    fleet, host = fleet_and_host("llm")
    state = published(converged(fleet, host), {**PORTS, "vllm_qwen_gpu2": 8000})
    state = replace(
        state,
        containers={**state.containers, "old": foreign("old", "old-stack", 11405)},
        listeners=[*state.listeners, Listener(11405, "docker-proxy (process 5)")],
    )
    (refusal,) = findings(host, state, NOW)
    assert refusal.reason == "port 11405, wanted by vllm_qwen_gpu2, is held by the container old"


def test_all_reasons_are_told_at_once() -> None:
    _, host = fleet_and_host("llm")
    state = replace(
        bare(host),
        uid=1000,
        user="operator",
        driver="590.44.01",
        gpus=cards(host)[:2],
        listeners=(Listener(11401, "x"), Listener(11402, "y")),
        free_bytes={"/var/lib": 0, "/data/projects/models": 0},
    )
    assert [refusal.anchor for refusal in findings(host, state, NOW)] == [
        "privileges",
        "driver-branch",
        "gpu-count",
        "port-taken",
        "port-taken",
        "disk",
        "disk",
    ]


def test_a_host_that_says_nothing_is_not_blamed_for_what_it_is() -> None:
    _, host = fleet_and_host("llm")
    (refusal,) = findings(host, HostState(), NOW)
    assert refusal.reason.startswith("nothing could be found out about it: the connection was lost")
    assert refusal.remedy == "try `ssh 192.168.31.10 id`, and deploy again when that works"


def test_without_a_driver_nothing_is_said_of_the_cards() -> None:
    _, host = fleet_and_host("llm")
    state = replace(bare(host), gpus=(), driver="", gpu_error="sh: 1: nvidia-smi: not found")
    assert [refusal.anchor for refusal in findings(host, state, NOW)] == ["driver-missing"]


def test_debian_12s_own_docker_is_refused() -> None:
    def change(data: Data) -> None:
        data["all"]["docker"] = {"source": "distribution"}

    _, host = fleet_and_host("llm", change)
    (refusal,) = findings(host, replace(bare(host), os_codename="bookworm"), NOW)
    assert (refusal.reason, refusal.anchor) == ("Debian 12's own packages hold no Compose 2", "docker-source")
    assert findings(host, bare(host), NOW) == []


def test_newer_cards_may_have_newer_drivers() -> None:
    def change(data: Data) -> None:
        data["llm"]["gpus"] = {"count": 1, "card": "RTX 4090", "memory_gib": 24}
        data["llm"]["stacks"][0]["instances"] = instances(data, "llm")[:1]
        data["llm"]["stacks"][0]["gateway"]["pools"].pop()
        data["embedding"]["stacks"][0]["gateway"]["pools"].pop()

    _, host = fleet_and_host("llm", lambda data: change(data))
    card = Gpu(0, "GPU-1", "NVIDIA GeForce RTX 4090", 24564, "8.9")
    state = replace(bare_of(host), gpus=(card,), driver="595.10.01", packages={"nvidia-open": "595.10.01-1"})
    (warning,) = findings(host, state, NOW)
    assert (warning.severity, warning.anchor) == ("warn", "driver-hold")


def bare_of(host: Any) -> HostState:
    """A bare state without cards, for a host whose cards the helpers do not know."""
    return HostState(
        os_id="debian", os_codename="trixie", architecture="x86_64", uid=0, user="root", time=NOW, driver=DRIVER
    )


def test_a_refusal_reads_well() -> None:
    _, host = fleet_and_host("embedding")
    (refusal,) = findings(host, having(driver="550.163.01")(bare(host)), NOW)
    assert str(refusal) == (
        "192.168.31.65, ollama_bge_0, ollama_bge_1: with driver 550.163.01 Ollama 0.32.15 would serve from the CPU instead of the "
        "Tesla P40, without an error\n"
        "    remedy: install branch 580 (570 is the oldest that works)\n"
        "    more:   docs/troubleshooting.md#ollama-driver-too-old"
    )


def test_an_older_ollama_takes_an_older_driver() -> None:
    """Before 0.30 Pascal cards were content with branch 550."""

    def older(data: Data) -> None:
        data["all"]["versions"]["ollama"] = "ollama/ollama:0.24.0"

    _, host = fleet_and_host("embedding", older)
    assert findings(host, having(driver="550.163.01")(bare(host)), NOW) == []


def test_sources_that_cannot_be_reached() -> None:
    _, host = fleet_and_host("llm")
    reach = {
        "https://huggingface.co": "connection",
        "https://download.docker.com/linux": "name",
        "https://registry-1.docker.io": "ok",
    }
    found = unreachable_sources(host, reach)
    assert [refusal.reason for refusal in found] == [
        "https://huggingface.co cannot be reached: no connection could be opened from there",
        "https://download.docker.com/linux cannot be reached: its name does not resolve there",
    ]
    assert {refusal.anchor for refusal in found} == {"mirrors"}
    assert all(re.search(r"`mirrors` or `proxy`", refusal.remedy) for refusal in found)


def test_hosts_are_named() -> None:
    assert [fleet_and_host(group)[1].name for group in ("llm", "embedding")] == [LLM, EMBEDDING]
