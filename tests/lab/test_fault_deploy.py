"""What goes wrong while a deploy is under way: it says so, and the next one finishes the work."""

from __future__ import annotations

import functools
import json
import re
import shlex
from datetime import datetime

import pytest
from support.commands import ROOT, finish_with_times, run, wait_for
from support.machine import Machine
from support.project import Project
from support.turns import ENGINES, now

pytestmark = pytest.mark.fault

NOT_STARTED = 3
QWEN = "vllm_qwen_gpu2"
LLAMA = "/data/projects/models/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"
MODEL = "/data/projects/models/Qwen2.5-14B-Instruct-GPTQ-Int8"
REPOSITORY = "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"

#: How far a deploy from bare has come, in order: each is true from then on.
POINTS = {
    "packages are being installed": "ls /run/stoker-jobs/*.pid",
    "Docker is there": "docker version",
    "the first image is there": "docker images -q | grep -q .",
    "model files arrive": "ls /data/projects/models/*/config.json",
    "the stack's files are there": "test -e /opt/stoker/memoryx-hybrid/memoryx-hybrid.yaml",
    "containers run": "docker ps -q --filter name=vllm_ | grep -q .",
}


def cut_connections(host: Machine) -> None:
    """End every SSH session of a host, as a network does that forgets them."""
    host.sh("ss -Htnp state established '( sport = :22 )' | sed 's/.*pid=//; s/,.*//' | sort -u | xargs -r kill -9")


def test_a_deploy_killed_at_any_point_is_finished_by_the_next(project: Project, gpu10: Machine, gpu65: Machine) -> None:
    """The host was rebuilt: refused by its new key, and accepted by the command that is printed then."""
    elsewhere, written = gpu65.containers(), gpu65.written()
    rebuilt = run(str(ROOT / "lab/rebuild"), gpu10.name, seconds=120)
    assert rebuilt.code == 0, str(rebuilt)
    gpu10.set_load_seconds(1.5)
    refused = project.deploy()
    assert refused.code == NOT_STARTED, str(refused)
    assert not gpu10.holds("test -e /opt/stoker")
    assert gpu65.written() == written
    command = re.search(r"ssh-keygen \S.*-R \S+", refused.err)
    assert command, str(refused)
    accepted = project.lab_run(*shlex.split(command.group()))
    assert accepted.code == 0, str(accepted)
    for point, sign in POINTS.items():
        process = project.start("stoker", "deploy", "--yes")
        wait_for(point, functools.partial(gpu10.holds, f"{sign} >/dev/null 2>&1"), 120)
        process.kill()
        done = project.finish(process, 10)
        assert done.code == -9, f"{point}: {done}"
    done = project.deploy(seconds=180)
    assert done.code == 0, str(done)
    assert project.check().code == 0
    smoke = project.stoker("smoke", seconds=60)
    assert smoke.code == 0, str(smoke)
    assert gpu65.containers() == elsewhere


def test_a_connection_cut_during_the_wait_does_not_end_it(project: Project, gpu10: Machine) -> None:
    gpu10.set_load_seconds(4)
    gpu10.sh(f"docker rm -f {QWEN}")
    process = project.start("stoker", "deploy", "--yes")
    wait_for("the engine loads", lambda: gpu10.holds(f"docker logs {QWEN} 2>&1 | grep -q 'GPU lock taken'"), 60)
    cut_connections(gpu10)
    done = project.finish(process, 60)
    assert done.code == 0, str(done)
    assert f"{QWEN}: ready" in done.err


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("gated", "is gated: accept its licence"),
        ("unavailable", "503"),
        ("truncate", "the next deploy goes on from here"),
        ("corrupt", "something on the way changes files"),
    ],
)
def test_a_hub_in_trouble_is_named_and_the_next_run_heals(
    fault: str, said: str, project: Project, gpu10: Machine, internet: Machine
) -> None:
    before = gpu10.containers()
    gpu10.sh(f"rm -rf {MODEL}")
    internet.fault(REPOSITORY, fault)
    failed = project.deploy(seconds=150)
    assert failed.code == 1, str(failed)
    assert said in failed.err, str(failed)
    assert REPOSITORY in failed.err
    assert not gpu10.holds(f"test -e {MODEL}/.stoker-manifest.json")
    internet.fault(REPOSITORY, "clear")
    healed = project.deploy()
    assert healed.code == 0, str(healed)
    assert project.check().code == 0
    assert gpu10.containers() == before


def test_a_registry_that_is_down_is_named_before_anything_is_changed(
    project: Project, gpu65: Machine, internet: Machine
) -> None:
    gpu65.sh("docker rm -f $(docker ps -aq) && docker rmi -f $(docker images -q)", seconds=60)
    written = gpu65.written()
    internet.sh("systemctl stop lab-registry")
    try:
        refused = project.deploy()
    finally:
        internet.sh("systemctl start lab-registry")
    assert refused.code == NOT_STARTED, str(refused)
    assert "http://registry.internet.test:5000 cannot be reached" in refused.err
    assert "remedy" in refused.err
    assert gpu65.written() == written
    healed = project.deploy()
    assert healed.code == 0, str(healed)


#: Five engines of one deploy, each in trouble of its own: what the lab makes it do, and what the report names.
IN_TROUBLE = {
    "vllm_llama_gpu0_0": ("oom-start", "#gpu-out-of-memory"),
    "vllm_llama_gpu0_1": ("crash-after=0.2", "  cause  "),
    "vllm_llama_gpu1_0": ("no-kernel", "#no-kernel-image"),
    "vllm_llama_gpu1_1": ("error-500", "500"),
    QWEN: ("stuck-after-error", "its process still runs"),
}
REPORT_SECONDS = 5
_DEATHS = "docker events --since {since} --until {until} --filter event=die --filter container={name} --format '{{{{.TimeNano}}}}'"
_FATAL = "docker logs --timestamps {name} 2>&1 | grep -m 1 'EngineCore failed to start' | cut -d ' ' -f 1"


def test_every_engine_in_trouble_is_reported_at_once_with_its_own_cause(project: Project, gpu10: Machine) -> None:
    elsewhere = {name: one for name, one in gpu10.containers().items() if name not in IN_TROUBLE}
    for name, (fault, _) in IN_TROUBLE.items():
        gpu10.fault(name, fault)
    gpu10.sh(f"docker rm -f {' '.join(IN_TROUBLE)}")
    since = now(gpu10)
    failed, lines = finish_with_times(project.start("stoker", "deploy", "--yes"), 150)
    until = now(gpu10)
    assert failed.code == 1, str(failed)
    for name, (_, said) in IN_TROUBLE.items():
        report = re.search(rf"{gpu10.address}: {name} failed after(?:.|\n)*?docker logs --tail 500 {name}", failed.err)
        assert report, f"{name}: no report: {failed}"
        assert said in report[0], report[0]
        assert "  remedy  " in report[0], report[0]
        told = next(when for when, line in lines if f" {name}: failed: " in line)
        events = [int(nano) / 1e9 for nano in gpu10.sh(_DEATHS.format(since=since, until=until, name=name)).split()]
        if not events:  # it did not end: its log said it, or its answer
            events = [datetime.fromisoformat(text).timestamp() for text in gpu10.sh(_FATAL.format(name=name)).split()]
        if events:
            assert 0 <= told - max(when for when in events if when <= told) < REPORT_SECONDS, name
    assert {name: one for name, one in gpu10.containers().items() if name not in IN_TROUBLE} == elsewhere
    for name in IN_TROUBLE:
        gpu10.fault(name, "clear")
    gpu10.sh(f"docker rm -f {QWEN}")  # what is stuck keeps its card
    healed = project.deploy()
    assert healed.code == 0, str(healed)


def test_an_engine_that_hangs_while_loading_ends_at_the_limit_without_progress(
    project: Project, gpu10: Machine
) -> None:
    project.append("group_data/llm.py", "ready_stall_timeout = 10")
    gpu10.fault(QWEN, "hang-loading")
    gpu10.sh(f"docker rm -f {QWEN}")
    failed = project.deploy("--only", QWEN, seconds=120)
    assert failed.code == 1, str(failed)
    for words in (f"{QWEN} timed out", "while loading weights", "no progress for", "remedy"):
        assert words in failed.err, str(failed)
    assert failed.seconds < 90
    gpu10.sh(f"docker rm -f {QWEN}")  # it would hang on


def test_a_load_that_gets_on_is_waited_for_longer_than_the_limit_without_progress(
    project: Project, gpu10: Machine
) -> None:
    project.append("group_data/llm.py", "ready_stall_timeout = 10")
    gpu10.set_load_seconds(24)
    gpu10.sh(f"docker rm -f {QWEN}")
    done = project.deploy("--only", QWEN, seconds=120)
    assert done.code == 0, str(done)
    assert done.seconds > 24


def test_what_breaks_behind_a_deploys_back_is_told_by_a_wait(project: Project, gpu10: Machine) -> None:
    """A damaged file, one that is gone, and a port that somebody took: each instance by its own cause, all in one report."""
    damaged, portless = "vllm_llama_gpu0_0", "vllm_llama_gpu1_1"
    listen = f"import socket, time; s = socket.create_server(('', {ENGINES[portless]})); time.sleep(600)"
    gpu10.sh(
        f"truncate -s -1000 $(ls {LLAMA}/*.safetensors | head -n 1); rm {MODEL}/config.json; docker stop -t 5 {portless}; "
        f"systemd-run -q --collect --unit lab-listener python3 -c {shlex.quote(listen)}"
    )
    try:
        wait_for("somebody listens", lambda: gpu10.holds(f"ss -Hltn 'sport = :{ENGINES[portless]}' | grep -q ."))
        gpu10.sh(f"docker restart -t 5 {damaged} {QWEN}; docker start {portless} || true", seconds=60)
        failed = project.stoker("wait", seconds=90)
    finally:
        gpu10.sh("systemctl stop lab-listener")
    assert failed.code == 1, str(failed)
    for name, anchor in ((damaged, "weights-damaged"), (QWEN, "model-not-found"), (portless, "port-taken")):
        report = re.search(
            rf"{gpu10.address}: {name} failed after(?:.|\n)*?docker logs --tail 500 {name}|$", failed.err
        )
        assert report, str(failed)
        assert f"#{anchor}" in report[0], f"{name}: {failed}"
    # Two of them end again and again, and would be found so by the next deploy too.
    healed = project.deploy()
    assert healed.code == 0, str(healed)


@pytest.mark.parametrize(
    ("fault", "said"), [("not-loaded", "NVIDIA driver"), ("version-mismatch", "Driver/library version mismatch")]
)
def test_cards_that_are_gone_are_told_by_a_wait(fault: str, said: str, project: Project, gpu10: Machine) -> None:
    gpu10.fault("driver", fault)
    try:
        failed = project.stoker("wait")
    finally:
        gpu10.fault("driver", "clear")
    assert failed.code == 1, str(failed)
    assert f"{gpu10.address}: its cards are gone: " in failed.err
    assert said in failed.err


def test_what_a_person_writes_reaches_the_engine_as_it_stands(project: Project, gpu10: Machine) -> None:
    """Whatever the shell, Compose and YAML make of such signs."""
    strange = "a 'b' \"c\" $d ${HOME} `e` \\f #g: {h} %i"
    project.edit(
        "group_data/llm.py",
        '"port": 11405, **_qwen}',
        f'"port": 11405, **_qwen, "environment": {{"NOTE": {strange!r}}}, '
        f'"arguments": {{**_qwen["arguments"], "override-generation-config": {json.dumps({"note": strange})!r}}}}}',
    )
    done = project.deploy("--only", QWEN)
    assert done.code == 0, str(done)
    configuration = json.loads(gpu10.sh(f"docker inspect -f '{{{{json .Config}}}}' {QWEN}"))
    assert f"NOTE={strange}" in configuration["Env"]
    assert json.dumps({"note": strange}) in configuration["Cmd"]
