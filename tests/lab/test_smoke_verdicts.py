"""The smoke test fails when something is broken, for that reason, and only there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from support.commands import Done
from support.machine import Machine
from support.project import Project

LLAMA, EMBEDDER = "vllm_llama_gpu1_0", "ollama_bge_1"
GATEWAYS = {"vllm_nginx", "bge_nginx"}


@dataclass(frozen=True)
class Smoke:
    """A smoke test and its checks that did not pass."""

    done: Done
    failed: list[dict[str, Any]]

    def of(self, subject: str) -> list[dict[str, Any]]:
        return [check for check in self.failed if check["subject"] == subject]


def smoke(project: Project) -> Smoke:
    report = project.directory / "smoke.json"
    done = project.stoker("smoke", "--json", str(report), seconds=60)
    return Smoke(done, [check for check in json.loads(report.read_text())["checks"] if check["status"] == "fail"])


def test_everything_passes_on_a_served_fleet(reader: Project) -> None:
    found = smoke(reader)
    assert not found.failed, str(found.done)
    assert found.done.code == 0
    assert found.done.seconds < 30


@pytest.mark.parametrize(
    ("llama_fault", "llama_reason", "embedder_fault", "embedder_reason"),
    [("garbage", "!!!", "nan", "NaN"), ("error-500", "500", "wrong-dimension", "1024")],
)
def test_two_broken_instances_fail_exactly_what_concerns_them(
    llama_fault: str,
    llama_reason: str,
    embedder_fault: str,
    embedder_reason: str,
    project: Project,
    gpu10: Machine,
    gpu65: Machine,
) -> None:
    gpu10.fault(LLAMA, llama_fault)
    gpu65.fault(EMBEDDER, embedder_fault)
    found = smoke(project)
    assert found.done.code == 1, str(found.done)
    for subject, reason in ((LLAMA, llama_reason), (EMBEDDER, embedder_reason)):
        assert any(reason in f"{check['found']} {check['expected']}" for check in found.of(subject)), found.of(subject)
    assert {check["subject"] for check in found.failed} <= {LLAMA, EMBEDDER, *GATEWAYS}
    # A gateway spreads its requests: those that met a broken member fail too. No request for the other models does.
    assert not [check["name"] for check in found.failed if check["subject"] in GATEWAYS and "qwen" in check["name"]]
    assert not [check["name"] for check in found.of("vllm_nginx") if "bge" in check["name"]]


def test_a_stopped_engine_is_named_with_the_way_to_put_it_right(project: Project, gpu10: Machine) -> None:
    gpu10.sh("docker stop -t 5 vllm_qwen_gpu2")
    found = smoke(project)
    assert found.done.code == 1, str(found.done)
    assert any("exited" in check["found"] for check in found.of("vllm_qwen_gpu2")), str(found.done)
    assert "the next deploy starts it again" in found.done.text
    assert {check["subject"] for check in found.failed} <= {"vllm_qwen_gpu2", *GATEWAYS, gpu10.address, "GPU 2"}

    # What is printed can be pasted, and shows the same.
    command = next(
        command for check in found.of("vllm_qwen_gpu2") for command in check["commands"] if "chat" in command
    )
    again = project.lab_run("sh", "-c", command)
    assert again.code == 7, again  # curl: could not connect
