"""The doctor's live checks: what each finds on an otherwise sound fleet, what is only near to it, and its words."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from support.states import NOW, converged, fleet_and_host

from stoker.doctor.checks import LIVE_CHECKS, Result, examine
from stoker.doctor.live import CardsSeen, End, FileSystem, Live
from stoker.doctor.look import Commands, LiveLook, ago
from stoker.doctor.report import as_json, exit_status, show
from stoker.facts.gpus import GpuProcess
from stoker.facts.state import Container, HostState, Listener
from stoker.plan.preflight import CHECKS
from stoker.ready.stamp import stamp_text
from stoker.steps.layout import READY

QWEN, BGE = "vllm_qwen_gpu2", "ollama_bge_1"
_GIB = 1 << 30
_DAY = 86400


def stamped(seconds_ago: float) -> str:
    """Docker's words for a time."""
    return f"{datetime.fromtimestamp(NOW - seconds_ago, UTC):%Y-%m-%dT%H:%M:%S}.000000001Z"


def disk(mount: str, share: float, size_gib: float, inodes: float = 0.1) -> FileSystem:
    size = int(size_gib * _GIB)
    return FileSystem(mount, int(size * share), size - int(size * share), 1_000_000, int(1_000_000 * inodes))


def sound(group: str = "llm") -> LiveLook:
    """A host after a deploy, days ago, on which everything serves."""
    fleet, host = fleet_and_host(group)
    state = converged(fleet, host)
    by_index = {gpu.index: gpu for gpu in state.gpus}
    processes = [
        GpuProcess(by_index[index].uuid, 1000 + at, "python3", 9000)
        for at, (_, instance) in enumerate(host.instances())
        for index in instance.gpus
    ]
    names = [instance.name for _, instance in host.instances()]
    owners = {process.pid: state.containers[names[at]].id for at, process in enumerate(processes)}
    live = Live(
        ends={name: End(0, False, "", "0001-01-01T00:00:00Z") for name in state.containers},
        cards_seen={
            instance.name: CardsSeen(
                0,
                " ".join(
                    f"GPU {at}: {by_index[i].name} (UUID: {by_index[i].uuid})" for at, i in enumerate(instance.gpus)
                ),
            )
            for _, instance in host.instances()
        },
        resident={
            instance.name: json.dumps(
                {"models": [{"name": "bge-m3:latest", "size": 1_695_000_000, "size_vram": 1_695_000_000}]}
            )
            for _, instance in host.instances()
            if instance.engine == "ollama"
        },
        compute_lines={name: 'msg="inference compute" library=CUDA' for name in names if name.startswith("ollama")},
        file_systems=[disk("/", 0.5, 900), disk("/run", 0.1, 12)],
        persistence=dict.fromkeys(by_index, True),
    )
    commands = Commands(host.name, ("ssh", host.name))
    return LiveLook(fleet, host, replace(state, gpu_processes=processes, gpu_containers=owners), live, NOW, commands)


Change = Callable[[LiveLook], LiveLook]


def state(**changes: Any) -> Change:
    return lambda look: replace(look, state=replace(look.state, **changes))


def live(**changes: Any) -> Change:
    return lambda look: replace(look, live=replace(look.live, **changes))


def entry(field: str, name: Any, value: Any) -> Change:
    """One entry of a mapping of the live facts."""
    return lambda look: replace(look, live=replace(look.live, **{field: {**getattr(look.live, field), name: value}}))


def without_processes(look: LiveLook, name: str) -> LiveLook:
    """What ran in a container has ended with it."""
    its = [pid for pid, owner in look.state.gpu_containers.items() if owner == look.state.containers[name].id]
    rest = [process for process in look.state.gpu_processes if process.pid not in its]
    return replace(look, state=replace(look.state, gpu_processes=rest))


def container(name: str, proven: bool = True, **changes: Any) -> Change:
    def change(look: LiveLook) -> LiveLook:
        new: Container = replace(look.state.containers[name], **changes)
        look = look if new.running else without_processes(look, name)
        stamp = {f"{READY}/{name}": stamp_text(new.id, new.started_at)} if proven else {}
        return replace(
            look,
            state=replace(
                look.state,
                containers={**look.state.containers, name: new},
                contents={**look.state.contents, **stamp},
            ),
        )

    return change


def answer(name: str, code: str) -> Change:
    return lambda look: replace(look, state=replace(look.state, answers={**look.state.answers, name: code}))


def without(name: str) -> Change:
    def change(look: LiveLook) -> LiveLook:
        look = without_processes(look, name)
        rest = {key: value for key, value in look.state.containers.items() if key != name}
        return replace(look, state=replace(look.state, containers=rest))

    return change


def both(*changes: Change) -> Change:
    def change(look: LiveLook) -> LiveLook:
        for one in changes:
            look = one(look)
        return look

    return change


def not_well(look: LiveLook) -> list[Result]:
    return [result for result in examine(look) if result.verdict != "ok"]


@dataclass(frozen=True)
class Case:
    """One thing wrong with a sound host: the check that says it, in these words, and what mends it."""

    change: Change
    check: str
    said: str  #: the whole of it
    fix: str
    group: str = "llm"
    also: tuple[str, ...] = ()  #: other checks that speak too
    verdict: str = "finding"


LLM_DEPLOY, BGE_DEPLOY = "stoker deploy --limit 192.168.31.10", "stoker deploy --limit 192.168.31.65"


def restart(options: str, name: str, host: str) -> str:
    return f"ssh {host} 'docker restart {options}{name}' && stoker deploy --limit {host} --only {name}"


HUNG_RESTART = restart("-t 5 ", QWEN, "192.168.31.10")
LLM_RESTART = restart("", QWEN, "192.168.31.10")
BGE_RESTART = restart("", BGE, "192.168.31.65")
CUDA_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"

CASES = {
    "Docker is down": Case(
        state(
            docker_version="",
            docker_error="Cannot connect to the Docker daemon",
            containers={},
            images={},
            gpu_processes=(),
        ),
        "containers run",
        "Docker does not answer: Cannot connect to the Docker daemon",
        LLM_DEPLOY,
        also=("as deployed",),
    ),
    "no container": Case(without(QWEN), "containers run", f"{QWEN} is not there", LLM_DEPLOY, also=("as deployed",)),
    "stopped": Case(
        both(container(QWEN, status="exited"), entry("ends", QWEN, End(137, False, "", stamped(7300)))),
        "containers run",
        f"{QWEN} does not run: it ended 2 h ago with exit code 137",
        LLM_DEPLOY,
        also=("as deployed",),
    ),
    "out of the machine's memory": Case(
        both(container(QWEN, status="exited"), entry("ends", QWEN, End(137, True, "", stamped(600)))),
        "containers run",
        f"{QWEN} does not run: it ended 10 min ago with exit code 137; the kernel killed it because the machine's memory was used up",
        LLM_DEPLOY,
        also=("as deployed",),
    ),
    "Docker could not start it": Case(
        both(
            container(QWEN, status="created"),
            entry("ends", QWEN, End(128, False, "CDI device not found", "0001-01-01T00:00:00Z")),
        ),
        "containers run",
        f"{QWEN} does not run: it is created; Docker says: CDI device not found",
        LLM_DEPLOY,
        also=("as deployed",),
    ),
    "between two starts": Case(
        both(
            container(QWEN, status="restarting", restarts=7, started_at=stamped(50)),
            entry("ends", QWEN, End(1, False, "", stamped(40))),
        ),
        "containers run",
        f"{QWEN} restarts again and again: 7 restarts, the last end 40 s ago, exit code 1",
        LLM_DEPLOY,
    ),
    "loading once more": Case(
        both(
            container(QWEN, proven=False, restarts=7, started_at=stamped(50)),
            answer(QWEN, "000"),
            entry("ends", QWEN, End(0, False, "", stamped(51))),
            entry("cards_seen", QWEN, CardsSeen(137, "")),
        ),
        "containers run",
        f"{QWEN} restarts again and again: 7 restarts, the last end 51 s ago",
        LLM_DEPLOY,
    ),
    "loading": Case(
        both(container(QWEN, proven=False, started_at=stamped(100)), answer(QWEN, "000")),
        "engines answer",
        f"{QWEN} does not answer its health check; it started 100 s ago and may be loading",
        LLM_DEPLOY,
    ),
    "hangs": Case(
        both(container(QWEN, started_at=stamped(90)), answer(QWEN, "000")),
        "engines answer",
        f"{QWEN} does not answer its health check though it started 90 s ago and has served since",
        HUNG_RESTART,
    ),
    "never came up": Case(
        both(container(QWEN, proven=False, started_at=stamped(5 * _DAY)), answer(QWEN, "000")),
        "engines answer",
        f"{QWEN} does not answer its health check though it started 5 days ago",
        HUNG_RESTART,
    ),
    "sick": Case(
        both(container(QWEN, started_at=stamped(5 * _DAY)), answer(QWEN, "503")),
        "engines answer",
        f"{QWEN} answers its health check with 503 though it started 5 days ago and has served since",
        HUNG_RESTART,
    ),
    "another start than the proven one": Case(
        container(QWEN, proven=False, started_at=stamped(5000)),
        "engines answer",
        f"{QWEN} is healthy, but this start has not answered a real request yet",
        LLM_DEPLOY,
    ),
    "lost its card": Case(
        entry("cards_seen", QWEN, CardsSeen(255, "Failed to initialize NVML: Unknown Error")),
        "cards in containers",
        f"{QWEN} lost GPU 2: nvidia-smi in it says: Failed to initialize NVML: Unknown Error",
        LLM_RESTART,
    ),
    "sees another card": Case(
        entry("cards_seen", QWEN, CardsSeen(0, "GPU 0: Tesla (UUID: GPU-0-1)")),
        "cards in containers",
        f"{QWEN} lost GPU 2: nvidia-smi in it says: GPU 0: Tesla (UUID: GPU-0-1)",
        LLM_RESTART,
    ),
    "nvidia-smi hangs": Case(
        entry("cards_seen", QWEN, CardsSeen(124, "")),
        "cards in containers",
        f"nvidia-smi in {QWEN} gives no answer",
        LLM_RESTART,
        verdict="unknown",
    ),
    "found no card at its start": Case(
        entry("compute_lines", BGE, 'msg="inference compute" id=cpu library=cpu'),
        "Ollama on the GPU",
        f"{BGE} found no card when it started and serves from the CPU",
        BGE_RESTART,
        "embedding",
    ),
    "model on the CPU": Case(
        entry(
            "resident", BGE, json.dumps({"models": [{"name": "bge-m3:latest", "size": 1_695_000_000, "size_vram": 0}]})
        ),
        "Ollama on the GPU",
        f"{BGE} has 0 of 1695 MB of bge-m3 on the card; the rest runs on the CPU",
        BGE_RESTART,
        "embedding",
    ),
    "model partly on the CPU": Case(
        entry(
            "resident",
            BGE,
            json.dumps({"models": [{"name": "bge-m3:latest", "size": 2_000_000, "size_vram": 1_000_000}]}),
        ),
        "Ollama on the GPU",
        f"{BGE} has 1 of 2 MB of bge-m3 on the card; the rest runs on the CPU",
        BGE_RESTART,
        "embedding",
    ),
    "memory of a container that has ended": Case(
        lambda look: replace(
            container(QWEN, status="exited")(look),
            state=replace(container(QWEN, status="exited")(look).state, gpu_processes=look.state.gpu_processes),
        ),
        "card memory held",
        f"process 1004 (python3) of {QWEN}, which does not run, holds 8.8 GiB of GPU 2",
        "ssh 192.168.31.10 'kill -9 1004'",
        also=("as deployed", "containers run"),
    ),
    "no persistence": Case(
        both(state(units={"docker.service": "active enabled"}), live(persistence={0: False, 1: True, 2: False})),
        "persistence mode",
        "persistence mode is off: GPU 0, GPU 2 (until the next boot by this command; nvidia-persistenced keeps it)",
        "ssh 192.168.31.10 'nvidia-smi -pm 1'",
    ),
    "persistence daemon stopped": Case(
        state(units={"docker.service": "active enabled", "nvidia-persistenced.service": "inactive enabled"}),
        "as deployed",
        "NVIDIA container toolkit: start nvidia-persistenced, now and at boot",
        LLM_DEPLOY,
    ),
    "disk full": Case(
        live(file_systems=[disk("/", 0.98, 900)]),
        "room on disks",
        "/ is full: 98% used, 18.00 GiB free",
        "ssh 192.168.31.10 'docker image prune --all --force'",
    ),
    "little left on a large disk": Case(
        live(file_systems=[disk("/", 0.5, 900), FileSystem("/data", 21 * _GIB, _GIB - 1, 0, 0)]),
        "room on disks",
        "/data is full: 95% used, 1.00 GiB free",
        "ssh 192.168.31.10 'sh -c '\"'\"'du -xah -d 2 /data | sort -h | tail -n 15'\"'\"''",
    ),
    "disk nearly full": Case(
        live(file_systems=[disk("/", 0.91, 900)]),
        "room on disks",
        "/ is nearly full: 91% used, 81.00 GiB free",
        "ssh 192.168.31.10 'docker image prune --all --force'",
    ),
    "no inodes": Case(
        live(file_systems=[disk("/", 0.2, 900, inodes=0.99)]),
        "room on disks",
        "/ has nearly no inodes left: 990000 of 1000000 used (720.00 GiB free)",
        "ssh 192.168.31.10 'docker image prune --all --force'",
    ),
    "refused by the preflight": Case(
        state(time=NOW + 4000),
        "system",
        "its clock is 4000 s ahead of this machine's",
        "set both clocks, for instance with chrony; signatures and TLS fail otherwise",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_finding(case: Case) -> None:
    found = not_well(case.change(sound(case.group)))
    (first, *_) = [result for result in found if result.name == case.check] or [None]
    assert first is not None, found
    assert (first.detail, first.fix, first.verdict) == (case.said, case.fix, case.verdict)
    assert sorted(result.name for result in found if result is not first) == sorted(case.also)
    assert all(result.fix for result in found)


NEAR_MISSES: dict[str, tuple[str, Change]] = {
    "restarted, and proven since": ("llm", container(QWEN, restarts=1, started_at=stamped(60))),
    "restarted days ago": ("llm", container(QWEN, restarts=9, started_at=stamped(3 * _DAY))),
    "a gateway that Docker has just restarted": ("llm", container("vllm_nginx", restarts=1, started_at=stamped(30))),
    "killed long ago, running since": ("llm", entry("ends", QWEN, End(0, True, "", stamped(_DAY)))),
    "asked between two starts": (
        "llm",
        entry("cards_seen", QWEN, CardsSeen(1, f"Error response from daemon: container {'a' * 64} is not running")),
    ),
    "no model loaded, a card found": ("embedding", entry("resident", BGE, '{"models": []}')),
    "another model on the CPU": (
        "embedding",
        entry("resident", BGE, json.dumps({"models": [{"name": "test:latest", "size": 5, "size_vram": 0}]})),
    ),
    "/api/ps does not answer": ("embedding", entry("resident", BGE, "")),
    "disk at 89 %": ("llm", live(file_systems=[disk("/", 0.89, 900)])),
    "a small file system that is half full": ("llm", live(file_systems=[disk("/boot", 0.5, 0.5)])),
    "a file system without inodes": ("llm", live(file_systems=[FileSystem("/", 1, 900 * _GIB, 0, 0)])),
    "persistence by the daemon": ("llm", live(persistence={0: False})),
}


@pytest.mark.parametrize(("group", "change"), NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_is_only_near(group: str, change: Change) -> None:
    assert not_well(change(sound(group))) == []


@pytest.mark.parametrize("group", ["llm", "embedding"])
def test_a_sound_host_has_one_line_for_each_check(group: str) -> None:
    found = examine(sound(group))
    assert {result.verdict for result in found} == {"ok"}
    names = [result.name for result in found]
    assert len(names) == len(set(names))
    left_out = {"persistence mode"} | ({"Ollama on the GPU"} if group == "llm" else set())
    assert set(names) == {"connection", *CHECKS, *LIVE_CHECKS, "as deployed"} - left_out


def test_an_engine_without_its_card_is_named_once() -> None:
    change = both(
        container(BGE, proven=False, started_at=stamped(5000)),
        entry("compute_lines", BGE, "library=cpu"),
    )
    assert [found.name for found in not_well(change(sound("embedding")))] == ["Ollama on the GPU"]


def test_the_port_of_a_container_between_two_starts_is_its_own() -> None:
    look = both(
        container(QWEN, status="restarting", restarts=3, started_at=stamped(9), ports=frozenset({11405})),
        state(listeners=(Listener(11405, "docker-proxy (process 4787)"),)),
    )(sound())
    assert [found.name for found in not_well(look)] == ["containers run"]


def test_the_logs_first_cause_is_told() -> None:
    look = both(
        container(QWEN, status="restarting", restarts=3, started_at=stamped(9)),
        entry("ends", QWEN, End(1, False, "", stamped(5))),
        entry("logs", QWEN, f"INFO 11-20 starting\n{CUDA_OOM}\nRuntimeError: Engine core initialization failed."),
    )(sound())
    (found,) = not_well(look)
    assert "; its log says: " in found.detail
    assert "memory" in found.detail


def test_drift_names_the_chapter_and_what_it_would_do() -> None:
    look = sound()
    compose = next(path for path in look.state.files if path.endswith(".yaml"))
    edited = replace(look.state.files[compose], digest="0" * 64)
    (found,) = not_well(replace(look, state=replace(look.state, files={**look.state.files, compose: edited})))
    assert (found.name, found.detail, found.fix) == ("as deployed", f"Stack files: write {compose}", LLM_DEPLOY)


def test_without_a_driver_nothing_is_said_that_rests_on_cards() -> None:
    words = "Failed to initialize NVML: Driver/library version mismatch"
    found = examine(state(gpus=(), driver="", gpu_error=words)(sound()))
    assert [result.name for result in found if result.verdict != "ok"] == ["driver"]
    names = {result.name for result in found}
    assert not names & {"cards in containers", "card memory held", "as deployed"}


def test_a_host_whose_answer_says_nothing_is_unknown() -> None:
    (only,) = examine(replace(sound(), state=HostState()))
    assert (only.name, only.verdict) == ("connection", "unknown")
    assert only.fix


@pytest.mark.parametrize(
    ("commands", "there", "deploy"),
    [
        (Commands("a", ("ssh", "a")), "ssh a 'rm -f /x y'", "stoker deploy --limit a"),
        (
            Commands("a", ("ssh", "-l", "op", "b"), sudo=True),
            "ssh -l op b 'sudo rm -f /x y'",
            "stoker deploy --limit a",
        ),
        (
            Commands("a", ("ssh", "a"), stoker=("-i", "my fleet.py")),
            "ssh a 'rm -f /x y'",
            "stoker deploy -i 'my fleet.py' --limit a",
        ),
    ],
)
def test_a_fix_is_written_as_it_is_pasted(commands: Commands, there: str, deploy: str) -> None:
    assert commands.there("rm", "-f", "/x", "y") == there
    assert commands.deploy() == deploy
    # A shell here takes one word off, a shell there the other.
    assert shlex.split(shlex.split(commands.there("echo", "a b"))[-1])[-2:] == ["echo", "a b"]


def test_times_in_words() -> None:
    assert [ago(seconds) for seconds in (0, 119, 150, 7300, 5 * _DAY)] == ["0 s", "119 s", "2 min", "2 h", "5 days"]


def result(verdict: str = "ok", **changes: Any) -> Result:
    return Result(**{"host": "a", "name": "driver", "verdict": verdict, "detail": "", "fix": "", **changes})


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [(["ok"], 0), (["ok", "finding"], 1), (["unknown", "ok"], 2), (["finding", "unknown", "ok"], 2)],
)
def test_exit_statuses(verdicts: list[str], status: int) -> None:
    results = [result(verdict) for verdict in verdicts]
    assert exit_status(results) == status
    assert json.loads(as_json(results))["ok"] == (status == 0)


def printed(results: list[Result], terminal: bool = False) -> str:
    console = Console(
        file=io.StringIO(),
        width=40,
        highlight=False,
        force_terminal=terminal,
        color_system="standard" if terminal else "auto",
    )
    show(results, 1.26, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_described_image_without_a_container_is_not_pruned_away() -> None:
    """The fix of the next finding needs it, and would fetch it again."""
    change = both(live(file_systems=[disk("/", 0.98, 900)]), without("vllm_nginx"))
    (full,) = [one for one in not_well(change(sound())) if one.name == "room on disks"]
    assert full.fix == "ssh 192.168.31.10 'docker image prune --force'"


def test_lines_for_people() -> None:
    results = [
        result(host="192.168.31.10", detail="580"),
        result("finding", name="room on disks", detail="/ is [full]", fix="ssh a 'du -h /data'"),
        result("unknown", host="c", name="connection", detail="no SSH connection", fix="try ssh c"),
    ]
    assert printed(results).splitlines() == [
        "ok       192.168.31.10  driver         580",
        "FINDING  a              room on disks",
        "           / is [full]",
        "           fix: ssh a 'du -h /data'",
        "UNKNOWN  c              connection",
        "           no SSH connection",
        "           fix: try ssh c",
        "3 checks of 3 hosts in 1.3 s: 1 finding, 1 could not be checked",
    ]
    assert "\x1b[" in printed(results, terminal=True)
    assert printed([result()]).splitlines()[-1] == "1 check of 1 host in 1.3 s: all well"


def test_json_is_what_programs_were_promised() -> None:
    results = [result("unknown", detail="no answer", fix="try ssh a"), result(detail="x")]
    assert json.loads(as_json(results)) == {
        "ok": False,
        "checks": [
            {
                "host": "a",
                "name": "driver",
                "ok": False,
                "detail": "could not be checked: no answer",
                "fix": "try ssh a",
            },
            {"host": "a", "name": "driver", "ok": True, "detail": "x", "fix": ""},
        ],
    }
