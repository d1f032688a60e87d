"""Who logs in: a user with sudo who is not in the docker group."""

from __future__ import annotations

import pytest
from support.machine import HOSTS, Machine
from support.project import Project

NOT_STARTED = 3


@pytest.fixture
def operator(project: Project) -> Project:
    """A description whose hosts are entered as a user who may use sudo."""
    (project.directory / "inventory.py").write_text(
        "_operator = {'ssh_user': 'operator', '_sudo': True}\n"
        "llm = [('192.168.31.10', _operator)]\n"
        "embedding = [('192.168.31.65', _operator)]\n"
    )
    return project


def test_a_sudo_user_finds_nothing_to_change_and_smokes(operator: Project) -> None:
    before = [(host.containers(), host.written()) for host in HOSTS]
    done = operator.deploy()
    assert done.code == 0, str(done)
    assert "No changes" in done.err
    assert [(host.containers(), host.written()) for host in HOSTS] == before
    smoke = operator.stoker("smoke", seconds=60)
    assert smoke.code == 0, str(smoke)


def test_a_sudo_user_puts_things_right_as_root_does(operator: Project, gpu10: Machine) -> None:
    router, program = "/opt/stoker/memoryx-hybrid/gateway/router.js", "/opt/stoker/bin/fetch-model.py"
    gpu10.sh(f"docker rm -f vllm_qwen_gpu2; rm {router} {program}")
    done = operator.deploy()
    assert done.code == 0, str(done)
    assert operator.check().code == 0
    assert gpu10.sh(f"stat -c '%U %a' {router} {program}").split() == ["root", "644", "root", "755"]
    assert not gpu10.holds("find /tmp -user operator -type f | grep -q .")


def test_without_sudo_the_reason_is_said(reader: Project) -> None:
    (reader.directory / "inventory.py").write_text(
        "llm = ['192.168.31.10']\nembedding = [('192.168.31.65', {'ssh_user': 'operator'})]\n"
    )
    done = reader.deploy()
    assert done.code == NOT_STARTED, str(done)
    assert "_sudo" in done.err
