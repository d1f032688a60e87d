"""The probe, executed by dash with stand-ins of the host's programs, and what is understood of its output."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ready_fakes import FakeDocker
from support.fleet import make_fleet
from support.states import bare, converged, fleet_and_host, probe_output
from support.stubs import Stubs

from stoker.facts.gpus import Gpu, GpuProcess
from stoker.facts.probe import HttpProbe, Questions, script
from stoker.facts.state import SECTION, Container, FileState, HostState, Listener, parse
from stoker.facts.surroundings import DockerInfo, Guards
from stoker.steps.questions import questions

UUIDS = ("GPU-6f3c1e0a-0d1f-4d7e-9a57-0b1c2d3e4f50", "GPU-6f3c1e0a-0d1f-4d7e-9a57-0b1c2d3e4f51")
SMI_ROWS = f"""0, {UUIDS[0]}, Tesla V100-SXM2-32GB, 32768, 7.0, 580.173.02, 00000000:1A:00.0, 1025, Enabled, [N/A]
1, {UUIDS[1]}, Tesla V100-SXM2-32GB, 32768, 7.0, 580.173.02, 00000000:1B:00.0, 0, Enabled, [N/A]
"""
#: `nvidia-smi` as the probe calls it twice.
SMI = f"""case $1 in
--query-compute-apps=*) echo '{UUIDS[0]}, 4711, python3 -c a, b, 1024';;
*) printf %s '{SMI_ROWS}';; esac"""

SS = """LISTEN 0      128          0.0.0.0:22         0.0.0.0:*    users:(("sshd",pid=512,fd=3))
LISTEN 0      4096       127.0.0.1:11434      0.0.0.0:*    users:(("ollama",pid=731,fd=4),("ollama",pid=740,fd=4))
LISTEN 0      4096               *:11401            *:*    users:(("docker-proxy",pid=2201,fd=7))
LISTEN 0      128             [::]:22            [::]:*    users:(("sshd",pid=512,fd=4))
LISTEN 0      10           0.0.0.0:9000       0.0.0.0:*    users:(("tmux: server",pid=77,fd=8))
LISTEN 0      10           0.0.0.0:9001       0.0.0.0:*
"""

INSPECT: dict[str, Any] = {
    "name": "/vllm_qwen_gpu2",
    "id": "1" * 64,
    "image": "sha256:" + "2" * 64,
    "status": "running",
    "started": "2026-11-20T10:00:00.123456789Z",
    "restarts": 2,
    "labels": {
        "stoker.configuration": "0123456789abcdef",
        "com.docker.compose.project": "memoryx-hybrid",
        "x": 'a "b"',
    },
    "ports": {"8000/tcp": [{"HostIp": "", "HostPort": "11405"}], "9000/tcp": None},
}

STRANGER = {**INSPECT, "name": "/grafana", "status": "exited", "restarts": 0, "labels": None, "ports": None}


def probe(stubs: Stubs, asked: Questions) -> HostState:
    done = stubs.run(script(asked))
    assert (done.returncode, done.stderr) == (0, "")
    return parse(done.stdout.splitlines())


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path / "stubs")


def docker_stub(folder: Path) -> str:
    """`docker` as the probe calls it: version, ps, inspect, image inspect."""
    (folder / "containers.txt").write_text("".join(f"{json.dumps(entry)}\n" for entry in (INSPECT, STRANGER)))
    return (
        'case "$1 $2" in\n'
        '"version -f") echo 28.5.2;;\n'
        '"ps -aq") echo 111; echo 222;;\n'
        f'"inspect -f") test "$4 $5" = "111 222" && cat {folder}/containers.txt;;\n'
        '"image inspect") case $5 in nginx:1.30.6-alpine) echo sha256:33;; *) echo "No such image" >&2; exit 1;; esac;;\n'
        "*) exit 9;; esac"
    )


def test_a_bare_machine(tmp_path: Path) -> None:
    """No docker, no nvidia-smi, no curl, nothing of what is asked for: everything is empty, nothing is an error."""
    stubs = Stubs(tmp_path / "stubs", path="")
    stubs.prints("ss", "")
    stubs.add("systemctl", "case $1 in show) echo not-found;; *) echo inactive; exit 4;; esac")
    stubs.add("dpkg-query", "exit 1")
    stubs.link("cat", "uname", "id", "date", "stat", "sha256sum", "find", "df", "awk", "dirname", "tr")
    state = probe(
        stubs,
        Questions(
            packages=["docker-ce"],
            files=[f"{tmp_path}/nothing"],
            file_patterns=[f"{tmp_path}/*.lock"],
            contents=[f"{tmp_path}/daemon.json"],
            units=["docker.service"],
            images=["nginx:1.30.6-alpine"],
            model_directories=[f"{tmp_path}/models"],
            http=[HttpProbe("vllm", "http://127.0.0.1:9/health")],
        ),
    )
    release = platform.freedesktop_os_release()
    assert (state.os_id, state.os_codename) == (release["ID"], release["VERSION_CODENAME"])
    assert state.os_name == release["PRETTY_NAME"]
    assert (state.architecture, state.uid) == (platform.machine(), os.getuid())
    assert state.gpu_error.endswith("nvidia-smi: not found")
    assert state.units == {}
    assert state.contents == {f"{tmp_path}/daemon.json": ""}
    assert (state.packages, state.files, state.model_files, state.answers) == ({}, {}, {}, {})
    assert (state.gpus, state.containers, state.images, state.docker_version) == ([], {}, {}, "")


def test_a_machine_at_work(stubs: Stubs, tmp_path: Path) -> None:
    stubs.prints("ss", SS)
    stubs.add("nvidia-smi", SMI)
    stubs.prints("modinfo", "NVIDIA\n")
    stubs.prints(
        "dpkg-query",
        "docker-ce\t5:28.5.2-1~debian.13~trixie\tii \ncurl\t8.14.1-2\thi \nnginx\t\tun \nold\t1.0\trc \n",
    )
    stubs.add(
        "systemctl",
        'case "$1 $2" in "show -p") echo loaded;; "is-active docker.service") echo active;; "is-enabled docker.service") echo enabled;; '
        '*" nvidia-persistenced.service") echo failed;; esac',
    )
    stubs.add("docker", docker_stub(stubs.folder))
    stubs.add(
        "curl",
        'case "$*" in *gateway*) printf "HTTP/1.1 200 OK\\r\\nx-stoker-CONFIG: 0123456789ab\\r\\n\\r\\n";; '
        '*ready*) printf "vllm_ready\\t200\\n";; *) printf "vllm_dead\\t000\\n"; exit 7;; esac',
    )
    (tmp_path / "daemon.json").write_text('{"mtu": 1400}')  # no new line at its end
    (tmp_path / "key.asc").write_text("line one\n\nline three\n")
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "gpu.lock").touch(mode=0o644)
    (tmp_path / "link").symlink_to("tool")
    (tmp_path / "other-disk").symlink_to(tmp_path)
    models = tmp_path / "mod%els"
    (models / "sub").mkdir(parents=True)
    (models / "config.json").write_text("{}")
    (models / "sub" / "a b.safetensors").write_bytes(b"x" * 1000)
    tmp_path.chmod(0o755)
    state = probe(
        stubs,
        Questions(
            packages=["docker-ce", "curl", "nginx", "old"],
            files=[
                f"{tmp_path}",
                f"{tmp_path}/tool",
                f"{tmp_path}/link",
                f"{tmp_path}/other-disk",
                f"{tmp_path}/nothing",
            ],
            file_patterns=[f"{tmp_path}/*.lock"],
            contents=[f"{tmp_path}/daemon.json", f"{tmp_path}/key.asc", f"{tmp_path}/nothing"],
            units=["docker.service", "nvidia-persistenced.service"],
            images=["nginx:1.30.6-alpine", "ollama/ollama:0.32.15"],
            disks=["/", f"{tmp_path}/not/yet/there"],
            model_directories=[str(models)],
            http=[
                HttpProbe("gateway", "http://127.0.0.1:11434/gateway", header="X-Stoker-Config"),
                HttpProbe("vllm_ready", "http://127.0.0.1:1/ready"),
                HttpProbe("vllm_dead", "http://127.0.0.1:2/dead"),
            ],
        ),
    )
    assert state.packages == {"docker-ce": "5:28.5.2-1~debian.13~trixie", "curl": "8.14.1-2"}
    empty = hashlib.sha256(b"").hexdigest()
    shell = hashlib.sha256(b"#!/bin/sh\n").hexdigest()
    assert state.files == {
        str(tmp_path): FileState("directory", "755", "root", "root"),
        f"{tmp_path}/other-disk": FileState("directory", "755", "root", "root"),
        f"{tmp_path}/tool": FileState("regular file", "755", "root", "root", shell),
        f"{tmp_path}/link": FileState("regular file", "755", "root", "root", shell),
        f"{tmp_path}/gpu.lock": FileState("regular file", "644", "root", "root", empty),
    }
    assert state.contents == {
        f"{tmp_path}/daemon.json": '{"mtu": 1400}',
        f"{tmp_path}/key.asc": "line one\n\nline three\n",
        f"{tmp_path}/nothing": "",
    }
    assert state.units == {"docker.service": "active enabled", "nvidia-persistenced.service": "failed failed"}
    assert (state.driver, state.gpu_error) == ("580.173.02", "")
    assert state.gpus == [
        Gpu(0, UUIDS[0], "Tesla V100-SXM2-32GB", 32768, "7.0", "0000:1a:00.0", 1025, True, None),
        Gpu(1, UUIDS[1], "Tesla V100-SXM2-32GB", 32768, "7.0", "0000:1b:00.0", 0, True, None),
    ]
    assert state.gpu_processes == [GpuProcess(UUIDS[0], 4711, "python3 -c a, b", 1024)]
    assert state.kernel_module == "proprietary"
    assert state.docker_version == "28.5.2"
    assert state.containers["vllm_qwen_gpu2"] == Container(
        "vllm_qwen_gpu2",
        "1" * 64,
        "sha256:" + "2" * 64,
        "running",
        "2026-11-20T10:00:00.123456789Z",
        2,
        "0123456789abcdef",
        "memoryx-hybrid",
        frozenset({11405}),
    )
    stranger = state.containers["grafana"]
    assert (stranger.running, stranger.project, stranger.configuration) == (False, "", "")
    assert state.images == {"nginx:1.30.6-alpine": "sha256:33", "ollama/ollama:0.32.15": ""}
    assert set(state.free_bytes) == {"/", f"{tmp_path}/not/yet/there"}
    assert all(free > 0 for free in state.free_bytes.values())
    assert state.model_files == {str(models): {"config.json": 2, "sub/a b.safetensors": 1000}}
    assert state.answers == {"gateway": "0123456789ab", "vllm_ready": "200", "vllm_dead": "000"}
    assert state.listeners == [
        Listener(22, "sshd (process 512)"),
        Listener(11434, "ollama (process 731)"),
        Listener(11401, "docker-proxy (process 2201)"),
        Listener(22, "sshd (process 512)"),
        Listener(9000, "tmux: server (process 77)"),
        Listener(9001, ""),
    ]


def test_docker_that_does_not_run(stubs: Stubs) -> None:
    stubs.add(
        "docker",
        'test "$1" = version && { echo; echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock." >&2; }; exit 1',
    )
    state = probe(stubs, Questions(images=["nginx:1.30.6-alpine"]))
    assert not state.docker_running
    assert "Cannot connect to the Docker daemon" in state.docker_error
    assert state.containers == {}
    assert state.images == {"nginx:1.30.6-alpine": ""}


def test_docker_is_asked_by_its_own_interface(stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command prints by templates is the same as what the daemon answers: only the inspection is left to the command."""
    ids = ["1" * 64, "2" * 64]
    misleading = {"note": '{"Id":"3"}'}
    answers = {
        "/info": {"ServerVersion": "28.5.2", "DockerRootDir": "/d", "DriverStatus": [], "SecurityOptions": None},
        "/containers/json": [{"Id": one, "ImageID": "sha256:33", "Labels": misleading} for one in ids],
        "/images/vllm/vllm-openai:v0.19.1/json": {"Id": "sha256:33", "RepoTags": [], "Config": {"Labels": misleading}},
    }
    docker = FakeDocker(tmp_path / "docker.sock", answers=answers).start()
    monkeypatch.setattr("stoker.facts.probe.DOCKER_SOCKET", str(docker.path))
    (stubs.folder / "containers.txt").write_text(f"{json.dumps(INSPECT)}\n")
    stubs.add("docker", f'test "$1 $4 $5" = "inspect {" ".join(ids)}" && cat {stubs.folder}/containers.txt')
    try:
        state = probe(stubs, Questions(images=["vllm/vllm-openai:v0.19.1", "nginx:1"]))
    finally:
        docker.stop()
    assert (state.docker_version, state.docker_info.root) == ("28.5.2", "/d")
    assert set(state.containers) == {"vllm_qwen_gpu2"}
    assert state.images == {"vllm/vllm-openai:v0.19.1": "sha256:33", "nginx:1": ""}


@pytest.mark.parametrize("setting", ["DOCKER_HOST", "config.json"])
def test_the_daemon_that_the_command_is_led_to_counts(
    setting: str, stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "ServerVersion": "27.0.1",
        "DockerRootDir": "/home/ada",
        "DriverStatus": None,
        "SecurityOptions": ["name=rootless"],
    }
    stubs.add("docker", f"case $1 in info) echo '{json.dumps(said, separators=(',', ':'))}';; esac")
    (tmp_path / ".docker").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    if setting == "DOCKER_HOST":
        monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    else:
        (tmp_path / ".docker/config.json").write_text('{"auths": {}, "currentContext": "rootless"}')
    docker = FakeDocker(tmp_path / "docker.sock", answers={"/info": {"ServerVersion": "28.5.2"}}).start()
    monkeypatch.setattr("stoker.facts.probe.DOCKER_SOCKET", str(docker.path))
    try:
        state = probe(stubs, Questions())
    finally:
        docker.stop()
    assert (state.docker_version, state.docker_info.rootless) == ("27.0.1", True)


def test_docker_without_containers(stubs: Stubs) -> None:
    stubs.add(
        "docker", 'case "$1" in version) echo 28.5.2;; ps) ;; *) echo "requires at least 1 argument" >&2; exit 1;; esac'
    )
    state = probe(stubs, Questions())
    assert (state.docker_running, state.containers) == (True, {})


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
            "NVIDIA driver is installed and running.\n\n",
            9,
        ),
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.200\n", 18),
        ("No devices were found\n", 6),
        ("Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n", 255),
    ],
)
def test_nvidia_smi_fails(stubs: Stubs, text: str, status: int) -> None:
    stubs.prints("nvidia-smi", text, status)
    state = probe(stubs, Questions())
    assert (state.gpus, state.driver) == ([], "")
    assert state.gpu_error == " ".join(text.split("\n")).strip()


@pytest.mark.parametrize(
    "row",
    [
        "0, GPU-1, Tesla P40, [Unknown Error], 6.1, 580.173.02, 00000000:1A:00.0, 0, Enabled, [N/A]",
        "0, GPU-1, Tesla P40, 23040, 6.1, 580.173.02",
        "some other words",
    ],
)
def test_nvidia_smi_prints_something_else(stubs: Stubs, row: str) -> None:
    stubs.prints("nvidia-smi", SMI_ROWS + row + "\n")
    state = probe(stubs, Questions())
    assert state.gpus == []
    assert state.gpu_error.startswith("nvidia-smi printed an unexpected row: ")
    assert row.split(",")[0] in state.gpu_error


def test_a_damaged_inforom_is_only_a_warning(stubs: Stubs) -> None:
    words = "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n"
    stubs.prints("nvidia-smi", SMI_ROWS + words, 14)
    assert [gpu.index for gpu in probe(stubs, Questions()).gpus] == [0, 1]
    stubs.prints("nvidia-smi", words, 14)
    assert "infoROM is corrupted" in probe(stubs, Questions()).gpu_error


def test_everything_of_the_default_fleet_can_be_asked(stubs: Stubs) -> None:
    """The whole script is read by dash and fits on a command line (128 KiB for one argument)."""
    fleet = make_fleet()
    for host in fleet.hosts:
        asked = questions(fleet, host)
        assert len(script(asked)) < 64 * 1024
        done = subprocess.run(
            ["dash", "-n", "-c", script(asked)], capture_output=True, text=True, check=False, timeout=20
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_banner_before_the_output_is_skipped() -> None:
    state = parse(["Welcome to gpu10!", "", "@@stoker identity", "x86_64 0 root 1795000000"])
    assert (state.uid, state.user, state.time) == (0, "root", 1795000000)


def test_no_output_at_all_is_a_host_of_which_nothing_is_known() -> None:
    state = parse([])
    assert (state.uid, state.os_id, state.gpu_error) == (-1, "", "nvidia-smi is not installed")


def test_where_docker_keeps_its_things_is_looked_at(stubs: Stubs, tmp_path: Path) -> None:
    root = tmp_path / "docker root"
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    said = json.dumps(
        {
            "ServerVersion": "29.0.1",
            "DockerRootDir": str(root),
            "DriverStatus": status,
            "SecurityOptions": ["name=cgroupns"],
        },
        separators=(",", ":"),
    )
    stubs.add("docker", f"case $1 in info) echo '{said}';; *) exit 1;; esac")
    state = probe(stubs, Questions(disks=["/"]))
    assert state.docker_version == "29.0.1"
    assert state.docker_info == DockerInfo(str(root), containerd_store=True)
    assert set(state.free_bytes) == {"/", str(root)}


def test_paths_of_one_file_system_are_known_as_such(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add(
        "df",
        "printf 'Filesystem 1B-blocks Used Available Use%% Mounted on\\n'; case $2 in "
        f"{tmp_path}/a) echo '/dev/sdb1 9 4 5 44% /a';; {tmp_path}/b) echo '/dev/sdb1 9 4 5 44% /b';; "
        "*) echo 'tmpfs 9 2 7 22% /run';; esac",
    )
    for name in "abc":
        (tmp_path / name).mkdir()
    paths = [f"{tmp_path}/{name}" for name in ("a", "b/not/yet", "c")]
    state = probe(stubs, Questions(disks=paths))
    assert state.file_systems == dict(zip(paths, ["/dev/sdb1", "/dev/sdb1", "/run"], strict=True))
    assert [state.free_bytes[path] for path in paths] == [5, 5, 7]


@pytest.mark.parametrize(("first_line", "podman"), [("exec /usr/bin/podman", True), ("exec /usr/bin/dockerd", False)])
def test_podman_as_docker(stubs: Stubs, first_line: str, podman: bool) -> None:
    stubs.add("docker", f'test -z "$1" || exit 1; {first_line} "$@"')
    found = probe(stubs, Questions()).dockers
    assert (found.path, found.is_podman) == (f"{stubs.folder}/docker", podman)


def test_podman_by_a_link(stubs: Stubs) -> None:
    stubs.add("podman", "exit 1")
    (stubs.folder / "docker").symlink_to(stubs.folder / "podman")
    assert probe(stubs, Questions()).dockers.is_podman


def test_a_plugin_of_ones_own(stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = tmp_path / "home" / ".docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    stubs.add("kept", 'test "$1 $2" = "version --short" && echo v2.29.7')
    (plugins / "docker-compose").symlink_to(stubs.folder / "kept")
    assert probe(stubs, Questions()).dockers.composes[f"{plugins}/docker-compose"] == "v2.29.7"


def test_packages_that_are_half_there(stubs: Stubs) -> None:
    rows = (
        "ii \tcurl",
        "iF \tdkms",
        "rc \told",
        "iU \tnano",
        "hi \tdocker-ce",
        "iHR\tvim",
        "un \tnginx",
        "it \tman-db",
    )
    stubs.prints("dpkg-query", "\n".join(rows) + "\n")
    assert probe(stubs, Questions()).packaging.unfinished == ("dkms", "nano", "vim")


@pytest.mark.parametrize("names", ["python3", "python3 -c a, b"])
def test_the_container_of_a_process_on_a_card(stubs: Stubs, names: str) -> None:
    pid = os.getpid()
    stubs.add(
        "nvidia-smi",
        f"case $1 in --query-compute-apps=*) echo '{UUIDS[0]}, {pid}, {names}, 1024';; *) printf %s '{SMI_ROWS}';; esac",
    )
    own = re.findall("[0-9a-f]{64}", Path("/proc/self/cgroup").read_text())
    assert probe(stubs, Questions()).gpu_containers == ({pid: own[-1]} if own else {})


def test_the_innermost_container_counts() -> None:
    outer, inner = "a" * 64, "0123456789abcdef" * 4
    rows = [
        f"17\t0::/system.slice/docker-{inner}.scope ",
        f"18\t12:pids:/docker/{outer}/docker/{inner} 1:name=systemd:/docker/{outer}/docker/{inner} ",
        "19\t0::/user.slice/user-1000.slice/session-3.scope ",
        "20\t",
    ]
    assert parse(["@@stoker gpu-containers", *rows]).gpu_containers == {17: inner, 18: inner}


def test_what_the_kernel_enforces() -> None:
    lines = ["selinux=1", "apparmor=Y", "userns=1", "cgroup=tmpfs", "apparmor-parser=yes", "nouveau=yes"]
    assert parse(["@@stoker guards", *lines, "secure-boot=   1"]).guards == Guards(
        True, True, True, True, 1, True, True
    )
    lines = ["selinux=0", "apparmor=N", "userns=0", "cgroup=cgroup2fs", "secure-boot=   0"]
    assert parse(["@@stoker guards", *lines]).guards == Guards(cgroup_version=2, secure_boot=False)
    assert parse(["@@stoker guards", "selinux=", "apparmor=", "userns=", "cgroup="]).guards == Guards()


def test_lines_of_apts_sources() -> None:
    rows = [
        "/etc/apt/sources.list:# deb http://x y z",
        "/etc/apt/a.sources:Signed-By: /k",
        "/etc/apt/b.list: deb http://x y",
    ]
    assert parse(["@@stoker apt-sources", *rows]).packaging.sources == (
        ("/etc/apt/a.sources", "Signed-By: /k"),
        ("/etc/apt/b.list", "deb http://x y"),
    )


def test_docker_as_a_snap() -> None:
    assert (
        parse(["@@stoker docker-path", "/snap/bin/docker", "@@stoker docker", "28.4.0"]).dockers.path
        == "/snap/bin/docker"
    )


@pytest.mark.parametrize("group", ["llm", "embedding"])
def test_recorded_states_read_back(group: str) -> None:
    """The scripted hosts of the plan's tests print what a probe prints."""
    fleet, host = fleet_and_host(group)
    for state in (bare(host), converged(fleet, host)):
        again = parse(probe_output(state).splitlines())
        assert (
            replace(
                again,
                gpus=tuple(again.gpus),
                gpu_processes=tuple(again.gpu_processes),
                listeners=tuple(again.listeners),
            )
            == state
        )


@pytest.mark.parametrize(
    ("devices", "runtime", "visible", "gpus"),
    [
        (None, "runc", ["all", ""], ()),
        ([{"Driver": "nvidia", "Count": 0, "DeviceIDs": ["0", "2"]}], "runc", ["all", ""], ("0", "2")),
        ([{"Driver": "", "Count": -1, "DeviceIDs": None}], "runc", [""], ("all",)),
        ([{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-1"]}], "runc", [""], ("nvidia.com/gpu=GPU-1",)),
        (None, "nvidia", ["0,1", ""], ("0", "1")),
    ],
)
def test_the_cards_that_a_container_was_given(
    devices: object, runtime: str, visible: list[str], gpus: tuple[str, ...]
) -> None:
    entry = {**INSPECT, "devices": devices, "runtime": runtime, "visible": visible}
    state = parse([f"{SECTION}containers", json.dumps(entry)])
    assert [container.gpus for container in state.containers.values()] == [gpus]


def test_what_a_container_was_made_from() -> None:
    labels = {**INSPECT["labels"], "com.docker.compose.project.config_files": "/root/a.yaml,/root/b.yaml"}
    made = {
        "reference": "vllm/vllm-openai:latest",
        "command": ["--model", "/model_data/X"],
        "restart": "always",
        "mounts": [{"Source": "/data/models", "Destination": "/model_data"}],
    }
    (found,) = parse([f"{SECTION}containers", json.dumps({**INSPECT, **made, "labels": labels})]).containers.values()
    assert found.image == "vllm/vllm-openai:latest"
    assert found.config_files == ("/root/a.yaml", "/root/b.yaml")
    assert found.command == ("--model", "/model_data/X")
    assert (found.restart, found.mounts) == ("always", (("/data/models", "/model_data"),))
