"""The stacks as the source documents lay them out, started by hand, are recognised, replaced one by one, and brought back."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT, Done, wait_for
from support.machine import GPU10, GPU65, HOSTS, Machine
from support.project import CHECKOUT, Project, Served, copy_to

pytestmark = pytest.mark.fault

DONE, FAILED, PENDING, NOT_STARTED = 0, 1, 2, 3
HANDMADE = ROOT / "tests/data/handmade"
#: Where a person put the files.
HOME = "/root/stacks"
QWEN = "vllm_qwen_gpu2"
SECOND = "vllm_llama_gpu0_1"
ADOPTED = "/var/lib/stoker/adopted"
STACKS = {
    "gpu10": ("memoryx-hybrid.yaml", "nginx-hybrid.conf"),
    "gpu65": ("bge-ha.yaml", "nginx-bge.conf"),
}
LATEST = {
    "vllm/vllm-openai:latest": "vllm/vllm-openai:v0.19.1",
    "ollama/ollama:latest": "ollama/ollama:0.32.15",
    "nginx:alpine": "nginx:1.30.6-alpine",
}


def start_by_hand(host: Machine) -> None:
    """Nothing of Stoker's runs; the documents' files lie in a directory, and `docker compose up -d` has been typed there."""
    host.sh(
        f"docker rm -f $(docker ps -aq) >/dev/null; rm -rf /opt/stoker /var/lib/stoker/ready {ADOPTED}; mkdir -p {HOME}",
        60,
    )
    for file in STACKS[host.name]:
        text = base64.b64encode((HANDMADE / file).read_bytes()).decode()
        host.sh(f"echo {text} | base64 -d >{HOME}/{file}")
    # Docker as a person has it, started after the container toolkit was installed: only then does it know NVIDIA's devices.
    settings = json.loads(host.read("/etc/docker/daemon.json"))
    del settings["features"]
    host.sh(f"echo '{json.dumps(settings)}' >/etc/docker/daemon.json && systemctl restart docker", 60)
    for latest, pinned in LATEST.items():
        host.sh(f"! docker image inspect {pinned} >/dev/null 2>&1 || docker tag {pinned} {latest}")
    host.sh(f"cd {HOME} && docker compose -f {STACKS[host.name][0]} up -d --pull never 2>&1", 60)


def made_of(host: Machine) -> dict[str, Any]:
    """Of every container what decides how it is made, and whether it runs; without the name that Docker thought of."""
    # One that has gone meanwhile is an error of docker's; the others are printed all the same.
    printed = host.sh("docker ps -aq | xargs -r docker inspect 2>/dev/null || true")
    found = {}
    for one in json.loads(printed or "[]"):
        config = {key: value for key, value in one["Config"].items() if key != "Hostname"}
        # Docker writes an empty list where Compose gave none.
        host_config = {key: None if value == [] else value for key, value in one["HostConfig"].items()}
        networks = {
            name: sorted(set(end["Aliases"] or ()) - {one["Id"][:12]})
            for name, end in one["NetworkSettings"]["Networks"].items()
        }
        found[one["Name"].lstrip("/")] = {
            "image": one["Image"],
            "networks": networks,
            "running": one["State"]["Running"],
            **{f"Config.{key}": value for key, value in config.items()},
            **{f"HostConfig.{key}": value for key, value in host_config.items()},
        }
    return found


def whose(host: Machine) -> dict[str, bool]:
    """Container -> whether it is Stoker's."""
    return {name: "stoker.configuration" in entry["Config.Labels"] for name, entry in made_of(host).items()}


def adopt(project: Project, *argv: str) -> Done:
    return project.stoker("adopt", *argv, seconds=120)


@pytest.fixture(scope="module")
def by_hand(served: Served) -> Iterator[None]:
    """The documents' stacks run on both hosts; afterwards nothing of them is left, and the fleet serves."""
    try:
        for host in HOSTS:
            host.set_load_seconds(0.4)  # engines are replaced one after the other
            start_by_hand(host)
        yield
    finally:
        for host in HOSTS:
            host.sh("docker rm -f $(docker ps -aq) >/dev/null", 60)
        healed = CHECKOUT.deploy(seconds=180)
    assert healed.code == DONE, str(healed)


@pytest.fixture
def project(served: Served, tmp_path: Path) -> Project:
    """A copy of the description; what the tests leave on the hosts the next one goes on with."""
    return copy_to(tmp_path)


def test_the_documents_own_stacks_are_replaced_and_brought_back(by_hand: None, project: Project) -> None:
    old = {host.name: made_of(host) for host in HOSTS}
    assert {name for host in old.values() for name, entry in host.items() if entry["running"]} == {
        *(f"vllm_llama_gpu{gpu}_{number}" for gpu in (0, 1) for number in (0, 1)),
        *(QWEN, "vllm_nginx", "ollama_bge_0", "ollama_bge_1", "bge_nginx"),
    }
    before = [(host.containers(), host.written()) for host in HOSTS]
    refused = project.deploy()
    assert refused.code == NOT_STARTED, str(refused)
    assert "stoker adopt" in refused.err
    assert f"{HOME}/memoryx-hybrid.yaml" in refused.err
    assert "vllm/vllm-openai:latest -> vllm/vllm-openai:v0.19.1" in refused.err
    asked = adopt(project, "--check")
    assert asked.code == PENDING, str(asked)
    assert (
        f"--trust-remote-code: on -> - (vllm_llama_gpu0_0, vllm_llama_gpu0_1, vllm_llama_gpu1_0, vllm_llama_gpu1_1, {QWEN})"
        in asked.err
    )
    assert "first, with an interruption of everything: merge settings into daemon.json and restart dockerd" in asked.err
    assert "restart: none -> always (ollama_bge_0, ollama_bge_1, bge_nginx)" in asked.err
    assert [(host.containers(), host.written()) for host in HOSTS] == before

    done = adopt(project, "--yes")
    assert done.code == DONE, str(done)
    smoke = project.stoker("smoke", seconds=60)
    assert smoke.code == 0, str(smoke)
    assert project.check().code == DONE

    for host in HOSTS:
        (script,) = re.findall(rf"{host.address} .*sh ({ADOPTED}/\S+/go-back.sh)", done.err)
        directory = script.rpartition("/")[0]
        assert host.sh(f"stat -c %a {directory}").strip() == "700"
        for file in STACKS[host.name]:
            host.sh(f"cmp {directory}/files{HOME}/{file} {HOME}/{file}")
        host.sh(f"sh {script}", 60)
        now = made_of(host)
        assert now.keys() == old[host.name].keys()
        for name, entry in now.items():
            assert entry == old[host.name][name], name
    again = adopt(project, "--yes", "--limit", GPU65.address)
    assert again.code == DONE, str(again)
    assert set(whose(GPU65).values()) == {True}
    assert set(whose(GPU10).values()) == {False}


def test_what_does_not_get_ready_is_put_back_and_the_next_run_goes_on(by_hand: None, project: Project) -> None:
    """Killed in the middle, then with an engine that does not come up, then without trouble. The test before left this host by hand."""
    assert set(whose(GPU10).values()) == {False}
    running = project.start("stoker", "adopt", "--yes", "--limit", GPU10.address)
    wait_for("the second one is Stoker's", functools.partial(is_stokers, GPU10, SECOND), 60)
    running.kill()
    assert project.finish(running, 10).code == -9
    assert whose(GPU10)[QWEN] is False

    GPU10.fault(QWEN, "oom-start")
    failed = adopt(project, "--yes", "--limit", GPU10.address)
    GPU10.fault(QWEN, "clear")
    assert failed.code == FAILED, str(failed)
    assert f"not replaced: {QWEN}, vllm_nginx" in failed.err
    assert f"{QWEN} is back" in failed.err
    now = whose(GPU10)
    assert {name for name, stokers in now.items() if not stokers} == {QWEN, "vllm_nginx"}
    assert len(now) == 6
    assert made_of(GPU10)[QWEN]["running"], "the old one runs again"

    healed = adopt(project, "--yes", "--limit", GPU10.address)
    assert healed.code == DONE, str(healed)
    assert set(whose(GPU10).values()) == {True}
    (script,) = re.findall(rf"sh ({ADOPTED}/\S+/go-back.sh)", healed.err)
    GPU10.sh(f"sh {script}", 60)
    assert set(whose(GPU10).values()) == {False}, "also what was replaced by the run that was killed"


def is_stokers(host: Machine, name: str) -> bool:
    return whose(host).get(name, False)
