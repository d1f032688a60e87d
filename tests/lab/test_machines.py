"""The lab itself: a network without a way out, names, access, and commands that fail closed."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machines import config, hosts

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"gpu10": ("192.168.31.10", 3), "gpu65": ("192.168.31.65", 2)}


def lab(command: str, *arguments: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "lab" / command), *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def _lab_is_up() -> None:
    done = lab("up", seconds=600)
    assert done.returncode == 0, done.stderr


def test_status_shows_every_machine() -> None:
    done = lab("status")
    assert done.returncode == 0, done.stdout
    for name, (address, _) in HOSTS.items():
        assert name in done.stdout
        assert address in done.stdout


def test_lab_up_again_says_so_quickly() -> None:
    done = lab("up", seconds=10)
    assert "already up" in done.stdout


@pytest.mark.parametrize(("argv", "code"), [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["no-such-program"], 127)])
def test_run_passes_the_exit_code_on(argv: list[str], code: int) -> None:
    assert lab("run", *argv).returncode == code


@pytest.mark.parametrize("login", ["gpu10", "root@192.168.31.10", "operator@gpu65", "root@192.168.31.65"])
def test_ssh_finds_key_and_host_key_by_itself(login: str) -> None:
    done = lab("run", "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", login, "id", "-un")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (login.split("@")[0] if "@" in login else "root")


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_shows_its_cards_and_is_healthy(name: str) -> None:
    assert len(lab("run", "ssh", name, "nvidia-smi", "-L").stdout.splitlines()) == HOSTS[name][1]
    assert lab("run", "ssh", name, "systemctl", "is-system-running").stdout.strip() == "running"


def test_operator_has_sudo_and_is_not_in_the_docker_group() -> None:
    assert lab("run", "ssh", "operator@gpu10", "sudo", "-n", "id", "-u").stdout.strip() == "0"
    assert "docker" not in lab("run", "ssh", "operator@gpu10", "id", "-nG").stdout.split()


def test_there_is_no_way_out() -> None:
    assert "unreachable" in lab("run", "sh", "-c", "ip route get 192.0.2.1 2>&1").stdout
    refused = lab("run", "ssh", "gpu10", "getent", "hosts", "download.docker.com", seconds=5)
    assert refused.returncode == 2  # said at once, not after a time-out


def test_the_computer_itself_has_no_address_in_the_lab() -> None:
    shown = subprocess.run(["ip", "-4", "address"], capture_output=True, text=True, check=True).stdout
    assert "192.168.31." not in shown


def test_the_names_of_the_internet_resolve() -> None:
    for name in ("packages", "registry", "hub"):
        assert lab("run", "getent", "hosts", f"{name}.internet.test").stdout.split()[:1] == ["192.168.31.1"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def forward(port: int, target: str) -> Iterator[subprocess.Popen[str]]:
    argv = [str(ROOT / "lab/forward"), "--port", str(port), "--to", target]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{port}" in process.stdout.readline()
            yield process
        finally:
            process.terminate()


def test_forward_leads_from_this_computer_into_the_lab_and_ends_when_told() -> None:
    port = free_port()
    with forward(port, "192.168.31.10:22") as process:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            assert connection.recv(8).startswith(b"SSH-2.0-")
        process.terminate()
        assert process.wait(5) == 0


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = lab("forward", "--port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be used" in done.stderr


@pytest.fixture
def without_gpu40() -> Iterator[None]:
    """The host on demand is not there, before the test and after it; the fleet of other tests stays as it is."""
    machine = config.load().machine("gpu40")
    hosts.remove(machine)
    yield
    hosts.remove(machine)


@pytest.mark.usefixtures("without_gpu40")
def test_a_host_on_demand_is_made_when_it_is_asked_for_and_no_other_is_touched() -> None:
    assert "lab/up --with gpu40" in lab("status").stdout
    assert "start it with lab/up --with gpu40" in lab("reboot", "gpu40").stderr
    assert "start it with lab/up --with gpu40" in lab("fault", "gpu40", "list").stderr
    since = lab("run", "ssh", "gpu10", "stat", "--format=%Y", "/proc/1").stdout
    made = lab("up", "--with", "gpu40", seconds=60)
    assert "gpu40 is up, too" in made.stdout, made.stderr
    shown = lab("run", "ssh", "gpu40", "nvidia-smi", "-L").stdout
    assert ("RTX 4090" in shown, "RTX 3090" in shown, len(shown.splitlines())) == (True, True, 2)
    assert lab("run", "ssh", "gpu10", "stat", "--format=%Y", "/proc/1").stdout == since
    assert lab("status").returncode == 0
    assert "already up" in lab("up", "--with", "gpu40").stdout


def test_an_unknown_machine_is_answered_with_the_known_ones() -> None:
    done = lab("rebuild", "gpu11")
    assert done.returncode == 1
    assert "gpu10 (192.168.31.10)" in done.stderr
