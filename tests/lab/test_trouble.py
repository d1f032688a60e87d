"""A deploy that is not alone, and one that is interrupted."""

from __future__ import annotations

import signal

from support.commands import wait_for
from support.machine import Machine
from support.project import Project

QWEN = "vllm_qwen_gpu2"


def test_a_second_deploy_is_refused_and_ctrl_c_loses_nothing(project: Project, gpu10: Machine) -> None:
    gpu10.set_load_seconds(8)
    gpu10.sh(f"docker rm -f {QWEN}")
    first = project.start("stoker", "deploy", "--yes")
    wait_for("the engine loads", lambda: gpu10.holds(f"docker logs {QWEN} 2>&1 | grep -q 'GPU lock taken'"), 60)
    second = project.deploy()
    assert second.code == 3, str(second)
    assert "another deploy" in second.err

    first.send_signal(signal.SIGINT)
    interrupted = project.finish(first, 10)
    assert interrupted.code == 130, str(interrupted)
    assert "Interrupted" in interrupted.err
    assert "go on watching:        stoker wait" in interrupted.err
    begun = gpu10.containers()[QWEN]
    waited = project.stoker("wait", seconds=60)
    assert waited.code == 0, str(waited)
    assert f"{QWEN}: ready" in waited.err
    assert gpu10.containers()[QWEN] == begun
