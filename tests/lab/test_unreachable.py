"""A host that cannot be reached: nothing is written, unless the person says to go on without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.commands import run
from support.machine import GPU65, Machine
from support.project import Project, pyinfra_argv

from lab.machines.config import load

NOT_STARTED = 3
_LOST = "/opt/stoker/bin/fetch-model.py"


@contextmanager
def sshd_stopped() -> Iterator[None]:
    """Connections are refused at once."""
    GPU65.sh("systemctl stop ssh")
    try:
        yield
    finally:
        GPU65.sh("systemctl start ssh")


@contextmanager
def cable_pulled() -> Iterator[None]:
    """Nothing answers at all."""
    lab = load()
    cable = next(entry.cable for entry in lab.machines if entry.name == GPU65.name)
    switch = ("ip", "-n", lab.network.namespace, "link", "set", cable)
    assert run(*switch, "down").code == 0
    try:
        yield
    finally:
        assert run(*switch, "up").code == 0


@pytest.mark.parametrize("away", [sshd_stopped, cable_pulled], ids=["sshd stopped", "cable pulled"])
def test_nothing_is_written_or_the_other_host_proceeds(
    away: type[sshd_stopped], project: Project, gpu10: Machine
) -> None:
    gpu10.sh(f"rm {_LOST}")
    with away():
        written = gpu10.written()
        refused, by_pyinfra = project.at_once(["stoker", "deploy", "--yes"], pyinfra_argv("-y"))
        assert refused.code == NOT_STARTED, str(refused)
        assert "--skip-unreachable" in refused.err
        assert refused.seconds < 20
        assert by_pyinfra.code == 1, str(by_pyinfra)
        for done in (refused, by_pyinfra):
            assert GPU65.address in done.err, str(done)
        assert gpu10.written() == written

        proceeded = project.deploy("--skip-unreachable")
        assert proceeded.code == 1, str(proceeded)
        assert GPU65.address in proceeded.err
        assert gpu10.holds(f"test -f {_LOST}")


def test_a_limit_leaves_the_host_out_and_smoke_names_it(project: Project, gpu10: Machine) -> None:
    gpu10.sh(f"rm {_LOST}")
    with sshd_stopped():
        limited = project.deploy("--limit", gpu10.address)
        assert limited.code == 0, str(limited)
        assert gpu10.holds(f"test -f {_LOST}")
        smoke = project.stoker("smoke", seconds=60)
        assert smoke.code == 1, str(smoke)
        assert f"{GPU65.address}: docker" in smoke.text
