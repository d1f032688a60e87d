"""Whatever restarts the engines, one at a time loads on a GPU, and all come back without a deploy."""

from __future__ import annotations

import shlex

import pytest
from support.commands import ROOT, run, wait_for
from support.machine import HOSTS, Machine
from support.project import Project
from support.turns import CARDS, assert_one_at_a_time, now, turns, wait_until_served

pytestmark = pytest.mark.fault


QWEN = "vllm_qwen_gpu2"
PAIRS = ("GPU 0", "GPU 1")
ENGINES_OF_PAIRS = tuple(name for card in PAIRS for name in CARDS[card])
#: How often in a row: Docker pauses before it starts a container again, and twice as long each time, until one is started by hand.
CRASHES = 4

#: In the place of gpu-turn.py: no order.
NO_ORDER = "import os, sys; engine = sys.argv[sys.argv.index('--') + 1 :]; os.execvp(engine[0], engine)"


def kill_at_once(names: tuple[str, ...]) -> str:
    return f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {' '.join(names)})"


def start_at_once(names: tuple[str, ...]) -> str:
    return " ".join(f"docker restart -t 5 {name} >/dev/null &" for name in names) + " wait"


def restarts(host: Machine, names: tuple[str, ...]) -> set[str]:
    """How often Docker's restart policy had to start each engine again, since it was last started by hand."""
    return set(host.sh(f"docker inspect -f '{{{{.RestartCount}}}}' {' '.join(names)}").split())


def test_twenty_times_both_engines_of_a_card_are_killed_at_once(gpu10: Machine) -> None:
    gpu10.set_load_seconds(0.5)
    first = now(gpu10)
    # vLLM ends with exit code 0 when its engine process dies, and has to come back all the same.
    gpu10.sh(f"kill -9 $(docker top {QWEN} -eo pid,args | awk '/VLLM::EngineCore/ {{print $1}}')")
    wait_for("it has ended, and starts again", lambda: restarts(gpu10, (QWEN,)) == {"1"})
    # Asked at once: Docker keeps its last 256 events only, and a health check makes three.
    died = f"docker events --since {first} --until {now(gpu10)} --filter container={QWEN} --filter event=die"
    assert gpu10.sh(f"{died} --format '{{{{.Actor.Attributes.exitCode}}}}'").split() == ["0"]
    for number in range(20):
        if number % CRASHES == 0:
            begun = now(gpu10)
            gpu10.sh(start_at_once(ENGINES_OF_PAIRS), seconds=60)
            wait_until_served(gpu10)
            assert_one_at_a_time(gpu10, begun, PAIRS)
        begun = now(gpu10)
        gpu10.sh(kill_at_once(ENGINES_OF_PAIRS))
        wait_until_served(gpu10)
        assert_one_at_a_time(gpu10, begun, PAIRS)
        assert restarts(gpu10, ENGINES_OF_PAIRS) == {str(number % CRASHES + 1)}, "an engine failed beside those killed"
    assert restarts(gpu10, (QWEN,)) == {"1"}


def test_without_the_order_they_take_each_others_memory_for_their_own(gpu10: Machine) -> None:
    """What the test above would show if the order did not hold."""
    program, pair = "/opt/stoker/bin/gpu-turn.py", CARDS["GPU 0"]
    gpu10.set_load_seconds(3)
    gpu10.sh(f"cp -p {program} {program}.kept && echo {shlex.quote(NO_ORDER)} >{program}")
    try:
        begun = now(gpu10)
        gpu10.sh(start_at_once(pair), seconds=60)
        wait_until_served(gpu10)
    finally:
        gpu10.sh(f"mv {program}.kept {program}")
    logs = "; ".join(f"docker logs --since {begun} {name} 2>&1" for name in pair)
    assert "EngineCore failed to start" in gpu10.sh(logs)
    assert restarts(gpu10, pair) != {"0"}
    gpu10.set_load_seconds(0.8)
    gpu10.sh(start_at_once(pair), seconds=60)


def test_after_a_power_cut_everything_serves_without_a_deploy(project: Project, gpu10: Machine) -> None:
    begun = now(gpu10)
    before = {host.name: host.containers() for host in HOSTS}
    for host in HOSTS:
        rebooted = run(str(ROOT / "lab/reboot"), host.name, seconds=90)
        assert rebooted.code == 0, str(rebooted)
    wait_until_served(gpu10)
    assert_one_at_a_time(gpu10, begun)
    wait_for("the smoke test passes", lambda: project.stoker("smoke", seconds=60).code == 0, 60)
    for host in HOSTS:
        now_there = {name: one.id for name, one in host.containers().items()}
        assert now_there == {name: one.id for name, one in before[host.name].items()}
    # All that is left for a deploy is to prove the new starts.
    check, predicted = project.predicted()
    assert predicted == {("Every model answers", host.address) for host in HOSTS}, str(check)


def test_after_the_docker_daemon_is_killed_everything_serves_without_a_deploy(project: Project, gpu10: Machine) -> None:
    begun = now(gpu10)
    gpu10.sh("kill -9 $(systemctl show -P MainPID docker.service)")
    wait_for("Docker answers again", lambda: gpu10.holds("docker ps -q | grep -q ."), 60)
    wait_until_served(gpu10, 90)
    assert_one_at_a_time(gpu10, begun)
    wait_for("the smoke test passes", lambda: project.stoker("smoke", seconds=60).code == 0, 60)


def test_when_the_holder_of_a_gpu_is_killed_its_neighbour_starts(gpu10: Machine) -> None:
    names = CARDS["GPU 0"]
    gpu10.set_load_seconds(3)
    begun = now(gpu10)
    gpu10.sh(
        f"docker restart -t 5 {names[0]} >/dev/null & docker restart -t 5 {names[1]} >/dev/null & wait", seconds=60
    )
    first = wait_for("one of them has the turn", lambda: turns(gpu10, begun, names))[0]
    neighbour = next(name for name in names if name != first.name)
    gpu10.set_load_seconds(0.8)
    gpu10.sh(f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {first.name})")
    wait_for(f"{neighbour} has the turn", lambda: any(t.name == neighbour for t in turns(gpu10, begun, names)), 5)
    wait_until_served(gpu10)

    def ended() -> list[str]:
        return [turn.name for turn in turns(gpu10, begun, names) if turn.end]

    # The killed one starts again by itself, and waits until its neighbour lets go.
    wait_for("both have had their turn, one after the other", lambda: ended() == [neighbour, first.name], 30)


def test_a_daemon_reload_takes_no_gpu_from_an_engine(project: Project) -> None:
    for host in HOSTS:
        engines = [name for name in host.containers() if "nginx" not in name]
        seen = " ".join(f"docker exec {name} nvidia-smi -L >/run/seen-{name} &" for name in engines)
        host.sh(f"systemctl daemon-reload; {seen} wait")
        counted = host.sh(f"cd /run && wc -l {' '.join(f'seen-{name}' for name in engines)}").splitlines()[:-1]
        assert [line.split()[0] for line in counted] == ["1"] * len(engines), counted
    smoke = project.stoker("smoke", seconds=60)
    assert smoke.code == 0, str(smoke)
    assert project.check().code == 0
