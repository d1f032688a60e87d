"""The smoke test fails when something is broken, for that reason, and only there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.commands import Done
from support.machine import Machine
from support.project import Project

BROKEN = "vllm_llama_gpu1_0"
EMBEDDER = "ollama_bge_1"


def smoke(project: Project) -> tuple[Done, list[dict[str, Any]]]:
    """A smoke test and its checks that did not pass."""
    report = project.directory / "smoke.json"
    done = project.stoker("smoke", "--json", str(report), seconds=60)
    return done, [check for check in json.loads(report.read_text())["checks"] if check["status"] == "fail"]


def test_everything_passes_on_a_served_fleet(project: Project) -> None:
    done, failed = smoke(project)
    assert not failed, done
    assert done.code == 0
    assert done.seconds < 30


@pytest.mark.parametrize(("fault", "reason"), [("garbage", "!!!"), ("error-500", "500")])
def test_one_broken_llama_fails_exactly_what_concerns_it(
    fault: str, reason: str, project: Project, gpu10: Machine
) -> None:
    gpu10.fault(BROKEN, fault)
    done, failed = smoke(project)
    assert done.code == 1, done
    of_instance = [check for check in failed if check["subject"] == BROKEN]
    assert any(reason in check["found"] for check in of_instance), failed
    others = [check for check in failed if check["subject"] != BROKEN]
    # A gateway spreads its requests: those that met the broken member fail too, and name it.
    assert {check["subject"] for check in others} <= {"vllm_nginx", "bge_nginx"}
    assert all("qwen" not in check["name"] and "bge" not in check["name"] for check in others), others


@pytest.mark.parametrize(("fault", "reason"), [("nan", "null"), ("wrong-dimension", "1024")])
def test_one_broken_embedder_fails_exactly_what_concerns_it(
    fault: str, reason: str, project: Project, gpu65: Machine
) -> None:
    gpu65.fault(EMBEDDER, fault)
    done, failed = smoke(project)
    assert done.code == 1, done
    of_instance = [check for check in failed if check["subject"] == EMBEDDER]
    assert any(reason in f"{check['found']} {check['expected']}" for check in of_instance), failed
    others = [check for check in failed if check["subject"] != EMBEDDER]
    assert {check["subject"] for check in others} <= {"bge_nginx"}
    assert all("llama" not in check["name"] and "qwen" not in check["name"] for check in others), others


def test_a_stopped_engine_is_named_with_the_way_to_put_it_right(project: Project, gpu10: Machine) -> None:
    gpu10.sh("docker stop -t 5 vllm_qwen_gpu2")
    done, failed = smoke(project)
    assert done.code == 1, done
    assert any(check["subject"] == "vllm_qwen_gpu2" and "exited" in check["found"] for check in failed), failed
    assert "the next deploy starts it again" in done.text
    assert not [check for check in failed if check["subject"].startswith(("vllm_llama", "ollama"))], failed


def test_what_is_printed_can_be_pasted(project: Project, gpu10: Machine) -> None:
    """Each command line of the report runs as it stands and shows the same."""
    gpu10.fault(BROKEN, "error-500")
    _, failed = smoke(project)
    command = next(
        command for check in failed if check["subject"] == BROKEN for command in check["commands"] if "chat" in command
    )
    again = project.lab_run("sh", "-c", command)
    assert "500" in again.text, again
