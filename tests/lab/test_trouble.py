"""A deploy that is not alone, one that is interrupted, and an engine that does not come up."""

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


def test_an_engine_that_crashes_is_diagnosed_and_the_next_run_heals(project: Project, gpu10: Machine) -> None:
    before = gpu10.containers()
    gpu10.fault(QWEN, "crash-loading")
    gpu10.sh(f"docker rm -f {QWEN}")
    failed = project.deploy(seconds=90)
    assert failed.code == 1, str(failed)
    for said in (f"{QWEN} failed", "cause", "remedy", f"docker logs --tail 500 {QWEN}"):
        assert said in failed.err, str(failed)
    assert failed.seconds < 60
    gpu10.fault(QWEN, "clear")
    healed = project.deploy()
    assert healed.code == 0, str(healed)
    after = gpu10.containers()
    assert {name for name in before if after[name] != before[name]} == {QWEN}
