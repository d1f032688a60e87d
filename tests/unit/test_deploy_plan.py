"""A whole deploy against hosts that are written down: what is planned, what is run, and the exit status.

Everything is real but the SSH connection (support/scripted_hosts.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.description import PROJECT, Description
from support.fleet import EMBEDDING, LLM
from support.forked import Call, call
from support.states import DRIVER_PACKAGES, FINGERPRINT, bare, converged, fleet_and_host, probe_output

from stoker.facts.state import FileState, HostState

GROUPS = {LLM: "llm", EMBEDDING: "embedding"}


@dataclass(frozen=True)
class Done:
    status: int
    errors: str  #: stderr, where all that a person reads goes


class Site:
    """A project directory and hosts that are written down."""

    def __init__(self, folder: Path) -> None:
        self.project, self.hosts = folder / "project", folder / "hosts"
        self.project.mkdir()
        description = Description.copy(self.project)
        description.append(
            "group_data/all.py",
            f'mirrors = {{"docker_key": "{FINGERPRINT}", "container_toolkit_key": "{FINGERPRINT}"}}\n',
        )
        for name in ("deploy.py", "config.py", "tasks"):
            (self.project / name).symlink_to(PROJECT / name)
        for name in GROUPS:
            (self.hosts / name).mkdir(parents=True)
            (self.hosts / name / "commands.txt").touch()
        self.description = description

    def write(self, name: str, make: Callable[[Any, Any], HostState], file: str = "probe.txt") -> None:
        """What the probe prints on a host."""
        fleet, host = fleet_and_host(GROUPS[name])
        state = replace(make(fleet, host), time=int(time.time()))
        (self.hosts / name / file).write_text(probe_output(state))

    def write_all(self, make: Callable[[Any, Any], HostState]) -> None:
        for name in GROUPS:
            self.write(name, make)

    def set(self, name: str, file: str, text: str) -> None:
        (self.hosts / name / file).write_text(text)

    def commands(self, name: str) -> list[str]:
        """What was run on a host: ``probe`` for the probe, else the command itself."""
        lines = (self.hosts / name / "commands.txt").read_text().splitlines()
        texts = [json.loads(line) for line in lines]
        return ["probe" if "@@stoker os" in text else "reach" if "getent ahosts" in text else text for text in texts]

    def run(self, program: str, *arguments: str) -> Done:
        home = self.project.parent / "home"
        home.mkdir(exist_ok=True)
        errors = self.project.parent / "errors.txt"
        done = call(
            Call(
                "support.scripted_hosts",
                "run",
                (self.hosts,),
                cwd=self.project,
                environment={"PATH": os.environ["PATH"], "HOME": str(home), "PYINFRA_PROGRESS": "off"},
                argv=(program, *arguments),
                stderr=errors,
            )
        )
        return Done(done.status, errors.read_text())

    def deploy(self, *arguments: str) -> Done:
        return self.run("stoker", "deploy", *arguments)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def bare_host(fleet: Any, host: Any) -> HostState:
    return bare(host)


def refused_host(fleet: Any, host: Any) -> HostState:
    return replace(bare(host), driver="", gpus=(), gpu_error="sh: 1: nvidia-smi: not found")


def without_tool(fleet: Any, host: Any) -> HostState:
    state = converged(fleet, host)
    return replace(state, files={path: f for path, f in state.files.items() if not path.endswith("fetch-model.py")})


def changing(commands: Sequence[str]) -> list[str]:
    return [command for command in commands if command not in ("probe", "reach")]


def test_a_plan_for_bare_hosts(site: Site) -> None:
    site.write_all(bare_host)
    done = site.deploy("--check")
    assert done.status == 2, done.errors
    for words in (
        "Plan",
        "- fetch the key of docker from https://download.docker.com/linux/debian/gpg",
        "- install docker-ce 5:28.5.2, docker-ce-cli 5:28.5.2, containerd.io, docker-buildx-plugin, docker-compose-plugin 2.40.3",
        "- describe 3 GPUs for containers",
        "- pull vllm/vllm-openai:v0.19.1",
        "- prove that ollama/ollama:0.32.15 computes on 2 x Tesla P40",
        "- bring Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8 to /data/projects/models/Qwen2.5-14B-Instruct-GPTQ-Int8 and verify it",
        "- make bge-m3 from bge-m3:567m with num_ctx 8192, num_batch 8192",
        "- wait until vllm_llama_gpu0_0, vllm_llama_gpu0_1, vllm_llama_gpu1_0, vllm_llama_gpu1_1, vllm_qwen_gpu2 answer",
    ):
        assert words in done.errors
    assert done.errors.index(LLM) < done.errors.index("3 GPUs") < done.errors.index(EMBEDDING)
    assert "changes are pending" in done.errors
    for name in GROUPS:
        assert site.commands(name) == ["probe", "reach"]


def test_nothing_to_do_costs_one_command_a_host(site: Site) -> None:
    site.write_all(converged)
    for arguments in (["--check"], ["--yes"], []):
        done = site.deploy(*arguments)
        assert done.status == 0, done.errors
        assert "No changes" in done.errors
    for name in GROUPS:
        assert site.commands(name) == ["probe"] * 3


def test_a_change_is_made_on_the_host_that_needs_it(site: Site) -> None:
    site.write_all(converged)
    site.write(LLM, without_tool)
    site.write(LLM, converged, "after.txt")
    site.set(LLM, "turns-on.txt", "fetch-model.py")
    done = site.deploy("--yes")
    assert done.status == 0, done.errors
    assert "- write /opt/stoker/bin/fetch-model.py" in done.errors
    (command,) = changing(site.commands(LLM))
    assert "mktemp -d /opt/stoker/bin/.stoker-new" in command
    assert changing(site.commands(EMBEDDING)) == []
    assert site.deploy("--check").status == 0


def test_without_a_terminal_nothing_is_done_unasked(site: Site) -> None:
    site.write_all(without_tool)
    done = site.deploy()
    assert done.status == 3
    assert "use --yes" in done.errors
    assert [changing(site.commands(name)) for name in GROUPS] == [[], []]


def test_a_failure_is_told_and_the_rest_is_not_run(site: Site) -> None:
    site.write_all(without_tool)
    site.set(LLM, "fails-on.txt", "fetch-model.py")
    site.write(EMBEDDING, converged, "after.txt")
    site.set(EMBEDDING, "turns-on.txt", "fetch-model.py")
    done = site.deploy("--yes")
    assert done.status == 1, done.errors
    assert "it failed" in done.errors
    assert len(changing(site.commands(LLM))) == 1


@pytest.mark.parametrize("arguments", [["--check"], ["--yes"]])
def test_a_refusal_on_one_host_stops_the_fleet(site: Site, arguments: list[str]) -> None:
    site.write_all(bare_host)
    site.write(EMBEDDING, refused_host)
    done = site.deploy(*arguments)
    assert done.status == 3, done.errors
    assert "Refused: 1 reason not to start; nothing was changed on any host." in done.errors
    assert f"{EMBEDDING}: no NVIDIA driver is installed" in done.errors
    assert "docs/troubleshooting.md#driver-missing" in done.errors
    assert [changing(site.commands(name)) for name in GROUPS] == [[], []]


def driverless_host(fleet: Any, host: Any) -> HostState:
    state = converged(fleet, host)
    packages = {name: version for name, version in state.packages.items() if name not in DRIVER_PACKAGES}
    return replace(
        state,
        driver="",
        gpus=(),
        gpu_error="sh: 1: nvidia-smi: not found",
        packages=packages,
        os_id="ubuntu",
        os_codename="noble",
    )


def with_two_cards(fleet: Any, host: Any) -> HostState:
    state = converged(fleet, host)
    return replace(state, gpus=state.gpus[:2])


@pytest.mark.parametrize(("then", "status"), [(converged, 0), (with_two_cards, 1)])
def test_a_driver_is_brought_and_its_cards_are_judged_then(
    site: Site, then: Callable[[Any, Any], HostState], status: int
) -> None:
    site.description.append("group_data/llm.py", 'nvidia = {"install_driver": True}\n')
    site.write_all(converged)
    site.write(LLM, driverless_host)
    site.write(LLM, then, "after.txt")
    site.set(LLM, "turns-on.txt", "modprobe nvidia")
    done = site.deploy("--yes")
    assert done.status == status, done.errors
    assert "- install nvidia-driver-580-server" in done.errors
    assert ("it has 2 GPUs, described are 3" in done.errors) == bool(status)
    assert not any("docker compose" in command for command in changing(site.commands(LLM)))


@pytest.mark.parametrize("arguments", [["-y"], ["--dry"]])
def test_plain_pyinfra_stops_too(site: Site, arguments: list[str]) -> None:
    site.write_all(bare_host)
    site.write(EMBEDDING, refused_host)
    done = site.run("pyinfra", "inventory.py", "deploy.py", *arguments)
    assert [changing(site.commands(name)) for name in GROUPS] == [[], []]
    if arguments == ["-y"]:
        assert done.status == 1
        assert "no NVIDIA driver is installed" in done.errors
        assert f"nothing was changed here, because of {EMBEDDING}" in done.errors


def test_plain_pyinfra_finds_nothing_to_do(site: Site) -> None:
    site.write_all(converged)
    done = site.run("pyinfra", "inventory.py", "deploy.py", "-y")
    assert done.status == 0, done.errors
    for name in GROUPS:
        assert site.commands(name) == ["probe"]


def test_plain_pyinfra_refuses_a_bad_description(site: Site) -> None:
    site.description.edit("group_data/llm.py", '"gpus": [2]', '"gpus": [7]')
    done = site.run("pyinfra", "inventory.py", "deploy.py", "-y")
    assert done.status == 3
    assert "GPU 7 does not exist" in done.errors
    assert site.commands(LLM) == []


def test_a_bad_description_is_refused_before_any_host_is_contacted(site: Site) -> None:
    site.description.edit("group_data/llm.py", '"gpus": [2]', '"gpus": [7]')
    site.description.edit("group_data/embedding.py", '"gpus": [1]', '"gpus": [7]')
    done = site.deploy("--yes")
    assert done.status == 3
    assert "2 problems in the description; no host was contacted." in done.errors
    assert [site.commands(name) for name in GROUPS] == [[], []]


def test_an_unreachable_host_stops_the_fleet(site: Site) -> None:
    site.write_all(without_tool)
    site.set(EMBEDDING, "unreachable.txt", "Could not connect ([Errno 113] No route to host)")
    done = site.deploy("--yes")
    assert done.status == 3, done.errors
    assert f"Unreachable: {EMBEDDING}: Could not connect ([Errno 113] No route to host)" in done.errors
    assert "--skip-unreachable" in done.errors
    assert site.commands(LLM) == []


def test_without_the_unreachable_host_the_rest_goes_on_and_the_status_tells(site: Site) -> None:
    site.write(LLM, converged)
    site.set(EMBEDDING, "unreachable.txt", "Could not connect")
    done = site.deploy("--yes", "--skip-unreachable")
    assert done.status == 1, done.errors
    assert f"Going on without {EMBEDDING}; the exit status will be 1." in done.errors
    assert site.commands(LLM) == ["probe"]


def test_plain_pyinfra_stops_at_an_unreachable_host(site: Site) -> None:
    site.write_all(without_tool)
    site.set(EMBEDDING, "unreachable.txt", "Could not connect")
    done = site.run("pyinfra", "inventory.py", "deploy.py", "-y")
    assert done.status == 1, done.errors
    assert changing(site.commands(LLM)) == []


def test_a_limit_leaves_the_other_host_alone(site: Site) -> None:
    site.write_all(bare_host)
    site.set(EMBEDDING, "unreachable.txt", "Could not connect")
    for pattern in (LLM, "llm", "192.168.31.1*"):
        done = site.deploy("--check", "--limit", pattern)
        assert done.status == 2, done.errors
        assert "Unreachable" not in done.errors
    assert site.commands(EMBEDDING) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "gpu11"], "--limit: pattern = 'gpu11'"),
        (["--only", "vllm_qwen"], "--only: instance = 'vllm_qwen'"),
        (["--inventory", "inventroy.py"], "inventroy.py: inventory"),
        (["--group-data", "sites"], "sites: group data"),
    ],
)
def test_a_slip_on_the_command_line(site: Site, arguments: list[str], words: str) -> None:
    done = site.deploy("--check", *arguments)
    assert done.status == 3
    assert words in done.errors
    assert [site.commands(name) for name in GROUPS] == [[], []]


def test_one_instance_only(site: Site) -> None:
    def stopped(fleet: Any, host: Any) -> HostState:
        state = converged(fleet, host)
        return replace(state, containers={n: replace(c, status="exited") for n, c in state.containers.items()})

    site.write(LLM, stopped)
    site.write(EMBEDDING, stopped)
    done = site.deploy("--check", "--only", "vllm_qwen_gpu2")
    assert done.status == 2
    assert "- vllm_qwen_gpu2: start, it is exited" in done.errors
    assert "vllm_llama" not in done.errors
    assert "ollama_bge" not in done.errors
    assert "nginx" not in done.errors


def test_what_is_interrupted_is_told_before_it_is_done(site: Site) -> None:
    def older(fleet: Any, host: Any) -> HostState:
        state = converged(fleet, host)
        return replace(state, contents={**state.contents, "/etc/docker/daemon.json": "{}"})

    site.write_all(converged)
    site.write(LLM, older)
    done = site.deploy("--check")
    assert done.status == 2
    assert "- merge settings into daemon.json and restart dockerd INTERRUPTS 6 running containers" in done.errors
    assert f"{EMBEDDING}  nothing to do" in done.errors


def test_a_lost_stamp_is_waited_for_and_nothing_else_is_done(site: Site) -> None:
    def unproven(fleet: Any, host: Any) -> HostState:
        state = converged(fleet, host)
        return replace(state, contents={**state.contents, "/var/lib/stoker/ready/ollama_bge_1": ""})

    site.write_all(converged)
    site.write(EMBEDDING, unproven)
    done = site.deploy("--check")
    assert done.status == 2
    assert "- wait until ollama_bge_1 answers" in done.errors
    assert done.errors.count("\n    - ") == 1


def test_a_secret_that_is_not_given_is_refused(site: Site) -> None:
    site.write_all(bare_host)
    site.description.append("group_data/all.py", 'keys = {"hub": "MY_TOKEN"}\n')
    done = site.deploy("--check")
    assert done.status == 3
    assert "export MY_TOKEN=" in done.errors


def test_foreign_files_on_a_host_are_kept(site: Site) -> None:

    def more(fleet: Any, host: Any) -> HostState:
        state = converged(fleet, host)
        return replace(
            state, files={**state.files, "/opt/stoker/bin/mine": FileState("regular file", "644", "root", "root")}
        )

    site.write_all(more)
    assert site.deploy("--check").status == 0


def test_two_deploys_at_once(site: Site) -> None:
    site.write_all(converged)
    with open(site.project / ".stoker.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = site.deploy("--check")
    assert done.status == 3
    assert "another deploy of inventory.py is going on" in done.errors
    assert site.commands(LLM) == []


def test_a_host_without_the_instance_is_not_even_connected_to(site: Site) -> None:
    site.write_all(bare_host)
    site.set(EMBEDDING, "unreachable.txt", "Could not connect")
    done = site.deploy("--check", "--only", "vllm_qwen_gpu2")
    assert done.status == 2, done.errors
    assert "Unreachable" not in done.errors
    assert "bring Qwen/Qwen2.5" in done.errors
    assert "Meta-Llama" not in done.errors


def test_a_limit_to_a_host_that_cannot_be_reached(site: Site) -> None:
    site.set(EMBEDDING, "unreachable.txt", "Could not connect")
    done = site.deploy("--yes", "--limit", "embedding")
    assert done.status == 3, done.errors
    assert f"Unreachable: {EMBEDDING}: Could not connect" in done.errors
    assert "Going on" not in done.errors


def test_no_host_can_be_reached(site: Site) -> None:
    for name in GROUPS:
        site.set(name, "unreachable.txt", f"Could not connect to {name}")
    for arguments in ([], ["--skip-unreachable"]):
        done = site.deploy("--yes", *arguments)
        assert done.status == 3, done.errors
        assert all(f"Could not connect to {name}" in done.errors for name in GROUPS)
        assert "Going on" not in done.errors


def test_a_changed_host_key_comes_with_the_command_that_accepts_it(site: Site) -> None:
    site.write_all(converged)
    site.set(
        LLM,
        "unreachable.txt",
        f"SSH host key error (Host key for server '{LLM}' does not match: got 'x', expected 'y')",
    )
    done = site.deploy("--yes")
    assert done.status == 3, done.errors
    assert f"-R {LLM}" in done.errors
    assert "ssh-keygen" in done.errors
    assert site.commands(EMBEDDING) == []


def test_a_host_whose_answer_is_lost_is_not_judged_by_it(site: Site) -> None:
    site.write_all(bare_host)
    site.set(LLM, "probe.txt", "")
    done = site.deploy("--yes")
    assert done.status == 3, done.errors
    assert f"{LLM}: nothing could be found out about it" in done.errors
    assert "not supported" not in done.errors
    assert [changing(site.commands(name)) for name in GROUPS] == [[], []]


def test_a_connection_that_is_lost_in_the_middle_is_no_bare_host(site: Site) -> None:
    """Nothing known must not be taken for nothing there: everything would be installed anew."""
    site.write_all(converged)
    site.write(LLM, without_tool)
    site.set(LLM, "after.txt", "")
    site.set(LLM, "turns-on.txt", "fetch-model.py")
    done = site.deploy("--yes")
    assert done.status == 1, done.errors
    assert "the host cannot be reached any more; deploy again when it can" in done.errors
    assert len(changing(site.commands(LLM))) == 1


def test_plain_pyinfra_goes_on_without_an_unreachable_host_when_told(site: Site) -> None:
    site.write_all(without_tool)
    site.write(LLM, converged, "after.txt")
    site.set(LLM, "turns-on.txt", "fetch-model.py")
    site.set(EMBEDDING, "unreachable.txt", "Could not connect")
    done = site.run("pyinfra", "inventory.py", "deploy.py", "-y", "--data", "skip_unreachable=true")
    assert done.status == 1, done.errors
    assert len(changing(site.commands(LLM))) == 1


def test_plain_pyinfra_touches_one_instance_when_told(site: Site) -> None:
    site.write_all(bare_host)
    done = site.run("pyinfra", "inventory.py", "deploy.py", "--dry", "--data", "only=vllm_qwen")
    assert done.status == 3
    assert "--only: instance = 'vllm_qwen'" in done.errors


def test_a_description_is_checked_without_any_host(site: Site) -> None:
    assert site.run("stoker", "check-description").status == 0
    site.description.edit("group_data/llm.py", '"gpus": [2]', '"gpus": [7]')
    done = site.run("stoker", "check-description")
    assert done.status == 3
    assert "GPU 7 does not exist" in done.errors
    assert [site.commands(name) for name in GROUPS] == [[], []]
