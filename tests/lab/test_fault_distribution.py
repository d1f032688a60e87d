"""Docker from the distribution instead of from Docker: GPUs come by NVIDIA's hook, and a change of the source is a deploy like any other."""

from __future__ import annotations

import pytest
from support.machine import Machine
from support.project import Project

pytestmark = pytest.mark.fault

QWEN = "vllm_qwen_gpu2"


def test_the_distributions_docker_and_back(project: Project, gpu10: Machine, gpu65: Machine) -> None:
    elsewhere = gpu65.containers()
    own = project.directory / "own"
    own.mkdir()
    (own / "llm.py").write_text('docker = {"source": "distribution", "open_files": 16384}\n', encoding="utf-8")
    lab = project.lab_run("printenv", "STOKER_GROUP_DATA").out.strip()
    overlays = ["--group-data", lab, "--group-data", str(own)]

    changed = project.deploy("--limit", gpu10.address, *overlays, seconds=180)
    assert changed.code == 0, str(changed)
    assert "INTERRUPTS" in changed.err
    assert gpu10.sh("docker version -f '{{.Server.Version}}'").startswith("26.")
    card = gpu10.sh(f"docker exec {QWEN} nvidia-smi -L")
    assert card.count("GPU ") == 1
    # What this Docker would lose without the cgroupfs driver.
    gpu10.sh("systemctl daemon-reload")
    assert gpu10.sh(f"docker exec {QWEN} nvidia-smi -L") == card
    assert project.check("--limit", gpu10.address, *overlays).code == 0

    back = project.deploy(seconds=180)
    assert back.code == 0, str(back)
    assert gpu10.sh("docker version -f '{{.Server.Version}}'").startswith("28.")
    assert project.check().code == 0
    assert gpu65.containers() == elsewhere
