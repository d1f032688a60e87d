"""What cannot work is refused with every reason at once, and nothing is touched on any host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from support.commands import Done
from support.machine import GPU10, GPU65, HOSTS, Machine
from support.project import Project, pyinfra_argv

NOT_STARTED = 3
STOKER = ["stoker", "deploy", "--yes"]


def seen() -> list[object]:
    """Everything on all hosts that a run may change."""
    return [(host.containers(), host.written()) for host in HOSTS]


def give_both_hosts_something_to_do() -> None:
    """So that "nothing was touched" is not because nothing was to be done."""
    for host in HOSTS:
        host.sh("rm -f /opt/stoker/bin/fetch-model.py")


def run_in_all_ways(project: Project) -> list[Done]:
    """By stoker, by plain pyinfra with -y, and without (there is no terminal to ask)."""
    return project.at_once(STOKER, pyinfra_argv("-y"), pyinfra_argv())


def test_a_bad_description_is_refused_before_any_host_is_contacted(reader: Project) -> None:
    reader.edit("group_data/all.py", "vllm/vllm-openai:v0.19.1", "vllm/vllm-openai:latest")
    reader.edit("group_data/llm.py", '"port": 11402', '"port": 11401')
    reader.edit("group_data/llm.py", '"gpus": [2]', '"gpus": [7]')
    reader.edit("group_data/llm.py", '"dtype": "half"', '"dtypo": "half"')
    contacts, before = [host.contacts() for host in HOSTS], seen()
    for done in run_in_all_ways(reader):
        assert done.code == NOT_STARTED, str(done)
        for wrong in ("latest", "11401", "vllm_qwen_gpu2", "dtypo"):
            assert wrong in done.err, str(done)
    assert [host.contacts() for host in HOSTS] == contacts
    assert seen() == before


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--limit", "192.168.31.11"], "192.168.31.10"),
        (["--only", "vllm_lama_gpu0_0"], "vllm_llama_gpu0_0"),
        (["-i", "no-such-inventory.py"], "no-such-inventory.py"),
    ],
)
def test_a_mistyped_option_is_refused_before_any_host_is_contacted(
    argv: list[str], named: str, reader: Project
) -> None:
    contacts = [host.contacts() for host in HOSTS]
    done = reader.deploy(*argv)
    assert done.code == NOT_STARTED, str(done)
    assert named in done.err
    assert [host.contacts() for host in HOSTS] == contacts


@dataclass(frozen=True)
class Obstacle:
    """Something on one host that speaks against a deploy."""

    host: Machine
    script: str
    clear: str
    reason: str


PORT_TAKEN = Obstacle(
    GPU10,
    "docker stop -t 5 vllm_qwen_gpu2 >/dev/null; setsid python3 -m http.server 11405 >/dev/null 2>&1 & "
    "i=0; until ss -Hltn sport = :11405 | grep -q .; do i=$((i+1)); test $i -lt 50 || exit 1; sleep 0.1; done",
    "kill $(ss -Hltnp sport = :11405 | sed 's/.*pid=//; s/,.*//')",
    "port 11405, wanted by vllm_qwen_gpu2, is held by python3",
)
#: A program on the host that holds 20 GiB of the third card; of the 32 vLLM would ask for 27.2.
CARD_TAKEN = Obstacle(
    GPU10,
    """cat >/run/taker.py <<'END'
import sys, time
sys.path.insert(0, "/usr/lib/lab-gpu")
from lab_gpu import accounting, machine
taken = accounting.Allocation(machine.read_machine()["gpus"][2], "python3")
taken.set(20 << 30)
open("/run/taken", "w").close()
time.sleep(600)
END
setsid python3 /run/taker.py >/dev/null 2>&1 & echo $! >/run/taker.pid
i=0; until test -e /run/taken; do i=$((i+1)); test $i -lt 50 || exit 1; sleep 0.1; done""",
    "kill $(cat /run/taker.pid); rm -f /run/taker.pid /run/taken /run/taker.py",
    "12.0 GiB are left, vllm_qwen_gpu2 ask for 27.2: they do not start when less is free",
)
NEWER_BRANCH = Obstacle(
    GPU10,
    "/usr/lib/lab-gpu/fault driver version=590.44.01",
    "/usr/lib/lab-gpu/fault driver clear",
    "driver 590.44.01 has no support for Tesla V100",
)
SNAP = Obstacle(
    GPU10,
    "mkdir -p /snap/bin && ln -s /usr/bin/docker /snap/bin/docker",
    "rm -r /snap",
    "Docker is installed as a snap",
)
HALF_CONFIGURED = Obstacle(
    GPU10,
    "cp -p /var/lib/dpkg/status /run/kept-status && "
    "sed -i '/^Package: iproute2$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status",
    "cp -p /run/kept-status /var/lib/dpkg/status && rm /run/kept-status",
    "the package manager was interrupted (iproute2)",
)
OLD_COMPOSE = Obstacle(
    GPU10,
    "mkdir -p /root/.docker/cli-plugins && cd /root/.docker/cli-plugins && "
    "printf '#!/bin/sh\\necho 2.29.7\\n' >docker-compose && chmod 755 docker-compose",
    "rm -r /root/.docker/cli-plugins",
    "/root/.docker/cli-plugins/docker-compose (Compose 2.29.7) goes before",
)
#: Something to download, and nothing that answers where it comes from.
NO_CONNECTION = Obstacle(
    GPU10,
    "mv /etc/apt/sources.list.d/docker.sources /run/ && cp /etc/hosts /run/hosts && "
    "echo 127.0.0.1 packages.internet.test >>/etc/hosts",
    "cat /run/hosts >/etc/hosts; mv /run/docker.sources /etc/apt/sources.list.d/",
    "http://packages.internet.test/docker/linux cannot be reached: no connection could be opened from there",
)
NO_NAME = Obstacle(
    GPU65,
    "mv /etc/apt/sources.list.d/docker.sources /run/ && cp /etc/resolv.conf /run/resolv.conf && "
    "echo nameserver 127.0.0.9 >/etc/resolv.conf",
    "cat /run/resolv.conf >/etc/resolv.conf; mv /run/docker.sources /etc/apt/sources.list.d/",
    "http://packages.internet.test/docker/linux cannot be reached: its name does not resolve there",
)
CARD_MISSING = Obstacle(
    GPU65,
    "mv /dev/nvidia1 /dev/hidden1",
    "mv /dev/hidden1 /dev/nvidia1",
    "it has 1 GPU, described are 2",
)
OLDER_BRANCH = Obstacle(
    GPU65,
    "/usr/lib/lab-gpu/fault driver version=550.163.01",
    "/usr/lib/lab-gpu/fault driver clear",
    "would serve from the CPU instead of the Tesla P40",
)
PODMAN = Obstacle(
    GPU65,
    "printf '#!/bin/sh\\n# podman\\nexec /usr/bin/docker \"$@\"\\n' >/usr/local/bin/docker && chmod 755 /usr/local/bin/docker",
    "rm /usr/local/bin/docker",
    "/usr/local/bin/docker is Podman under Docker's name",
)
LISTED_TWICE = Obstacle(
    GPU65,
    "echo 'deb [signed-by=/usr/share/keyrings/docker.gpg] http://packages.internet.test/docker/linux/debian bookworm stable' "
    ">/etc/apt/sources.list.d/by-hand.list",
    "rm /etc/apt/sources.list.d/by-hand.list",
    "/etc/apt/sources.list.d/by-hand.list lists http://packages.internet.test/docker/linux/debian with another key",
)
SMALL_DISK = Obstacle(
    GPU65,
    "mount -t tmpfs -o size=64m none /data/ollama_models",
    "umount /data/ollama_models",
    "has 0.1 GiB free, still to come are about",
)
NO_DRIVER = Obstacle(
    GPU10,
    "/usr/lib/lab-gpu/fault driver not-loaded",
    "/usr/lib/lab-gpu/fault driver clear",
    "NVIDIA-SMI has failed",
)
WRONG_LIBRARY = Obstacle(
    GPU10,
    "/usr/lib/lab-gpu/fault driver version-mismatch",
    "/usr/lib/lab-gpu/fault driver clear",
    "Driver/library version mismatch",
)
#: What root's docker says when it is led to a user's own daemon.
ROOTLESS = Obstacle(
    GPU10,
    """cat >/usr/local/bin/docker <<'END'
#!/bin/sh
test "$1" = info || DOCKER_CONTEXT=default exec /usr/bin/docker "$@"
echo '{"ServerVersion":"28.5.2","DockerRootDir":"/home/ada/.local/share/docker","DriverStatus":null,"SecurityOptions":["name=rootless"]}'
END
chmod 755 /usr/local/bin/docker; mkdir -p /root/.docker; echo '{"currentContext":"rootless"}' >/root/.docker/config.json""",
    "rm /usr/local/bin/docker /root/.docker/config.json",
    "the Docker that answers is a rootless one",
)
BROKEN_DAEMON_JSON = Obstacle(
    GPU65,
    "cp -p /etc/docker/daemon.json /run/kept; echo '{\"log-driver\": ' >/etc/docker/daemon.json",
    "mv /run/kept /etc/docker/daemon.json",
    "/etc/docker/daemon.json cannot be read",
)
NAME_TAKEN = Obstacle(
    GPU65,
    "docker rm -f ollama_bge_1 >/dev/null; docker create --name ollama_bge_1 nginx:1.30.6-alpine >/dev/null",
    "docker rm -f ollama_bge_1 >/dev/null",
    "was not made by Compose",
)


@contextmanager
def in_the_way(obstacle: Obstacle) -> Iterator[None]:
    obstacle.host.sh(obstacle.script)
    try:
        yield
    finally:
        obstacle.host.sh(obstacle.clear)


@pytest.mark.parametrize(
    "obstacles",
    [
        pytest.param([PORT_TAKEN], id="a port is taken"),
        pytest.param(
            [BROKEN_DAEMON_JSON, WRONG_LIBRARY, ROOTLESS], id="daemon.json is broken, driver and Docker wrong"
        ),
        pytest.param([NO_DRIVER, NAME_TAKEN], id="no driver here and a foreign container there"),
        pytest.param(
            [
                *(PORT_TAKEN, CARD_TAKEN, NEWER_BRANCH, SNAP, HALF_CONFIGURED, OLD_COMPOSE, NO_CONNECTION),
                *(CARD_MISSING, OLDER_BRANCH, PODMAN, LISTED_TWICE, SMALL_DISK, NO_NAME),
            ],
            id="everything at once",
        ),
    ],
)
def test_an_obstacle_on_one_host_stops_the_run_for_all(obstacles: list[Obstacle], project: Project) -> None:
    give_both_hosts_something_to_do()
    with ExitStack() as stack:
        for obstacle in obstacles:
            stack.enter_context(in_the_way(obstacle))
        before = seen()
        by_stoker, by_pyinfra_yes, by_pyinfra = run_in_all_ways(project)
        for obstacle in obstacles:
            for done in (by_stoker, by_pyinfra_yes):
                assert obstacle.reason in done.err, str(done)
                assert obstacle.host.address in done.err
        assert by_stoker.code == NOT_STARTED
        assert by_pyinfra_yes.code == 1
        assert by_pyinfra.code == 1
        assert seen() == before


def test_without_a_terminal_and_without_yes_nothing_is_done(project: Project) -> None:
    give_both_hosts_something_to_do()
    before = seen()
    done = project.stoker("deploy")
    assert done.code == NOT_STARTED, str(done)
    assert "--yes" in done.err
    assert seen() == before


def test_a_card_that_is_not_there_is_refused_with_those_that_are(project: Project) -> None:
    missing = "GPU-00000000-0000-0000-0000-000000000000"
    project.edit("group_data/embedding.py", '"gpus": [1]', f'"gpus": ["{missing}"]')
    give_both_hosts_something_to_do()
    before = seen()
    done = project.deploy()
    assert done.code == NOT_STARTED, str(done)
    assert f"{missing}, wanted by ollama_bge_1, is not there" in done.err
    for row in GPU65.sh("nvidia-smi --query-gpu=index,uuid --format=csv,noheader").splitlines():
        index, uuid = row.split(", ")
        assert f"{index} = {uuid} = 0000:" in done.err
    assert seen() == before


SECOND_QWEN = (
    '{"name": "vllm_qwen_gpu2_1", "gpus": [2], "port": 11406, **_qwen, '
    '"arguments": {**_qwen["arguments"], "dtype": "bfloat16"}},'
)


def test_what_the_cards_cannot_do_is_refused_with_what_they_can(project: Project) -> None:
    """Two of the larger model on one card, as the documents forbid, a context that no card holds, and what a V100 lacks."""
    project.edit("group_data/llm.py", '"gpu-memory-utilization": 0.85', '"gpu-memory-utilization": 0.48')
    project.edit("group_data/llm.py", '"max-model-len": 8192', '"max-model-len": 131072')
    project.edit("group_data/llm.py", "11405, **_qwen},", f"11405, **_qwen}},\n{SECOND_QWEN}")
    project.edit("group_data/all.py", "vllm/vllm-openai:v0.19.1", "vllm/vllm-openai:v0.20.0")
    give_both_hosts_something_to_do()
    before = seen()
    by_stoker, by_pyinfra_yes, by_pyinfra = run_in_all_ways(project)
    for done in (by_stoker, by_pyinfra_yes):
        for words in (
            "vllm_qwen_gpu2, vllm_qwen_gpu2_1: 0.48 of 31.68 GiB is 15.21 GiB; less 15.50 GiB weights",
            "one request of 131072 tokens needs 16.00 GiB of KV cache: vLLM would refuse to start",
            "max-model-len 50432 or gpu-memory-utilization 0.76",
            "cannot compute in bfloat16",
            "v0.19.1 is the last release that has",
        ):
            assert words in done.err, str(done)
    assert (by_stoker.code, by_pyinfra_yes.code, by_pyinfra.code) == (NOT_STARTED, 1, 1)
    assert seen() == before


def test_the_plan_says_what_the_deploy_would_refuse(project: Project) -> None:
    project.edit("group_data/llm.py", '"max-model-len": 8192', '"max-model-len": 131072')
    before = seen()
    planned = project.stoker("plan", "--json")
    refusing = [
        one["name"]
        for host in json.loads(planned.out)["hosts"]
        for one in host["instances"]
        if one["verdict"] == "refuse"
    ]
    assert planned.code == 1
    assert refusing == ["vllm_llama_gpu0_0", "vllm_llama_gpu0_1", "vllm_llama_gpu1_0", "vllm_llama_gpu1_1"]
    assert seen() == before
