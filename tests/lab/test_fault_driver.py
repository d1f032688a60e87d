"""Cards that change places at a reboot, and a host that gets its driver from a deploy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.commands import ROOT, run, wait_for
from support.machine import Machine
from support.project import Project, changed

pytestmark = pytest.mark.fault

COMPOSE = "/opt/stoker/bge-ha/bge-ha.yaml"
RECORD = "/var/lib/stoker/gpus"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
CARDS = "nvidia-smi --query-gpu=index,uuid --format=csv,noheader"
GIVEN = "docker inspect -f '{{.Name}} {{json .HostConfig.DeviceRequests}}' ollama_bge_0 ollama_bge_1"


def rebooted(host: Machine) -> None:
    done = run(str(ROOT / "lab/reboot"), host.name, seconds=90)
    assert done.code == 0, str(done)


@pytest.fixture
def swapped(gpu65: Machine) -> Iterator[list[str]]:
    """The two cards of gpu65 have changed places; yields how nvidia-smi counted them before."""
    before = gpu65.sh(CARDS).splitlines()
    gpu65.fault("driver", "order=1,0")
    rebooted(gpu65)
    yield before
    gpu65.fault("driver", "clear")
    rebooted(gpu65)


def test_cards_that_change_places_do_not_swap_models(project: Project, gpu65: Machine, swapped: list[str]) -> None:
    uuids = [row.split(", ")[1] for row in swapped]
    assert [row.split(", ")[1] for row in gpu65.sh(CARDS).splitlines()] == uuids[::-1]
    assert gpu65.read(RECORD) == "".join(f"{index} {uuid}\n" for index, uuid in enumerate(uuids))
    compose, given = gpu65.read(COMPOSE), gpu65.sh(GIVEN)
    wait_for("the smoke test passes", lambda: project.stoker("smoke", seconds=60).code == 0, 60)
    # All that is left for a deploy is to prove the new starts.
    deploy = project.deploy()
    assert deploy.code == 0, str(deploy)
    assert changed(deploy) == {("Every model answers", gpu65.address)}, str(deploy)
    assert "GPU 0 of the description is now 1, GPU 1 of the description is now 0" in deploy.err
    assert (gpu65.read(COMPOSE), gpu65.sh(GIVEN)) == (compose, given)
    assert project.check().code == 0


def test_a_bare_host_gets_its_driver_with_one_reboot_and_serves(project: Project, gpu65: Machine) -> None:
    rebuilt = run(str(ROOT / "lab/rebuild"), gpu65.name, seconds=120)
    assert rebuilt.code == 0, str(rebuilt)
    project.lab_run("sh", "-c", f"ssh-keygen -f ~/.ssh/known_hosts -R {gpu65.address}")
    gpu65.sh("dpkg --purge nvidia-driver && ! command -v nvidia-smi")
    project.append("group_data/embedding.py", 'nvidia = {"install_driver": True}')
    first_boot = gpu65.read(BOOT_ID)

    deploying = project.start("stoker", "deploy", "--yes")
    wait_for("the deploy reboots the host", lambda: gpu65.is_off, 120)
    rebooted(gpu65)  # a machine of the lab only switches itself off
    second_boot = gpu65.read(BOOT_ID)
    deploy = project.finish(deploying, 180)

    assert deploy.code == 0, str(deploy)
    assert first_boot != second_boot == gpu65.read(BOOT_ID), "one reboot, no more"
    assert "rebooting, once" in deploy.err
    smoke = project.stoker("smoke", seconds=60)
    assert smoke.code == 0, str(smoke)
    versions = gpu65.sh(
        "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' 'nvidia-driver-*' nvidia-kernel-dkms libcuda1"
    )
    held = ("nvidia-driver-cuda", "nvidia-kernel-dkms", "libcuda1")
    for name in held:  # 590 lies beside 580 in the repository, and the packages would take it
        assert f"hi  {name} 580." in versions
    assert gpu65.sh(
        "apt-get -q -y upgrade && nvidia-smi --query-gpu=driver_version --format=csv,noheader"
    ).splitlines()[-1] == ("580.173.02")
    assert not gpu65.holds("test -e /var/lib/stoker/driver-reboot")
    assert project.check().code == 0
    gpu65.sh("apt-mark unhold libcuda1")
    check, predicted = project.predicted()
    assert predicted == {("NVIDIA driver", gpu65.address)}, str(check)
    assert "hold libcuda1" in check.err
