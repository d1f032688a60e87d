"""The main job: bare hosts to served models by one command, and nothing to do for the second."""

from __future__ import annotations

import json
import re

import pytest
from support.machine import GPU10, GPU65, HOSTS
from support.project import Project, Served

#: Simulated loads included; the aim is 90 s beyond them.
_FROM_BARE_SECONDS = 120
#: The aim is 3 s on a quiet machine; this one runs tests.
_SECOND_RUN_SECONDS = 10

INSTANCES = {
    "gpu10": {
        "vllm_llama_gpu0_0",
        "vllm_llama_gpu0_1",
        "vllm_llama_gpu1_0",
        "vllm_llama_gpu1_1",
        "vllm_qwen_gpu2",
        "vllm_nginx",
    },
    "gpu65": {"ollama_bge_0", "ollama_bge_1", "bge_nginx"},
}


def test_bare_hosts_are_served_by_one_command(served: Served) -> None:
    assert served.deploy.code == 0
    assert served.deploy.seconds < _FROM_BARE_SECONDS
    for host in HOSTS:
        containers = host.containers()
        assert set(containers) == INSTANCES[host.name]
        assert {container.status for container in containers.values()} == {"running"}


def test_the_smoke_test_passes_after_the_first_deploy(served: Served) -> None:
    assert served.smoke.code == 0, str(served.smoke)
    assert served.smoke.seconds < 30


def test_a_second_deploy_changes_nothing(reader: Project) -> None:
    containers = [host.containers() for host in HOSTS]
    written = [host.written() for host in HOSTS]
    again = reader.deploy()
    assert again.code == 0, str(again)
    assert "No changes" in again.err
    assert again.seconds < _SECOND_RUN_SECONDS
    assert [host.containers() for host in HOSTS] == containers
    assert [host.written() for host in HOSTS] == written


def test_check_says_that_nothing_is_pending(reader: Project) -> None:
    done = reader.check()
    assert done.code == 0, str(done)
    assert "No changes" in done.err


def test_a_second_run_of_plain_pyinfra_changes_nothing(reader: Project) -> None:
    containers = [host.containers() for host in HOSTS]
    written = [host.written() for host in HOSTS]
    again = reader.pyinfra("-y")
    assert again.code == 0, str(again)
    # Columns of pyinfra's table: hosts, success (changed), error, no change.
    rows = re.findall(r"^ +(\S.*?) {2,}(\S+) +(\S+) +(\S+) +(\S+) *$", again.err, re.MULTILINE)
    results = {name: counts for name, *counts in rows if counts[0].isdigit()}
    assert len(results) > 10, str(again)
    assert all(
        success == error == "-" and hosts == unchanged for hosts, success, error, unchanged in results.values()
    ), again
    assert [host.containers() for host in HOSTS] == containers
    assert [host.written() for host in HOSTS] == written


def test_the_dry_plan_of_plain_pyinfra_is_empty(reader: Project) -> None:
    done = reader.pyinfra("--json")
    assert done.code == 0, str(done)
    plan = json.loads(done.out)["plan"]
    assert len(plan) > 10
    assert not [
        operation["name"]
        for operation in plan
        if operation["hosts_with_change"] or operation["hosts_with_conditional_change"]
    ]


@pytest.mark.parametrize(
    ("host", "port", "model"),
    [(GPU10, 11434, "qwen2.5-14b"), (GPU65, 11436, "qwen2.5-14b"), (GPU65, 11436, "llama3.1-8b")],
)
def test_the_gateways_route_by_model(reader: Project, host: object, port: int, model: str) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 8})
    url = f"http://{host.address}:{port}/v1/chat/completions"  # type: ignore[attr-defined]
    done = reader.lab_run("curl", "-sS", "-m", "20", "-H", "Content-Type: application/json", "-d", body, url)
    assert json.loads(done.out)["model"] == model
