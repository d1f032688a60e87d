"""What cannot work is refused with every reason at once, and nothing is touched on any host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from support.commands import Done, wait_for
from support.machine import HOSTS, Machine
from support.project import Project

NOT_STARTED = 3


def _seen() -> list[object]:
    """Everything on all hosts that a run may change."""
    return [(host.containers(), host.written()) for host in HOSTS]


def _give_both_hosts_something_to_do() -> None:
    """So that "nothing was touched" is not because nothing was to be done."""
    for host in HOSTS:
        host.sh("rm -f /opt/stoker/bin/fetch-model.py")


def _by_stoker(project: Project) -> Done:
    return project.deploy()


def _by_pyinfra_yes(project: Project) -> Done:
    return project.pyinfra("-y")


def _by_pyinfra(project: Project) -> Done:
    return project.pyinfra()


RUNS = [
    pytest.param(_by_stoker, id="stoker"),
    pytest.param(_by_pyinfra_yes, id="pyinfra-y"),
    pytest.param(_by_pyinfra, id="pyinfra"),
]


@pytest.mark.parametrize("run", RUNS)
def test_a_bad_description_is_refused_before_any_host_is_contacted(
    run: Callable[[Project], Done], project: Project
) -> None:
    project.edit("group_data/all.py", "vllm/vllm-openai:v0.19.1", "vllm/vllm-openai:latest")
    project.edit("group_data/llm.py", '"port": 11402', '"port": 11401')
    project.edit("group_data/llm.py", '"gpus": [2]', '"gpus": [7]')
    project.edit("group_data/llm.py", '"dtype": "half"', '"dtypo": "half"')
    contacts, seen = [host.contacts() for host in HOSTS], _seen()
    done = run(project)
    assert done.code == NOT_STARTED, done
    for wrong in ("latest", "11401", "vllm_qwen_gpu2", "dtypo"):
        assert wrong in done.err, done
    assert [host.contacts() for host in HOSTS] == contacts
    assert _seen() == seen


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--limit", "192.168.31.11"], "192.168.31.10"),
        (["--only", "vllm_lama_gpu0_0"], "vllm_llama_gpu0_0"),
        (["-i", "no-such-inventory.py"], "no-such-inventory.py"),
    ],
)
def test_a_mistyped_option_is_refused_before_any_host_is_contacted(
    argv: list[str], named: str, project: Project
) -> None:
    contacts = [host.contacts() for host in HOSTS]
    done = project.deploy(*argv)
    assert done.code == NOT_STARTED, done
    assert named in done.err
    assert [host.contacts() for host in HOSTS] == contacts


@dataclass(frozen=True)
class Obstacle:
    """Something on one host that speaks against a deploy."""

    host: str
    script: str
    clear: str
    reason: str


OBSTACLES = {
    "a port is taken": Obstacle(
        "gpu10",
        "docker stop -t 5 vllm_qwen_gpu2 >/dev/null; setsid python3 -m http.server 11405 >/dev/null 2>&1 & "
        "i=0; until ss -Hltn sport = :11405 | grep -q .; do i=$((i+1)); test $i -lt 50 || exit 1; sleep 0.1; done",
        "kill $(ss -Hltnp sport = :11405 | sed 's/.*pid=//; s/,.*//')",
        "port 11405, wanted by vllm_qwen_gpu2, is held by python3",
    ),
    "the driver is not loaded": Obstacle(
        "gpu10",
        "/usr/lib/lab-gpu/fault driver not-loaded",
        "/usr/lib/lab-gpu/fault driver clear",
        "NVIDIA-SMI has failed",
    ),
    "driver and library differ": Obstacle(
        "gpu65",
        "/usr/lib/lab-gpu/fault driver version-mismatch",
        "/usr/lib/lab-gpu/fault driver clear",
        "reboot the host",
    ),
    "daemon.json is broken": Obstacle(
        "gpu65",
        "cp -p /etc/docker/daemon.json /run/kept; echo '{\"log-driver\": ' >/etc/docker/daemon.json",
        "mv /run/kept /etc/docker/daemon.json",
        "/etc/docker/daemon.json cannot be read",
    ),
    "a container of this name exists already": Obstacle(
        "gpu65",
        "docker rm -f ollama_bge_1 >/dev/null; docker create --name ollama_bge_1 nginx:1.30.6-alpine >/dev/null",
        "docker rm -f ollama_bge_1 >/dev/null",
        "was not made by Compose",
    ),
}


@contextmanager
def _in_the_way(obstacle: Obstacle) -> Iterator[Machine]:
    host = next(host for host in HOSTS if host.name == obstacle.host)
    host.sh(obstacle.script)
    try:
        yield host
    finally:
        host.sh(obstacle.clear)


@pytest.mark.parametrize("name", OBSTACLES)
def test_an_obstacle_on_one_host_stops_the_run_for_all(name: str, project: Project) -> None:
    obstacle = OBSTACLES[name]
    _give_both_hosts_something_to_do()
    with _in_the_way(obstacle) as host:
        seen = _seen()
        for run in (_by_stoker, _by_pyinfra_yes, _by_pyinfra):
            done = run(project)
            assert done.code == (NOT_STARTED if run is _by_stoker else 1), done
            if run is not _by_pyinfra:  # without a terminal it ends at its question
                assert obstacle.reason in done.err, done
                assert host.address in done.err
        check = project.check()
        assert check.code == NOT_STARTED
        assert _seen() == seen


def test_without_a_terminal_and_without_yes_nothing_is_done(project: Project) -> None:
    _give_both_hosts_something_to_do()
    seen = _seen()
    done = project.stoker("deploy")
    assert done.code == NOT_STARTED, done
    assert "--yes" in done.err
    assert _seen() == seen


def test_two_deploys_at_once_are_refused(project: Project, gpu10: Machine) -> None:
    gpu10.set_load_seconds(6)
    gpu10.sh("docker rm -f vllm_qwen_gpu2")
    first = project.start("stoker", "deploy", "--yes")
    wait_for("the first deploy has made the container", lambda: "vllm_qwen_gpu2" in gpu10.containers(), 60)
    second = project.deploy()
    assert second.code == NOT_STARTED, second
    assert "another deploy" in second.err
    done = project.finish(first, 60)
    assert done.code == 0, done
