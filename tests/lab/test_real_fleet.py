"""The default fleet on five real vLLM servers (CPU): deployed, served, killed, failed, stopped. The tests build on one another, in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import ROOT, Done, run, wait_for
from support.machine import GPU10
from support.project import CHECKOUT, Project, copy_to
from support.turns import CARDS, ENGINES, assert_one_at_a_time, now, turns, wait_until_served

from lab.real import settings

pytestmark = pytest.mark.real

LAB_SECONDS = 900  # from nothing it builds the image
LOAD_SECONDS = (
    900  # two of five servers load after another, on two cores that all share; a limit, it takes about four minutes
)
ENGINE = settings.engine("vllm-cpu")
IMAGE = f"{ENGINE['name']}:{ENGINE['tags'][0]}"
QWEN = "vllm_qwen_gpu2"


def stoker(*argv: str, project: Project = CHECKOUT, seconds: float = 120) -> Done:
    """The command with the settings for real engines."""
    return project.lab_run("--real", "stoker", *argv, seconds=seconds)


@pytest.fixture(scope="module")
def deployed() -> tuple[Done, str]:
    """Two bare hosts, brought to serving by one command; and the host's time before."""
    up = run(str(ROOT / "lab/up"), "--fresh", "--real", seconds=LAB_SECONDS)
    if up.code:
        pytest.fail(f"the lab with real engines cannot come up (run lab/up --real to see more):\n{up}", pytrace=False)
    begun = now(GPU10)
    return stoker("deploy", "--yes", seconds=LOAD_SECONDS), begun


def test_bare_hosts_to_five_real_servers(deployed: tuple[Done, str]) -> None:
    deploy, begun = deployed
    assert deploy.code == 0, str(deploy)
    assert f"no proof that {IMAGE} computes on a card: not applicable: CPU build" in deploy.err
    assert f"prove that {IMAGE}" not in deploy.text
    for phase in ("waiting for the GPU", "loading weights", "compiling"):
        assert phase in deploy.text, f"no word of {phase!r}:\n{deploy}"
    assert_one_at_a_time(GPU10, begun)


def test_they_are_real(deployed: tuple[Done, str]) -> None:
    for port in ENGINES.values():
        assert json.loads(GPU10.sh(f"curl -sf http://127.0.0.1:{port}/version")) == {"version": ENGINE["version"]}
        metrics = GPU10.sh(f"curl -sf http://127.0.0.1:{port}/metrics")
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "generation_tokens_total"):
            assert f"vllm:{name}{{" in metrics
    inspected = json.loads(GPU10.sh(f"docker inspect {' '.join(ENGINES)}"))
    for entry in inspected:
        assert entry["Config"]["Labels"]["stoker.lab"] == "real-cpu"
        # The arguments are those of the default fleet: what a CPU needs comes from the image and the profile.
        assert "gpu-memory-utilization" in " ".join(entry["Config"]["Cmd"])
        assert "VLLM_CPU_KVCACHE_SPACE=1" in entry["Config"]["Env"]


def test_the_smoke_test_passes_and_skips_only_the_cards_memory(deployed: tuple[Done, str], tmp_path: Path) -> None:
    smoke = stoker("smoke", "--json", str(tmp_path / "smoke.json"))
    assert smoke.code == 0, str(smoke)
    results = json.loads((tmp_path / "smoke.json").read_text())["checks"]
    skipped = {(one["subject"], one["name"], one["summary"]) for one in results if one["status"] == "skip"}
    assert skipped == {(f"GPU {index}", "memory", "not applicable: CPU build") for index in range(3)}
    assert sum(one["status"] == "pass" for one in results) == len(results) - 3 > 60


def test_status_does_not_call_the_engines_simulated(deployed: tuple[Done, str]) -> None:
    status = stoker("status")
    assert status.code == 0, str(status)
    assert "GPUs are simulated, engines are real, on the CPU" in status.out


def test_a_second_deploy_changes_nothing(deployed: tuple[Done, str]) -> None:
    again = stoker("deploy", "--check")
    assert again.code == 0, str(again)


def test_both_engines_of_a_card_and_the_process_of_another_are_killed(deployed: tuple[Done, str]) -> None:
    begun = now(GPU10)
    pair = CARDS["GPU 0"]
    pids = f"docker inspect -f '{{{{.State.Pid}}}}' {' '.join(pair)}"
    core = f"docker top {QWEN} -eo pid,args | awk '/VLLM::EngineCore/ {{print $1}}'"
    GPU10.sh(f"kill -9 $({pids}) $({core})")
    # vLLM ends with exit code 0 after the death of its engine: only a policy that restarts whatever the code is brings it back.
    wait_for(
        "all three start again by themselves",
        lambda: all(turns(GPU10, begun, (name,)) for name in (*pair, QWEN)),
        90,
    )
    wait_until_served(GPU10, LOAD_SECONDS)
    first, second = turns(GPU10, begun, pair)
    assert first.before(second), "both loaded at once"
    # Killed from outside or ended with exit code 0: Docker has started each of them once more.
    restarts = GPU10.sh(f"docker inspect -f '{{{{.RestartCount}}}}' {' '.join((*pair, QWEN))}").split()
    assert restarts == ["1", "1", "1"]
    healed = stoker("deploy", "--yes", seconds=LOAD_SECONDS)
    assert healed.code == 0, str(healed)


def test_a_start_that_fails_is_explained_and_the_others_serve_on(deployed: tuple[Done, str], tmp_path: Path) -> None:
    project = copy_to(tmp_path)
    project.edit("group_data/llm.py", '"max-model-len": 16384', '"max-model-len": 40000')
    failed = stoker("deploy", "--yes", "--only", QWEN, project=project, seconds=LOAD_SECONDS)
    assert failed.code == 1, str(failed)
    assert "docs/troubleshooting.md#context-longer-than-model" in failed.text, str(failed)
    assert "40000" in failed.text
    status = json.loads(stoker("status", "--json").out)
    health = {one["name"]: one["health"] for host in status["hosts"] for one in host["instances"]}
    assert [name for name, word in health.items() if word != "ready"] == [QWEN]


def test_a_stop_is_orderly_and_the_next_deploy_brings_all_back(deployed: tuple[Done, str]) -> None:
    name = CARDS["GPU 1"][0]
    GPU10.sh(f"docker stop {name}", seconds=60)
    (state,) = json.loads(GPU10.sh(f"docker inspect {name}"))
    assert state["State"]["ExitCode"] == 0, state["State"]
    healed = stoker("deploy", "--yes", seconds=LOAD_SECONDS)
    assert healed.code == 0, str(healed)
    assert json.loads(stoker("status", "--json").out)["ready"]
