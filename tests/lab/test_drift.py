"""What is not as described is predicted, put right, and nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from support.machine import GPU10, GPU65, Machine
from support.project import Project, changed

COMPOSE = "/opt/stoker/memoryx-hybrid/memoryx-hybrid.yaml"
NGINX = "/opt/stoker/bge-ha/gateway/nginx-unified.conf"
MODEL = "/data/projects/models/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"

READY = "Every model answers"
_LARGEST = f"$(ls -S {MODEL}/*.safetensors | head -n 1)"

# The file is the right one again, and nginx still runs the other.
_OLD_CONFIGURATION = (
    f'cp -p {NGINX} /run/kept && sed -i \'/X-Stoker-Config/s/"[0-9a-f]*"/"000000000000"/\' {NGINX} && '
    "docker exec bge_nginx nginx -c /etc/nginx/stoker/nginx-unified.conf -s reload 2>/dev/null && i=0 && "
    "until curl -sSi http://127.0.0.1:11436/health | grep -q 000000000000; do i=$((i+1)); test $i -lt 50 || exit 1; sleep 0.1; done && "
    f"mv /run/kept {NGINX}"
)


@dataclass(frozen=True)
class Drift:
    """Something that happened to a host: ``script`` does it, ``operation`` puts it right.

    ``container`` is another one, or started anew, afterwards; an engine is then waited for.
    """

    host: Machine
    script: str
    operation: str
    container: str = ""

    @property
    def expected(self) -> set[tuple[str, str]]:
        waits = self.container and "nginx" not in self.container
        return {(self.operation, self.host.address)} | ({(READY, self.host.address)} if waits else set())


ROUNDS = {
    "containers and what runs in them": [
        Drift(GPU10, "docker stop -t 5 vllm_qwen_gpu2", "Containers", "vllm_qwen_gpu2"),
        Drift(GPU10, "rm /opt/stoker/bin/fetch-model.py", "Directories"),
        Drift(GPU10, f"rm {_LARGEST}", "Model files"),
        Drift(GPU65, "docker rm -f ollama_bge_1", "Containers", "ollama_bge_1"),
        Drift(GPU10, "docker rm -f vllm_nginx", "Containers", "vllm_nginx"),
        Drift(GPU10, f"chmod 600 {COMPOSE}", "Stack files"),
        Drift(GPU65, _OLD_CONFIGURATION, "Gateway configuration"),
        Drift(GPU65, "docker restart -t 5 ollama_bge_0", READY, "ollama_bge_0"),
    ],
    "files": [
        Drift(GPU10, f"sed -i s/8192/4096/ {COMPOSE}", "Stack files"),
        Drift(GPU10, f"truncate -s 1000 {_LARGEST}", "Model files"),
        Drift(GPU65, f"echo '# edited' >>{NGINX}", "Stack files"),
        Drift(GPU65, "rm /etc/apt/sources.list.d/docker.sources", "Package sources"),
    ],
}


@pytest.mark.parametrize("drifts", ROUNDS.values(), ids=ROUNDS)
def test_it_is_predicted_and_put_right_and_nothing_else(drifts: list[Drift], project: Project) -> None:
    before = GPU10.containers() | GPU65.containers()
    for drift in drifts:
        drift.host.sh(drift.script)
    expected = {one for drift in drifts for one in drift.expected}

    check, predicted = project.predicted()
    assert check.code == 2, str(check)
    assert predicted == expected, str(check)
    deploy = project.deploy()
    assert deploy.code == 0, str(deploy)
    assert changed(deploy) == expected, str(deploy)
    assert project.check().code == 0

    after = GPU10.containers() | GPU65.containers()
    touched = {name for name in before if after[name] != before[name]}
    assert touched == {drift.container for drift in drifts if drift.container}
    assert {container.status for container in after.values()} == {"running"}


def test_a_changed_argument_makes_that_instance_anew_and_no_other(project: Project, gpu10: Machine) -> None:
    before = gpu10.containers()
    project.edit(
        "group_data/llm.py",
        '"port": 11402, **_llama}',
        '"port": 11402, **_llama, "arguments": {**_llama["arguments"], "max-num-seqs": 8}}',
    )
    check, predicted = project.predicted()
    assert check.code == 2
    assert "INTERRUPTS vllm_llama_gpu0_1" in check.err
    assert predicted == {(name, gpu10.address) for name in ("Stack files", "Containers", READY)}
    deploy = project.deploy()
    assert deploy.code == 0, str(deploy)
    assert changed(deploy) == predicted
    after = gpu10.containers()
    assert {name for name in before if after[name] != before[name]} == {"vllm_llama_gpu0_1"}
    assert "'max_num_seqs': 8" in gpu10.logs("vllm_llama_gpu0_1")


def test_what_others_wrote_into_daemon_json_stays(project: Project, gpu65: Machine) -> None:
    path = "/etc/docker/daemon.json"
    before = gpu65.containers()
    settings = json.loads(gpu65.read(path))
    log_options = settings.pop("log-opts")
    gpu65.sh(f"cp -p {path} /run/kept; cat >{path} <<'END'\n{json.dumps(settings | {'shutdown-timeout': 20})}\nEND")
    check = project.check()
    assert check.code == 2
    assert f"INTERRUPTS {len(before)} running containers" in check.err
    deploy = project.deploy()
    assert deploy.code == 0, str(deploy)
    assert json.loads(gpu65.read(path)) == settings | {"shutdown-timeout": 20, "log-opts": log_options}
    after = gpu65.containers()
    assert {name: one.id for name, one in after.items()} == {name: one.id for name, one in before.items()}
    gpu65.sh(f"mv /run/kept {path}")
