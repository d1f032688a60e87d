"""The driver: what is held, what is installed where, and the one reboot between two looks at it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support.fleet import Data
from support.states import DRIVER_PACKAGES, NOW, bare, converged, fleet_and_host, steps

from stoker.facts.state import HostState
from stoker.plan.downloads import addresses
from stoker.plan.preflight import findings
from stoker.ready.wait import ConnectionLost
from stoker.steps import driver, driver_hold, reboot, sources

NOT_FOUND = "sh: 1: nvidia-smi: not found"
NOT_LOADED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."


def asked(data: Data) -> None:
    data["all"]["nvidia"] = {"install_driver": True}


def without(state: HostState, words: str = NOT_FOUND, **changes: Any) -> HostState:
    packages = {name: version for name, version in state.packages.items() if name not in DRIVER_PACKAGES}
    return replace(state, **{"packages": packages, "gpus": (), "driver": "", "gpu_error": words, **changes})


def descriptions(state: HostState, change: Callable[[Data], None] = asked) -> list[str]:
    _, host = fleet_and_host("llm", change)
    return [str(action) for action in driver.actions(host, state)]


_, HOST = fleet_and_host("llm")
BARE = bare(HOST)
UBUNTU = replace(without(BARE), os_id="ubuntu", os_codename="noble")
PIN = "pin the driver to branch 580: write /etc/apt/preferences.d/stoker-nvidia"
LOAD = "load the driver, with one reboot if it does not load without (INTERRUPTS everything on the host if it has to be rebooted)"


def test_it_is_installed_on_debian_from_nvidias_repository() -> None:
    state = without(BARE)
    _, host = fleet_and_host("llm", asked)
    assert findings(host, state, NOW) == []
    assert descriptions(state) == [
        PIN,
        "install linux-image-amd64, linux-headers-amd64",
        "install nvidia-driver-cuda, nvidia-kernel-dkms",
        "hold every package of the driver",
        LOAD,
    ]
    cuda = sources.repositories(host, state)[-1]
    assert cuda.uri == "https://developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64/"
    assert (cuda.key_url, cuda.key_fingerprint) == (
        f"{cuda.uri}8793F200.pub",
        "02182E60104FCDC26EAE1B8597A5D4CB8793F200",
    )
    assert "https://developer.download.nvidia.com/compute/cuda/repos" in addresses(host, state)
    older = sources.repositories(host, replace(state, os_codename="bookworm"))[-1]
    assert older.key_url.endswith("/debian12/x86_64/3bf863cc.pub")
    assert older.key_fingerprint == "EB693B3035CD5710E231E123A4B469963BF863CC"


def test_it_is_installed_on_ubuntu_from_its_archive() -> None:
    _, host = fleet_and_host("llm", asked)
    assert findings(host, UBUNTU, NOW) == []
    assert descriptions(UBUNTU)[1:3] == ["install linux-headers-generic", "install nvidia-driver-580-server"]
    headers, install = driver.actions(host, UBUNTU)[1:3]
    assert "apt-mark" not in headers.script  # a new kernel needs new ones
    assert "apt-mark hold nvidia-driver-580-server" in install.script
    assert [repository.name for repository in sources.repositories(host, UBUNTU)] == [
        "docker",
        "nvidia-container-toolkit",
    ]


def test_nvidias_repository_stays_while_its_driver_does_and_is_not_added_for_another() -> None:
    fleet, host = fleet_and_host("llm", asked)
    state = converged(fleet, host)
    assert steps(fleet, host, state) == {}
    assert "nvidia-cuda" not in [repository.name for repository in sources.repositories(host, state)]
    path = "/etc/apt/sources.list.d/nvidia-cuda.sources"
    state = replace(state, files={**state.files, path: state.files["/etc/apt/sources.list.d/docker.sources"]})
    assert sources.repositories(host, state)[-1].name == "nvidia-cuda"


@pytest.mark.parametrize(
    ("state", "change", "reason", "remedy"),
    [
        (UBUNTU, lambda data: None, "no NVIDIA driver is installed", "apt install nvidia-driver-580-server"),
        (without(BARE), lambda data: None, "no NVIDIA driver is installed", "'install_driver': True"),
        (without(BARE, os_codename="forky"), asked, "no NVIDIA driver is installed", "NVIDIA's repository"),
        (without(BARE, NOT_LOADED), asked, f"nvidia-smi says: {NOT_LOADED}", "dkms autoinstall"),
        (
            without(BARE, NOT_LOADED, packages=BARE.packages, contents={driver.MARKER: "some-boot\n"}),
            asked,
            f"it was rebooted for its driver, which does not load all the same; nvidia-smi says: {NOT_LOADED}",
            f"remove {driver.MARKER}",
        ),
    ],
    ids=[
        "not asked, Ubuntu",
        "not asked, Debian",
        "release without a repository",
        "not by packages",
        "rebooted before",
    ],
)
def test_where_it_is_not_installed_the_deploy_is_refused(
    state: HostState, change: Callable[[Data], None], reason: str, remedy: str
) -> None:
    _, host = fleet_and_host("llm", change)
    refusal = next(finding for finding in findings(host, state, NOW) if finding.check == "driver")
    assert refusal.reason == reason
    assert remedy in refusal.remedy
    assert driver.actions(host, state) == [] or driver.actions(host, state)[-1].function is None


def test_a_deploy_that_was_cut_off_after_the_installation_goes_on() -> None:
    state = without(BARE, NOT_LOADED, packages=BARE.packages)
    assert descriptions(state) == [PIN, "hold libcuda1, nvidia-driver-cuda, nvidia-kernel-dkms", LOAD]


# ------------------------------------------------------------------------------------------------ what is held


def test_only_the_described_branch_is_held_and_another_is_told() -> None:
    state = replace(BARE, packages={"nvidia-driver": "535.261.03-1~deb12u1", "libnvidia-container1": "1.20.0-1"})
    assert driver.actions(HOST, state) == []
    (warning,) = findings(HOST, state, NOW)
    assert (warning.severity, warning.anchor) == ("warn", "driver-hold")
    assert "not of branch 580, so Stoker does not hold them: nvidia-driver 535.261.03-1~deb12u1" in warning.reason


def test_a_driver_without_packages_is_a_note() -> None:
    (note,) = findings(HOST, replace(BARE, packages={}), NOW)
    assert (note.severity, note.anchor) == ("note", "driver-hold")


def test_one_package_that_was_let_go_is_held_again() -> None:
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    state = replace(state, held=state.held - {"libcuda1"})
    assert driver_hold.unheld(host, state) == ["libcuda1"]
    assert [str(action) for action in steps(fleet, host, state)["driver"]] == ["hold libcuda1"]


def test_open_kernel_modules_are_pinned_away_unless_the_host_runs_them() -> None:
    assert "nvidia-open*" in driver_hold.pin_file(HOST, BARE).text
    assert "nvidia-open*" not in driver_hold.pin_file(HOST, replace(BARE, kernel_module="open")).text


AVAILABLE = {
    "nvidia-driver-cuda": ("580.173.02-1", "590.48.01-1"),
    "libcuda1": ("580.173.02-1", "590.48.01-1"),
    "nvidia-open": ("580.173.02-1", "590.48.01-1"),
    "nvidia-kernel-open-dkms": ("580.173.02-1",),
    "nvidia-driver-535-server": ("535.288.01-0ubuntu1",),
    "nvidia-driver-580-server": ("580.173.02-0ubuntu1",),
    "nvidia-driver-580-server-open": ("580.173.02-0ubuntu1",),
    "libnvidia-ml1": ("580.173.02-1", "590.48.01-1"),
    "nvidia-container-toolkit": ("1.20.0-1",),
    "libnvidia-container1": ("1.20.0-1",),
    "nvidia-kernel-common": ("20220217+3",),
}


@pytest.mark.skipif(not shutil.which("apt-cache"), reason="the pin is read by apt itself")
def test_apt_reads_the_pin_as_it_is_meant(tmp_path: Path) -> None:
    stanza = "Package: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: T <t@example.org>\nFilename: x\nSize: 1\nSHA256: {}\nDescription: x\n"
    texts = [stanza.format(name, version, "0" * 64) for name, all_of in AVAILABLE.items() for version in all_of]
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/Packages").write_text("\n".join(texts))
    for directory in ("lists/partial", "preferences.d", "cache/archives/partial"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "status").write_text("")
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes arch=amd64] file:{tmp_path}/repository ./\n")
    (tmp_path / "preferences.d/stoker-nvidia").write_text(driver_hold.pin_file(HOST, BARE).text)
    (tmp_path / "apt.conf").write_text(
        f'Dir::State::lists "{tmp_path}/lists";\nDir::State::status "{tmp_path}/status";\nDir::Cache "{tmp_path}/cache";\n'
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\nDir::Etc::preferences "/dev/null";\n'
        f'Dir::Etc::preferencesparts "{tmp_path}/preferences.d";\nAPT::Architecture "amd64";\nAPT::Sandbox::User "root";\n'
    )
    environment = {"APT_CONFIG": str(tmp_path / "apt.conf"), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    subprocess.run(["apt-get", "-qq", "update"], env=environment, check=True, capture_output=True)
    shown = subprocess.run(
        ["apt-cache", "policy", *AVAILABLE], env=environment, check=True, capture_output=True, text=True
    ).stdout
    candidates, name = {}, ""
    for line in shown.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            name = line[:-1]
        elif line.strip().startswith("Candidate:"):
            candidates[name] = line.split()[1]
    assert candidates == {
        "nvidia-driver-cuda": "580.173.02-1",
        "libcuda1": "580.173.02-1",
        "nvidia-open": "(none)",
        "nvidia-kernel-open-dkms": "(none)",
        "nvidia-driver-535-server": "(none)",
        "nvidia-driver-580-server": "580.173.02-0ubuntu1",
        "nvidia-driver-580-server-open": "(none)",
        "libnvidia-ml1": "580.173.02-1",
        "nvidia-container-toolkit": "1.20.0-1",
        "libnvidia-container1": "1.20.0-1",
        "nvidia-kernel-common": "20220217+3",
    }


# ------------------------------------------------------------------------------------------------ loading and the reboot


@dataclass
class Box:
    """A host whose driver loads from the given boot on; ``away`` looks find it unreachable after a reboot."""

    loads_from_boot: int
    away: int = 3
    words: str = "modprobe: ERROR: could not insert 'nvidia': No such device"
    boot: int = 0
    marker: bool = False
    gone: int = 0
    said: list[str] = field(default_factory=list)

    def shell(self, script: str, *, stdin: str | None = None) -> tuple[bool, list[str]]:
        if self.gone:
            self.gone -= 1
            raise ConnectionLost("no route to host")
        if "modprobe nvidia" in script:
            return (True, ["GPU 0: Tesla V100"]) if self.boot >= self.loads_from_boot else (False, [self.words])
        if "systemctl reboot" in script:
            assert self.marker, "a reboot that nothing remembers could be followed by another"
            self.boot, self.gone = self.boot + 1, self.away
        elif f">{driver.MARKER}" in script:
            self.marker = True
        elif script == f"rm -f {driver.MARKER}":
            self.marker = False
        elif "boot_id" in script:
            return True, [f"boot-{self.boot}"]
        return True, []

    def load(self, monkeypatch: pytest.MonkeyPatch) -> str | None:
        clock = [0.0]

        def sleep(seconds: float) -> None:
            clock[0] += seconds

        real = reboot.reboot
        monkeypatch.setattr(driver, "reboot", lambda shell, say: real(shell, say, sleep, lambda: clock[0]))
        (load,) = [action for action in driver.actions(*loading()) if action.function]
        assert load.function is not None
        return load.function(self.shell, self.said.append)


def loading() -> tuple[Any, HostState]:
    _, host = fleet_and_host("llm", asked)
    return host, without(BARE, NOT_LOADED, packages=BARE.packages)


def test_a_driver_that_loads_at_once_needs_no_reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(loads_from_boot=0)
    assert box.load(monkeypatch) is None
    assert (box.boot, box.marker) == (0, False)


def test_one_reboot_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(loads_from_boot=1)
    assert box.load(monkeypatch) is None
    assert (box.boot, box.marker) == (1, False)
    assert box.said[0].endswith("rebooting, once")


def test_never_a_second_reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(loads_from_boot=2)
    error = box.load(monkeypatch)
    assert error is not None
    assert "does not load after a reboot either (modprobe: ERROR" in error
    assert (box.boot, box.marker) == (1, True)  # by the marker the next deploy is refused
    host, state = loading()
    state = replace(state, contents={driver.MARKER: "boot-0\n"})
    assert not driver.awaited(host, state)
    assert all(action.function is None for action in driver.actions(host, state))


def test_secure_boot_is_not_mended_by_a_reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(loads_from_boot=1, words="modprobe: ERROR: could not insert 'nvidia': Key was rejected by service")
    error = box.load(monkeypatch)
    assert error is not None
    assert "mokutil --import" in error
    assert box.boot == 0


def test_a_host_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(loads_from_boot=1, away=10**6)
    error = box.load(monkeypatch)
    assert error is not None
    assert "did not come back within 1200 s" in error
    assert box.marker


def test_the_marker_goes_when_somebody_has_mended_the_driver() -> None:
    state = replace(BARE, contents={driver.MARKER: "boot-0\n"})
    assert descriptions(state)[0] == f"remove {driver.MARKER}: the driver is loaded"
