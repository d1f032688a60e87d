"""`stoker smoke` as a person runs it: a process of its own, patched for gevent, with an inventory file and real SSH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from smoke_fleet import host_data, rack
from smoke_sshd import ssh_server


def stoker_smoke(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "HOME": str(folder), "STOKER_GROUP_DATA": ""}
    line = [sys.executable, "-m", "stoker", "smoke", *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_whole_way(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    with rack() as one, ssh_server(programs, NEEDS_ROOT="1") as port:
        data = {
            **host_data(one.engines, {}),
            "ssh_port": port,
            "ssh_user": "operator",
            "ssh_password": "any",
            "_sudo": True,
            "ssh_known_hosts_file": str(tmp_path / "known_hosts"),
            "ssh_config_file": "/dev/null",
        }
        (tmp_path / "known_hosts").touch()
        (tmp_path / "inventory.py").write_text(f"boxes = [('127.0.0.1', {data!r})]\n", encoding="utf-8")
        done = stoker_smoke(tmp_path, "--junit", "smoke.xml", "--json", "smoke.json")
        one_instance = stoker_smoke(tmp_path, "--only", "llama_0")
    # The stand-in's Docker has none of the containers; all else is there.
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((tmp_path / "smoke.json").read_text(encoding="utf-8"))
    failed = {f"{check['subject']}: {check['name']}" for check in report["checks"] if check["status"] == "fail"}
    assert {name for name in failed if not name.endswith(": container")} <= {
        "GPU 0: memory",
        "GPU 1: memory",
        "nginx_0: spread over llama",
    }
    assert len([name for name in failed if name.endswith(": container")]) == 4
    access = report["checks"][0]
    assert (access["name"], access["status"], access["summary"]) == ("docker", "pass", "Docker 28.5.2")
    assert (
        f"ssh -p {port} -l operator -F /dev/null -o UserKnownHostsFile={tmp_path}/known_hosts 127.0.0.1"
        in access["commands"][0]
    )
    root = ElementTree.parse(tmp_path / "smoke.xml").getroot()
    assert root.attrib["tests"] == str(len(report["checks"]))
    assert "FAILED llama_0 on 127.0.0.1: container" in done.stdout
    assert "bge_0" not in one_instance.stdout


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    done = stoker_smoke(tmp_path, "-i", "nowhere.py")
    assert done.returncode == 3
    assert "nowhere.py" in done.stdout + done.stderr


def test_an_instance_that_is_not_there(tmp_path: Path) -> None:
    with rack() as one:
        (tmp_path / "inventory.py").write_text(
            f"boxes = [('127.0.0.1', {host_data(one.engines, {})!r})]\n", encoding="utf-8"
        )
        done = stoker_smoke(tmp_path, "--only", "lama_0")
    assert done.returncode == 3
    assert "It has: llama_0, llama_1, bge_0, nginx_0" in done.stdout
