"""The commands of an operator against the deployed fleet: status, top, logs, exec, restart."""

from __future__ import annotations

import json
import re

from support.machine import GPU10, GPU65, Machine
from support.project import Project

LLAMA = "vllm_llama_gpu0_0"


def test_status_knows_memory_load_gateways_and_drift(reader: Project) -> None:
    done = reader.stoker("status", "--json")
    assert done.code == 0, str(done)
    found = json.loads(done.out)
    assert [host["drift"] for host in found["hosts"]] == [[], []]
    for one in (one for host in found["hosts"] for one in host["instances"]):
        assert one["health"] == "ready"
        used, predicted = one["memory"]["used_mib"], one["memory"]["predicted_mib"]
        assert abs(used - predicted) < 0.3 * predicted, one
        assert one["container"]["seconds"] > 0
        assert {view["place"] for view in one["gateways"]} == {"in"}
        assert (one["load"] is not None) == (one["engine"] == "vllm")


def test_top_knows_whose_the_processes_are(reader: Project) -> None:
    done = reader.stoker("top", "--once", "--json")
    assert done.code == 0, str(done)
    hosts = json.loads(done.out)["hosts"]
    assert all(host["containers"] and not host["error"] for host in hosts)
    owners = [sorted(one["instance"] for one in card["processes"]) for host in hosts for card in host["cards"]]
    assert owners[0] == [LLAMA, "vllm_llama_gpu0_1"]
    assert owners[3:] == [["ollama_bge_0"], ["ollama_bge_1"]]


def test_logs_are_in_order_and_whole(reader: Project) -> None:
    for host, name in ((GPU10, "vllm_qwen_gpu2"), (GPU65, "ollama_bge_0")):
        host.sh(f"docker exec {name} sh -c '{{ head -c 40000 /dev/zero | tr \"\\0\" x; echo end; }} >/proc/1/fd/1'")
    done = reader.stoker("logs", "--tail", "20")
    assert done.code == 0, str(done)
    times = [line[:24] for line in done.out.splitlines()]
    assert times == sorted(times)
    long = [line for line in done.out.splitlines() if line.endswith("xend")]
    assert {re.split(r"[ |]+", line)[1] for line in long} == {"vllm_qwen_gpu2", "ollama_bge_0"}
    assert {len(line.partition("| ")[2]) for line in long} == {40003}


def test_exec_passes_the_exit_status_on(reader: Project) -> None:
    done = reader.stoker("exec", "ollama_bge_0", "--", "sh", "-c", "echo $0 out; exit 7", "an argument")
    assert (done.code, done.out) == (7, "an argument out\n"), str(done)


def test_a_restart_is_drained_followed_and_undrained(project: Project, gpu10: Machine) -> None:
    before = gpu10.containers()
    following = project.start("stoker", "logs", "-f", "--tail", "1", LLAMA)
    done = project.stoker("restart", "--yes", LLAMA)
    assert done.code == 0, str(done)
    after = gpu10.containers()
    assert {name for name in before if after[name] != before[name]} == {LLAMA}
    assert f"{LLAMA}: drained, and nothing runs there." in done.out
    assert done.out.splitlines()[-1] == f"{LLAMA}: in use again."
    following.terminate()
    followed = project.finish(following)
    assert f"-- {LLAMA}: " in followed.err
    assert len(followed.out.splitlines()) > 5, "the lines of the new start"
