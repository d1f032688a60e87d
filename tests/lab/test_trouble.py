"""A deploy that is interrupted, and an engine that does not come up."""

from __future__ import annotations

import signal

import pytest
from support.commands import wait_for
from support.machine import Machine
from support.project import Project

QWEN = "vllm_qwen_gpu2"


def test_ctrl_c_during_the_wait_and_the_next_run_finishes(project: Project, gpu10: Machine) -> None:
    gpu10.set_load_seconds(6)
    gpu10.sh(f"docker rm -f {QWEN}")
    first = project.start("stoker", "deploy", "--yes")
    wait_for("the engine loads", lambda: gpu10.holds(f"docker logs {QWEN} 2>&1 | grep -q 'GPU lock taken'"), 60)
    first.send_signal(signal.SIGINT)
    done = project.finish(first, 10)
    assert done.code == 130, done
    assert "Interrupted" in done.err
    begun = gpu10.containers()[QWEN]
    assert project.check().code == 2  # it has not answered yet
    again = project.deploy()
    assert again.code == 0, again
    assert gpu10.containers()[QWEN] == begun
    assert project.check().code == 0


@pytest.mark.parametrize(("fault", "said"), [("crash-loading", "cause"), ("oom-start", "memory")])
def test_an_engine_that_does_not_come_up_is_diagnosed(fault: str, said: str, project: Project, gpu10: Machine) -> None:
    before = gpu10.containers()
    gpu10.fault(QWEN, fault)
    gpu10.sh(f"docker rm -f {QWEN}")
    failed = project.deploy(seconds=90)
    assert failed.code == 1, failed
    assert QWEN in failed.err
    assert said in failed.err
    assert "remedy" in failed.err
    assert failed.seconds < 60
    gpu10.fault(QWEN, "clear")
    healed = project.deploy()
    assert healed.code == 0, healed
    after = gpu10.containers()
    assert {name for name in before if after[name] != before[name]} == {QWEN}
