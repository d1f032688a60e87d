"""What is not as described is predicted, put right, and nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from support.machine import HOSTS, Machine
from support.project import Project, changed

GPU10, GPU65 = "192.168.31.10", "192.168.31.65"
COMPOSE = "/opt/stoker/memoryx-hybrid/memoryx-hybrid.yaml"
ROUTER = "/opt/stoker/bge-ha/gateway/router.js"
NGINX = "/opt/stoker/bge-ha/gateway/nginx-unified.conf"
MODEL = "/data/projects/models/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"


@dataclass(frozen=True)
class Drift:
    """Something that happened to a host: ``script`` does it, ``expected`` are the operations that put it right."""

    name: str
    host: str
    script: str
    expected: frozenset[str]
    new_container: str = ""  #: the only container that is another one, or started anew, afterwards


def drift(name: str, host: str, script: str, *expected: str, new_container: str = "") -> Drift:
    return Drift(name, host, script, frozenset(expected), new_container)


_READY = "Every model answers"
_LARGEST = f"$(ls -S {MODEL}/*.safetensors | head -n 1)"

DRIFTS = [
    drift(
        "a stopped engine",
        GPU10,
        "docker stop -t 5 vllm_qwen_gpu2",
        "Containers",
        _READY,
        new_container="vllm_qwen_gpu2",
    ),
    drift("a removed engine", GPU65, "docker rm -f ollama_bge_1", "Containers", _READY, new_container="ollama_bge_1"),
    drift("a removed gateway", GPU65, "docker rm -f bge_nginx", "Containers", new_container="bge_nginx"),
    drift(
        "an engine that a person restarted",
        GPU65,
        "docker restart -t 5 ollama_bge_0",
        _READY,
        new_container="ollama_bge_0",
    ),
    drift("an edited compose file", GPU10, f"sed -i s/8192/4096/ {COMPOSE}", "Stack files"),
    drift("a compose file with another mode", GPU10, f"chmod 600 {COMPOSE}", "Stack files"),
    drift("an edited nginx configuration", GPU65, f"echo '# edited' >>{NGINX}", "Stack files"),
    drift("a lost helper program", GPU10, "rm /opt/stoker/bin/fetch-model.py", "Directories"),
    drift("a truncated model file", GPU10, f"truncate -s 1000 {_LARGEST}", "Model files"),
    drift("a removed model file", GPU10, f"rm {_LARGEST}", "Model files"),
    drift("lost package sources", GPU65, "rm /etc/apt/sources.list.d/docker.sources", "Package sources"),
    drift(
        "an nginx that runs another configuration than the file",
        GPU65,
        f"cp -p {NGINX} /run/kept && sed -i 's/X-Stoker-Config \\S*/X-Stoker-Config 000000000000;/' {NGINX} && "
        "docker exec bge_nginx nginx -c /etc/nginx/stoker/nginx-unified.conf -s reload && "
        "i=0; until curl -sSi http://127.0.0.1:11436/health | grep -q 000000000000; do i=$((i+1)); test $i -lt 50 || exit 1; sleep 0.1; done; "
        f"mv /run/kept {NGINX}",
        "Gateway configuration",
    ),
]


@pytest.mark.parametrize("case", DRIFTS, ids=lambda case: case.name.replace(" ", "-"))
def test_it_is_predicted_and_put_right(case: Drift, project: Project) -> None:
    host = next(host for host in HOSTS if host.address == case.host)
    other = next(host for host in HOSTS if host.address != case.host)
    before, elsewhere = host.containers(), (other.containers(), other.written())
    host.sh(case.script)

    check = project.check()
    assert check.code == 2, check
    assert project.predicted() == {(operation, case.host) for operation in case.expected}
    deploy = project.deploy()
    assert deploy.code == 0, deploy
    assert changed(deploy) == {(operation, case.host) for operation in case.expected}
    assert project.check().code == 0

    after = host.containers()
    assert {name for name in before if after[name] != before[name]} == (
        {case.new_container} if case.new_container else set()
    )
    assert {container.status for container in after.values()} == {"running"}
    assert (other.containers(), other.written()) == elsewhere


def test_a_changed_argument_makes_that_instance_anew_and_no_other(project: Project, gpu10: Machine) -> None:
    before = gpu10.containers()
    project.edit(
        "group_data/llm.py",
        '{"name": "vllm_llama_gpu0_1", "gpus": [0], "port": 11402, **_llama}',
        '{"name": "vllm_llama_gpu0_1", "gpus": [0], "port": 11402, **_llama, "arguments": {**_llama["arguments"], "max-num-seqs": 8}}',
    )
    check = project.check()
    assert check.code == 2
    assert "INTERRUPTS vllm_llama_gpu0_1" in check.err
    expected = {("Stack files", GPU10), ("Containers", GPU10), (_READY, GPU10)}
    assert project.predicted() == expected
    deploy = project.deploy()
    assert deploy.code == 0, deploy
    assert changed(deploy) == expected
    after = gpu10.containers()
    assert {name for name in before if after[name] != before[name]} == {"vllm_llama_gpu0_1"}
    assert "'max_num_seqs': 8" in gpu10.logs("vllm_llama_gpu0_1")


def test_what_others_wrote_into_daemon_json_stays(project: Project, gpu65: Machine) -> None:
    path = "/etc/docker/daemon.json"
    before = gpu65.containers()
    settings = json.loads(gpu65.read(path))
    settings["shutdown-timeout"] = 20
    del settings["log-opts"]
    gpu65.sh(f"cp -p {path} /run/daemon.json.kept; cat >{path} <<'END'\n{json.dumps(settings)}\nEND")
    check = project.check()
    assert check.code == 2
    assert "INTERRUPTS 3 running containers" in check.err
    deploy = project.deploy()
    assert deploy.code == 0, deploy
    now = json.loads(gpu65.read(path))
    assert now["shutdown-timeout"] == 20
    assert now["log-opts"] == {"max-size": "50m", "max-file": "3"} or now["log-opts"]["max-size"]
    assert {name: container.id for name, container in gpu65.containers().items()} == {
        name: container.id for name, container in before.items()
    }
    gpu65.sh(f"mv /run/daemon.json.kept {path}")
