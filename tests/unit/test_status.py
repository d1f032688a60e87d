"""`stoker status`: what a host's state is called, and the table and the JSON that show it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.fleet import EMBEDDING, LLM, make_fleet
from support.states import NOW, converged, fleet_and_host

from stoker.doctor.live import LIVE, End
from stoker.engine.registry import engine_of
from stoker.facts.gpus import Gpu, GpuProcess
from stoker.facts.state import SECTION, Container, HostState
from stoker.models.card import load_cards
from stoker.operate.screen import show
from stoker.ready.stamp import stamp_text
from stoker.render.gateway import config_identity
from stoker.status.data import GatewayView, HostStatus, InstanceStatus, Load
from stoker.status.drift import differs
from stoker.status.judge import combined, judge, unknown
from stoker.status.live import Said, parse
from stoker.status.metrics import extract, load, sample
from stoker.status.probe import status_script
from stoker.status.report import as_json, as_line
from stoker.status.table import lines
from stoker.steps.layout import READY
from stoker.steps.stack import backends

FLEET = make_fleet()
HOST = FLEET.host(EMBEDDING)
CARDS = load_cards([Path(__file__).resolve().parents[2] / "group_data"])
NAMES = ("ollama_bge_0", "ollama_bge_1", "bge_nginx")
STARTED = "2026-11-21T03:00:00Z"
#: 90 minutes after that, in seconds since the epoch.
LATER = 1795235400


def container(name: str, status: str = "running", restarts: int = 0) -> Container:
    return Container(name, f"id-{name}", "sha256:1", status, STARTED, restarts, "", "bge-ha")


def identity() -> str:
    gateway = HOST.stacks[0].gateway
    assert gateway is not None
    return config_identity(gateway, backends(FLEET, gateway))


READY_STATE = HostState(
    os_name="Debian GNU/Linux 12 (bookworm)",
    time=LATER,
    driver="580.173.02",
    docker_version="28.5.2",
    gpus=[Gpu(index, f"GPU-{index}", "Tesla P40", 23040, "6.1", used_mib=1700) for index in (0, 1)],
    gpu_processes=[GpuProcess("GPU-0", 77, "/usr/bin/ollama", 1650), GpuProcess("GPU-1", 5, "python", 9)],
    gpu_containers={77: "id-ollama_bge_0"},
    containers={name: container(name) for name in NAMES},
    contents={f"{READY}/{name}": stamp_text(f"id-{name}", STARTED) + "\n" for name in NAMES[:2]},
    answers={"ollama_bge_0": "200", "ollama_bge_1": "200", "gateway-bge-ha": identity()},
)


def health(state: HostState) -> list[str]:
    return [entry.health for entry in judge(FLEET, HOST, state).entries]


def test_everything_is_ready() -> None:
    found = judge(FLEET, HOST, READY_STATE, cards=CARDS)
    assert [entry.health for entry in found.entries] == ["ready", "ready", "ready"]
    assert found.ready
    first = found.instances[0]
    assert [(card.used_mib, card.total_mib) for card in first.cards] == [(1700, 23040)]
    assert first.used_mib == 1650
    assert first.predicted_mib is not None
    assert (first.container.since, first.container.seconds) == ("2026-11-21T03:00:00.000000000Z", 5400)
    assert found.instances[1].used_mib is None, "nobody knows whose process 5 is"
    assert found.gateways[0].url == "http://192.168.31.65:11436"


def test_a_bare_host_has_nothing() -> None:
    found = judge(FLEET, HOST, HostState(os_name="Debian"))
    assert [(entry.container.state, entry.health) for entry in found.entries] == [("absent", "down")] * 3
    assert found.docker == "not installed"
    assert not found.ready


def test_a_new_start_is_not_proven_by_the_answer_of_an_earlier_one() -> None:
    later = replace(READY_STATE.containers["ollama_bge_0"], started_at="2026-11-21T04:00:00Z")
    state = replace(READY_STATE, containers={**READY_STATE.containers, "ollama_bge_0": later})
    assert health(state) == ["unproven", "ready", "ready"]


def test_what_does_not_answer_is_silent() -> None:
    state = replace(READY_STATE, answers={"ollama_bge_0": "000", "ollama_bge_1": "200"})
    assert health(state) == ["silent", "ready", "silent"]


def test_a_stopped_container_is_down_whatever_was_proven_before() -> None:
    stopped = {name: container(name, "exited", 2) for name in NAMES}
    found = judge(FLEET, HOST, replace(READY_STATE, containers=stopped))
    assert [(entry.container.state, entry.container.restarts, entry.health) for entry in found.entries] == [
        ("exited", 2, "down")
    ] * 3


def test_a_gateway_with_an_older_configuration_is_stale() -> None:
    state = replace(READY_STATE, answers={**READY_STATE.answers, "gateway-bge-ha": "0123456789ab"})
    assert health(state)[-1] == "stale"


# --- why one does not serve ------------------------------------------------------------------------------------------

LOADING = "INFO 11-21 03:00:05 [gpu_model_runner.py:4000] Starting to load model /model_data/llama..."
TOO_LARGE = "ValueError: Free memory on device cuda:0 (2.10/31.73 GiB) on startup is less than desired GPU memory utilization (0.45, 14.28 GiB)."


def llm_instance(status: str, log: str, end: End | None = None, restarts: int = 0) -> InstanceStatus:
    host, name = FLEET.host(LLM), "vllm_qwen_gpu2"
    state = HostState(time=LATER, containers={name: replace(container(name), status=status, restarts=restarts)})
    said = Said(ends={name: end} if end else {}, logs={name: log})
    return next(one for one in judge(FLEET, host, state, said).instances if one.name == name)


def test_a_loading_engine_shows_its_phase() -> None:
    found = llm_instance("running", f"2026-11-21T03:00:05.100000000Z {LOADING}")
    assert (found.health, found.cause) == ("silent", "")
    assert found.phase.startswith("loading weights")


def test_a_dead_engine_shows_its_cause_and_since_when() -> None:
    end = End(1, False, "", "2026-11-21T03:01:00.5Z")
    found = llm_instance("exited", f"2026-11-21T03:00:59.000000000Z {TOO_LARGE}", end)
    assert (found.health, found.container.exit_code) == ("down", 1)
    assert found.container.since == "2026-11-21T03:01:00.500000000Z"
    assert "2.10" in found.cause
    assert found.remedy


def test_one_that_was_stopped_by_hand_has_no_cause() -> None:
    found = llm_instance("exited", f"2026-11-21T02:00:00.000000000Z {TOO_LARGE}", End(143, False, "", STARTED))
    assert found.cause == ""


def test_one_that_starts_again_shows_why_it_had_to() -> None:
    log = f"2026-11-21T02:59:58.000000000Z {TOO_LARGE}\n2026-11-21T03:00:05.100000000Z {LOADING}"
    found = llm_instance("running", log, restarts=3)
    assert found.phase.startswith("loading weights")
    assert "2.10" in found.cause


# --- load ------------------------------------------------------------------------------------------------------------

PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="a}b"} 3.0
vllm:num_requests_waiting{engine="0",model_name="a}b"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="a}b"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="a}b"} 1e+06
vllm:prompt_tokens_created{engine="0",model_name="a}b"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="a}b"} 500.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="a}b"} 7.0
"""


def extracted(page: str) -> str:
    metrics = engine_of("vllm").metrics
    assert metrics is not None
    return subprocess.run(["sh", "-c", extract(metrics)], input=page, capture_output=True, text=True, check=True).stdout


def test_the_rate_is_between_two_looks() -> None:
    first = sample("100.0", extracted(PAGE))
    second = sample("100.5", extracted(PAGE.replace("500.0", "520.0").replace("1e+06", "1000100.0")))
    assert first is not None
    assert second is not None
    assert load([first, second]) == Load(3, 1, 0.25, 200.0, 40.0, 0.5)
    assert load([second, first]) == Load(3, 1, 0.25, None, None, 0.0), "an engine that was started anew has no rate"


def test_several_engine_processes_are_one_instance() -> None:
    both = PAGE + PAGE.replace('engine="0"', 'engine="1"').replace("} 0.25", "} 0.75")
    one = sample("1", extracted(both))
    assert one is not None
    found = load([one])
    assert found is not None
    assert (found.running, found.waiting, found.kv_cache, found.tokens_per_second) == (6, 2, 0.75, None)


@pytest.mark.parametrize("page", ["", "garbage", "404 page not found"])
def test_a_page_that_is_none(page: str) -> None:
    assert sample("1.0", extracted(page)) is None


# --- gateways --------------------------------------------------------------------------------------------------------


def view(drained: bool = False, in_flight: int = 0, seen: str = "up", gateway: str = "g") -> GatewayView:
    return GatewayView(gateway, "pool", seen, drained, in_flight)


def test_the_places_of_a_member() -> None:
    seen = [view(), view(seen="unknown"), view(drained=True, in_flight=2), view(drained=True), view(seen="down")]
    assert view(seen="proving").place == "proving"
    assert [one.place for one in seen] == ["in", "in", "draining", "out", "down"]


def test_every_gateway_tells_of_instances_elsewhere() -> None:
    said = Said(members={"bge_nginx": (("vllm_qwen_gpu2", view(True, 2, gateway="bge_nginx")),)})
    hosts = [unknown(FLEET, FLEET.host(LLM), "away"), judge(FLEET, HOST, READY_STATE, said)]
    found = combined(FLEET, hosts)
    assert [one.name for one in found[0].instances if one.gateways] == ["vllm_qwen_gpu2"]
    assert "draining, 2" in table(*found)


# --- drift -----------------------------------------------------------------------------------------------------------


def test_drift_is_what_a_deploy_would_do() -> None:
    fleet, host = fleet_and_host()
    state = converged(fleet, host)
    assert differs(fleet, host, state, NOW, CARDS).found == ()
    assert judge(fleet, host, state).instances[0].drift == ""
    name = "vllm_qwen_gpu2"
    other = replace(state.containers[name], configuration="another")
    changed = replace(state, containers={**state.containers, name: other})
    (found,) = differs(fleet, host, changed, NOW, CARDS).found or ()
    assert found == f"Containers: {name}: recreate, its description changed"
    drift = {one.name: one.drift for one in judge(fleet, host, changed).instances if one.drift}
    assert drift == {name: "recreate, its description changed"}


def test_where_a_deploy_would_be_refused_nothing_is_compared() -> None:
    fleet, host = fleet_and_host()
    found = differs(fleet, host, replace(converged(fleet, host), architecture="riscv64"), NOW, CARDS)
    assert found.found is None
    assert "riscv64" in found.refused


# --- the script ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_the_script_is_shell_and_leaves_nothing_behind(whole: bool, tmp_path: Path) -> None:
    """Run here with stand-ins for docker and curl."""
    programs = {
        "docker": 'case "$*" in *members*) printf \'{"members":\\n[]}\';; logs*) echo "it died";; inspect*) '
        'printf \'{"name":"/x","exit":3,"oom":false,"error":"","finished":"2026-11-21T03:00:00Z"}\\n\';; esac',
        "curl": 'case "$*" in *:11401/metrics*) printf \'vllm:num_requests_running{a="b"} 2.0\\n\';; esac',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = status_script(FLEET, FLEET.host(LLM), whole).replace("/run/stoker-status", f"{tmp_path}/stoker-status")
    done = subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = parse(done.stdout.splitlines())
    assert said.ends["x"].exit_code == 3
    assert len(said.samples["vllm_llama_gpu0_0"]) == 2
    assert said.logs["vllm_qwen_gpu2"] == "it died\n"
    assert said.members == {"vllm_nginx": ()}
    assert list(tmp_path.glob("stoker-status*")) == []
    assert f"{SECTION}packages" in done.stdout if whole else f"{SECTION}packages" not in done.stdout


def test_a_log_travels_whole() -> None:
    text = "2026-11-21T03:00:05.100000000Z with\ttab\n"
    rows = [
        f"{SECTION}{LIVE}",
        f"log\tx\t{base64.b64encode(text.encode()).decode()}",
        f"{SECTION}other",
        "log\ty\teA==",
    ]
    assert parse(rows).logs == {"x": text}


# --- for people and for programs -------------------------------------------------------------------------------------


def table(*hosts: HostStatus, width: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=40)
    show(lines(hosts, width), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_says_what_is_simulated_and_is_not_broken_into_lines() -> None:
    text = table(judge(FLEET, HOST, READY_STATE, cards=CARDS, simulated="GPUs and engines are simulated"))
    rows = text.splitlines()
    assert len(rows) == 7
    assert "GPUs and engines are simulated" in rows[1]
    assert "GPU 0 1.7 of 22.5, GPU 1 1.7 of 22.5 GiB in use" in rows[2]
    assert re.search(r"ollama_bge_0 +0 +bge-m3 +ready +90 min +1\.6/\d\.\d ", rows[3])
    assert rows[-1] == "3 of 3 ready"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_narrow_terminal_shows_what_fits_and_says_what_it_leaves_out(width: int) -> None:
    rows = table(judge(FLEET, HOST, READY_STATE, cards=CARDS), width=width).splitlines()
    assert all(len(row) <= width for row in [rows[0], *rows[3:-1]])
    assert "STATE" in rows[0]
    assert "GATEWAY" in rows[0]
    assert "a wider terminal also shows" in rows[-1]
    assert rows[-1].endswith("ADDRESS")


def test_a_host_that_cannot_be_asked_is_not_ready_and_says_why() -> None:
    lost = unknown(FLEET, FLEET.host(LLM), "no SSH connection within 5 s; [try] ssh")
    text = table(lost, judge(FLEET, HOST, READY_STATE))
    assert not lost.ready
    assert "no SSH connection within 5 s; [try] ssh" in text
    assert text.splitlines()[-1] == "3 of 9 ready"


def test_what_is_wrong_stands_below_the_host() -> None:
    found = replace(judge(FLEET, HOST, READY_STATE), drift=("Containers: x: create",))
    broken = replace(found.instances[0], cause="no memory", remedy="less of it")
    text = table(replace(found, instances=[broken, found.instances[1]]))
    assert "  ollama_bge_0: " in text
    assert "no memory\n    remedy: less of it\n  not as described: Containers: x: create\n" in text


def documented_fields() -> set[str]:
    """Names between backquotes in the section about the JSON."""
    text = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    section = text.partition('<a id="status-json"></a>')[2].partition("\n## ")[0]
    return set(re.findall(r"`(\w+)`", section))


def names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set().union(*map(names, value)) if isinstance(value, list) else set()


def test_every_field_of_the_json_is_documented() -> None:
    sampled = (1.0, {"running": [1.0]})
    said = Said(samples={"ollama_bge_0": [sampled]}, members={"bge_nginx": (("ollama_bge_0", view()),)})
    found = combined(FLEET, [judge(FLEET, HOST, READY_STATE, said)])
    whole = json.loads(as_json(found))
    assert whole["ready"] is True
    assert whole["hosts"][0]["instances"][0]["gateways"][0]["place"] == "in"
    assert names(whole) <= documented_fields()
    (line,) = as_line(found, 10)
    assert json.loads(line.plain) == whole
