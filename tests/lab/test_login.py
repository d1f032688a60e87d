"""Who logs in: a user with sudo who is not in the docker group; a changed host key."""

from __future__ import annotations

import re
import shlex

from support.commands import ROOT, run
from support.machine import HOSTS, Machine
from support.project import Project

NOT_STARTED = 3


def _as_operator(project: Project) -> None:
    (project.directory / "inventory.py").write_text(
        "_operator = {'ssh_user': 'operator', '_sudo': True}\n"
        "llm = [('192.168.31.10', _operator)]\n"
        "embedding = [('192.168.31.65', _operator)]\n"
    )


def test_a_sudo_user_finds_nothing_to_change(project: Project) -> None:
    _as_operator(project)
    containers, written = [host.containers() for host in HOSTS], [host.written() for host in HOSTS]
    done = project.deploy()
    assert done.code == 0, done
    assert "No changes" in done.err
    assert [host.containers() for host in HOSTS] == containers
    assert [host.written() for host in HOSTS] == written


def test_a_sudo_user_puts_things_right_as_root_does(project: Project, gpu10: Machine) -> None:
    _as_operator(project)
    gpu10.sh(
        "docker rm -f vllm_qwen_gpu2; rm /opt/stoker/bin/fetch-model.py /opt/stoker/memoryx-hybrid/gateway/router.js"
    )
    done = project.deploy()
    assert done.code == 0, done
    assert project.check().code == 0
    assert gpu10.sh("stat -c '%U %a' /opt/stoker/bin/fetch-model.py").strip() == "root 755"
    assert not gpu10.holds("find /tmp -user operator -type f | grep -q .")


def test_a_sudo_user_smokes(project: Project) -> None:
    _as_operator(project)
    done = project.stoker("smoke", seconds=60)
    assert done.code == 0, done


def test_without_sudo_the_reason_is_said(project: Project) -> None:
    (project.directory / "inventory.py").write_text(
        "llm = ['192.168.31.10']\nembedding = [('192.168.31.65', {'ssh_user': 'operator'})]\n"
    )
    done = project.deploy()
    assert done.code == NOT_STARTED, done
    assert "_sudo" in done.err


def test_a_rebuilt_host_is_refused_accepted_and_brought_back(project: Project, gpu10: Machine, gpu65: Machine) -> None:
    before = gpu65.containers()
    rebuilt = run(str(ROOT / "lab/rebuild"), "gpu10", seconds=120)
    assert rebuilt.code == 0, rebuilt
    gpu10.set_load_seconds(1.5)
    written = gpu65.written()

    refused = project.deploy()
    assert refused.code == NOT_STARTED, refused
    assert not gpu10.holds("test -e /opt/stoker")
    assert gpu65.written() == written
    found = re.search(r"ssh-keygen \S.*-R \S+", refused.err)
    assert found, refused
    accepted = project.lab_run(*shlex.split(found.group()))
    assert accepted.code == 0, accepted

    deploy = project.deploy(seconds=180)
    assert deploy.code == 0, deploy
    smoke = project.stoker("smoke", seconds=60)
    assert smoke.code == 0, smoke
    assert gpu65.containers() == before
