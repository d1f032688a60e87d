"""A host that cannot be reached: nothing is written, unless the person says to go on without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.commands import ROOT, run
from support.machine import Machine
from support.project import Project

from lab.machines.config import load

NOT_STARTED = 3
_LOST = "/opt/stoker/bin/fetch-model.py"


@pytest.fixture(params=["sshd is stopped", "the cable is pulled"])
def gpu65_away(request: pytest.FixtureRequest, gpu10: Machine, gpu65: Machine) -> Iterator[Machine]:
    """gpu65 cannot be reached; gpu10 has something to be put right."""
    gpu10.sh(f"rm {_LOST}")
    if request.param == "sshd is stopped":
        gpu65.sh("systemctl stop ssh")
        yield gpu65
        gpu65.sh("systemctl start ssh")
    else:
        _cable(gpu65, "down")
        yield gpu65
        _cable(gpu65, "up")


def _cable(machine: Machine, state: str) -> None:
    lab = load()
    cable = next(entry.cable for entry in lab.machines if entry.name == machine.name)
    done = run("ip", "-n", lab.network.namespace, "link", "set", cable, state)
    assert done.code == 0, done


def test_nothing_is_written_anywhere_or_the_other_host_proceeds(
    project: Project, gpu10: Machine, gpu65_away: Machine
) -> None:
    written = gpu10.written()
    refused = project.deploy()
    assert refused.code == NOT_STARTED, refused
    assert "192.168.31.65" in refused.err
    assert "--skip-unreachable" in refused.err
    assert refused.seconds < 15
    by_pyinfra = project.pyinfra("-y")
    assert by_pyinfra.code != 0, by_pyinfra
    assert "192.168.31.65" in by_pyinfra.err
    assert gpu10.written() == written

    proceeded = project.deploy("--skip-unreachable")
    assert proceeded.code == 1, proceeded
    assert "192.168.31.65" in proceeded.err
    assert gpu10.holds(f"test -f {_LOST}")


def test_a_limit_leaves_the_unreachable_host_out(project: Project, gpu10: Machine, gpu65_away: Machine) -> None:
    limited = project.deploy("--limit", "192.168.31.10")
    assert limited.code == 0, limited
    assert gpu10.holds(f"test -f {_LOST}")


def test_smoke_names_the_host_that_is_away(project: Project, gpu65_away: Machine) -> None:
    done = project.stoker("smoke", seconds=90)
    assert done.code == 1, done
    assert "192.168.31.65" in done.text
    assert str(ROOT) not in done.text
