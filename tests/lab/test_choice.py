"""--limit and --only touch what they name and nothing else."""

from __future__ import annotations

from support.machine import Machine
from support.project import Project

STOPPED = "exited"


def test_limit_leaves_the_other_host_alone(project: Project, gpu10: Machine, gpu65: Machine) -> None:
    for host, name in ((gpu10, "vllm_qwen_gpu2"), (gpu65, "ollama_bge_1")):
        host.sh(f"docker stop -t 5 {name}")
    elsewhere = (gpu10.containers(), gpu10.written(), gpu10.contacts())
    done = project.deploy("--limit", "embedding")
    assert done.code == 0, str(done)
    assert gpu65.containers()["ollama_bge_1"].status == "running"
    assert (gpu10.containers(), gpu10.written(), gpu10.contacts()) == elsewhere


def test_only_touches_the_named_instance(project: Project, gpu10: Machine, gpu65: Machine) -> None:
    gpu10.sh("docker stop -t 5 vllm_llama_gpu0_1 vllm_qwen_gpu2 vllm_nginx")
    before, elsewhere = gpu10.containers(), gpu65.containers()
    done = project.deploy("--only", "vllm_qwen_gpu2")
    assert done.code == 0, str(done)
    after = gpu10.containers()
    assert {name for name in before if after[name] != before[name]} == {"vllm_qwen_gpu2"}
    assert after["vllm_qwen_gpu2"].status == "running"
    assert after["vllm_llama_gpu0_1"].status == STOPPED
    assert gpu65.containers() == elsewhere
    pending = project.check()
    assert pending.code == 2
    assert "vllm_llama_gpu0_1" in pending.err


def test_only_in_a_check_predicts_only_that(project: Project, gpu10: Machine) -> None:
    gpu10.sh("docker stop -t 5 vllm_qwen_gpu2")
    assert project.check("--only", "vllm_llama_gpu0_0").code == 0
    assert project.check("--only", "vllm_qwen_gpu2").code == 2
