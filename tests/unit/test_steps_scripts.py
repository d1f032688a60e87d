"""Scripts of the steps, executed by dash with stand-ins of docker, curl and systemctl: what they answer to what happens."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from support.states import bare, converged, fleet_and_host, steps
from support.stubs import Stubs

from stoker.steps import docker, ollama, toolkit
from stoker.steps.action import Action


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    found = Stubs(
        tmp_path / "stubs", path=""
    )  # nothing of this machine may be called by mistake: apt-mark, systemctl ...
    found.link("cat", "cp", "cut", "grep", "mv", "sha256sum", "touch", "tr", "wc")
    found.add("sleep", f'echo "$1" >>{tmp_path}/slept.txt')  # nothing here waits for a time, only counts
    return found


def ollama_actions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Action, Action]:
    """Pull and create of a bare host whose directories lie below a temporary one."""
    monkeypatch.setattr(ollama, "MODELS", str(folder / "state"))
    (folder / "state").mkdir()

    def change(data: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        data["embedding"]["stacks"][0]["model_directory"] = f"{folder}/models"

    _, host = fleet_and_host("embedding", change)
    pull, create = ollama.actions(host, bare(host))
    return pull, create


PROGRESS = '{"status":"pulling manifest"}\n{"status":"pulling 5b7","total":10,"completed":5}\n'


@pytest.mark.parametrize(
    ("stream", "status", "succeeds"),
    [
        (PROGRESS + '{"status":"success"}\n', 0, True),
        (PROGRESS + '{"status":"success"}', 0, True),  # no new line at the end
        (PROGRESS + '{"error":"pull model manifest: file does not exist"}\n', 0, False),
        (PROGRESS, 18, False),  # the connection was closed
        ("", 7, False),
        ('{"status":"success"}\n{"error":"disk full"}\n', 0, False),
    ],
)
def test_how_a_pull_ended_stands_in_its_last_line(
    stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str, status: int, succeeds: bool
) -> None:
    pull, _ = ollama_actions(tmp_path, monkeypatch)
    (tmp_path / "stream").write_text(stream)
    stubs.add("curl", f'case "$*" in */api/version*) ;; */api/pull*) cat {tmp_path}/stream; exit {status};; esac')
    done = stubs.run(pull.script)
    assert (done.returncode == 0) is succeeds
    assert done.stdout.split() == stream.split()  # the person sees the progress, and the error


def test_a_served_model_is_noted_with_the_manifest_that_was_made(
    stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, create = ollama_actions(tmp_path, monkeypatch)
    manifest = tmp_path / "models/models/manifests/registry.ollama.ai/library/bge-m3/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("manifest")
    stubs.notes("curl")
    assert stubs.run(create.script).returncode == 0
    assert '"num_batch": 8192' in stubs.called()[-1]
    (file,) = (tmp_path / "state").glob("ollama-bge-m3_*")
    record = file.read_text()
    assert record.startswith(hashlib.sha256(b"manifest").hexdigest() + ' {"from": "bge-m3:567m", ')


def test_nothing_is_noted_when_the_model_could_not_be_made(
    stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, create = ollama_actions(tmp_path, monkeypatch)
    stubs.add("curl", 'case "$*" in */api/create*) echo \'{"error":"no such model"}\'; exit 22;; esac')
    done = stubs.run(create.script)
    assert done.returncode != 0
    assert "no such model" in done.stdout
    assert list((tmp_path / "state").iterdir()) == []


def test_an_ollama_that_never_answers(stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull, _ = ollama_actions(tmp_path, monkeypatch)
    stubs.add("curl", "exit 7")
    stubs.add("docker", 'echo "the log of $4"')
    done = stubs.run(pull.script)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["Ollama in ollama_bge_0 does not answer", "the log of ollama_bge_0"]
    waited = [float(line) for line in (tmp_path / "slept.txt").read_text().split()]
    assert 30 < sum(waited) < 120


def reload_action() -> tuple[Action, str]:
    """The reload of the gateway that runs an old configuration, and the identity of the new one."""
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    identity = state.answers["gateway-memoryx-hybrid"]
    (action,) = steps(fleet, host, replace(state, answers={**state.answers, "gateway-memoryx-hybrid": "0"}))["gateway"]
    return action, identity


def answering(identity: str) -> str:
    return f"printf 'HTTP/1.1 200 OK\\r\\nX-Stoker-Config: {identity}\\r\\n\\r\\n'"


def test_a_reload_is_done_when_nginx_answers_with_the_new_configuration(stubs: Stubs, tmp_path: Path) -> None:
    """Not when the signal was sent: old workers answer for a moment."""
    action, identity = reload_action()
    stubs.notes("docker")
    late = f"test $(wc -l <{tmp_path}/asked.txt) -gt 3"
    stubs.add(
        "curl", f"echo x >>{tmp_path}/asked.txt; if {late}; then {answering(identity)}; else {answering('0')}; fi"
    )
    assert stubs.run(action.script).returncode == 0
    test, reload = stubs.called()
    assert test == "docker exec vllm_nginx nginx -c /etc/nginx/stoker/nginx-hybrid.conf -t -q"
    assert reload == "docker exec vllm_nginx nginx -c /etc/nginx/stoker/nginx-hybrid.conf -s reload"


def test_a_reload_that_nginx_does_not_follow(stubs: Stubs) -> None:
    action, _ = reload_action()
    stubs.add("docker", 'test "$1" = logs && echo "nginx: [emerg] host not found" || true')
    stubs.add("curl", answering("0"))
    done = stubs.run(action.script)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["nginx still runs its old configuration", "nginx: [emerg] host not found"]


def test_a_configuration_that_nginx_refuses_is_not_loaded(stubs: Stubs) -> None:
    action, _ = reload_action()
    stubs.add("docker", f'echo "$*" >>{stubs.folder}/called.txt; case "$*" in *-t*) exit 1;; esac')
    stubs.add("curl", answering("0"))
    assert stubs.run(action.script).returncode != 0
    assert not any("reload" in line for line in stubs.called())


def describe_action(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Action:
    monkeypatch.setattr(toolkit, "CDI", str(folder / "nvidia.yaml"))
    fleet, host = fleet_and_host("embedding")
    (action,) = toolkit.actions(host, replace(converged(fleet, host), contents={}))
    return action


DESCRIBED = "".join(
    f"{word}\n" for word in ("/dev/nvidia-uvm", *(f"GPU-0000000{n}-5b8e-47c1-9d2a-00000000000{n}" for n in (0, 1)))
)


@pytest.mark.parametrize(
    ("by_service", "by_hand", "succeeds", "programs"),
    [
        (DESCRIBED, "", True, ["create", "restart"]),
        ("", DESCRIBED, True, ["create", "restart", "generate"]),
        (DESCRIBED[:-60], DESCRIBED, True, ["create", "restart", "generate"]),
        ("", DESCRIBED[:-60], False, ["create", "restart", "generate"]),
    ],
)
def test_cards_are_described_by_the_toolkits_service_or_by_hand(
    stubs: Stubs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_service: str,
    by_hand: str,
    succeeds: bool,
    programs: list[str],
) -> None:
    action = describe_action(tmp_path, monkeypatch)
    (tmp_path / "service").write_text(by_service)
    (tmp_path / "hand").write_text(by_hand)
    note = f'echo "$*" >>{stubs.folder}/called.txt'
    stubs.add("systemctl", f"{note}; cp {tmp_path}/service {tmp_path}/nvidia.yaml")
    stubs.add("nvidia-ctk", f"{note}; case $1 in cdi) cp {tmp_path}/hand {tmp_path}/nvidia.yaml;; *) exit 1;; esac")
    assert (stubs.run(action.script).returncode == 0) is succeeds
    assert [next(word for word in programs if word in line) for line in stubs.called()] == programs


def test_docker_counts_as_started_when_its_api_answers(stubs: Stubs, tmp_path: Path) -> None:
    _, host = fleet_and_host("llm")
    start = docker.actions(host, bare(host))[-1]
    stubs.notes("systemctl")
    stubs.add("docker", f"echo x >>{tmp_path}/asked.txt; test $(wc -l <{tmp_path}/asked.txt) -gt 5")
    assert stubs.run(start.script).returncode == 0
    assert stubs.called() == ["systemctl enable --now docker.service"]


def test_a_docker_that_does_not_start_tells_its_log(stubs: Stubs) -> None:
    _, host = fleet_and_host("llm")
    start = docker.actions(host, bare(host))[-1]
    stubs.notes("systemctl")
    stubs.add("docker", "exit 1")
    stubs.prints("journalctl", "dockerd: failed to start daemon: bad option\n")
    done = stubs.run(start.script)
    assert done.returncode == 1
    assert "failed to start daemon" in done.stdout


def test_packages_are_installed_again_after_the_lists_were_refreshed(stubs: Stubs, tmp_path: Path) -> None:
    """A fresh machine does not know the packages yet; one that knows them is not made to wait for the lists."""
    _, host = fleet_and_host("llm")
    install = docker.actions(host, bare(host))[1]
    stubs.add(
        "apt-get",
        f'case "$*" in *update*) touch {tmp_path}/lists; echo update >>{stubs.folder}/called.txt;; '
        f"*) echo install >>{stubs.folder}/called.txt; test -e {tmp_path}/lists || exit 100;; esac",
    )
    stubs.add("apt-mark", f'echo "$1" >>{stubs.folder}/called.txt')
    assert stubs.run(install.script).returncode == 0
    assert stubs.called() == ["install", "update", "install", "hold"]
    assert stubs.run(install.script).returncode == 0
    assert stubs.called()[4:] == ["install", "hold"]


@pytest.mark.parametrize(("broken", "status"), [("update", 100), ("install", 100)])
def test_a_failing_apt_fails_the_step(stubs: Stubs, broken: str, status: int) -> None:
    _, host = fleet_and_host("llm")
    install = docker.actions(host, bare(host))[1]
    stubs.add("apt-get", f'case "$*" in *install*|*{broken}*) echo "E: {broken}" >&2; exit {status};; esac')
    done = stubs.run(install.script)
    assert done.returncode == status
    assert f"E: {broken}" in done.stderr


def test_old_package_sources_are_set_aside_and_not_deleted(stubs: Stubs, tmp_path: Path) -> None:
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    path = "/etc/apt/sources.list.d/nvidia-docker.list"
    state = replace(state, files={**state.files, path: state.files["/etc/apt/sources.list.d/docker.sources"]})
    move, _ = steps(fleet, host, state)["sources"]
    (tmp_path / "nvidia-docker.list").write_text("deb x y")
    assert stubs.run(move.script.replace("/etc/apt/sources.list.d", str(tmp_path))).returncode == 0
    assert (tmp_path / "nvidia-docker.list.disabled").read_text() == "deb x y"
    assert not (tmp_path / "nvidia-docker.list").exists()
