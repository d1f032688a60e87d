"""`stoker restart`: what is drained, in which order, and that nothing is left drained without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gateway_hosts import FLEET, Hosts
from support.fleet import EMBEDDING, LLM, PROJECT
from support.forked import Call, call

from stoker.operate import restart
from stoker.operate.interrupts import INTERRUPTED
from stoker.operate.places import Place, UnknownName, named
from stoker.ready import Outcome, Phase, Progress, Target, Verdict
from stoker.ready.diagnosis import Diagnosis
from stoker.run import drain
from stoker.smoke.ssh import AccessError
from stoker.spec.fleet import Host


@dataclass
class Scene:
    """The gateways' hosts, and what happens to the instances, in order."""

    hosts: Hosts
    events: list[str] = field(default_factory=list)
    verdict: Verdict = Verdict.READY
    broken: BaseException | None = None

    def start(self, place: Place) -> None:
        drained = place.container in self.hosts.listed(EMBEDDING)
        self.events.append(f"start {place.container}{' drained' if drained else ''}")
        self.hosts.down.add(place.container)

    def ready(self, place: Place) -> Outcome:
        if self.broken:
            raise self.broken
        self.events.append(f"wait {place.container}")
        self.hosts.down.discard(place.container)
        target = Target(place.host.name, place.container, place.engine, place.container, 1, "model")
        found = None if self.verdict is Verdict.READY else Diagnosis("x", "it is broken", "mend it")
        return Outcome(target, self.verdict, 3.0, Progress(Phase.LOADING), found)

    def restart(self, *names: str, seconds: float = 5) -> int:
        steps = [restart.planned(FLEET, place, self.hosts.run) for place in named(FLEET, names)]
        return restart.carry_out(steps, self.hosts.run, self.start, self.ready, seconds)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(drain, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(restart, "_POLL_SECONDS", 0.0)
    return Scene(Hosts(tmp_path))


def test_one_after_the_other_and_drained_meanwhile(scene: Scene) -> None:
    assert scene.restart("ollama_bge_0", "ollama_bge_1") == restart.DONE
    assert scene.events == [
        *("start ollama_bge_0 drained", "wait ollama_bge_0"),
        *("start ollama_bge_1 drained", "wait ollama_bge_1"),
    ]
    assert scene.hosts.listed(EMBEDDING) == []


def test_every_gateway_is_drained(scene: Scene) -> None:
    (step,) = [restart.planned(FLEET, place, scene.hosts.run) for place in named(FLEET, ["vllm_llama_gpu0_0"])]
    assert [task.host.name for task in step.drained_at] == [LLM, EMBEDDING]
    assert step.cut == ()


def test_the_only_member_is_not_drained_and_it_is_said_what_is_cut(scene: Scene) -> None:
    scene.hosts.in_flight["vllm_qwen_gpu2"] = [2]
    (step,) = [restart.planned(FLEET, place, scene.hosts.run) for place in named(FLEET, ["vllm_qwen_gpu2"])]
    assert step.drained_at == ()
    assert "the pool qwen would have no member left (there is no other)" in str(step)
    assert "2 requests of now" in str(step)
    assert scene.restart("vllm_qwen_gpu2") == restart.DONE
    assert scene.events == ["start vllm_qwen_gpu2", "wait vllm_qwen_gpu2"]


def test_a_gateway_that_cannot_be_asked_is_no_obstacle_and_is_named(scene: Scene) -> None:
    scene.hosts.silent = True
    (step,) = [restart.planned(FLEET, place, scene.hosts.run) for place in named(FLEET, ["ollama_bge_0"])]
    assert "bge_nginx on 192.168.31.65 cannot be asked" in str(step)


def test_what_a_person_has_drained_stays_drained(scene: Scene) -> None:
    tasks = drain.tasks(FLEET, ["ollama_bge_0"])
    drain.carry_out(tasks, scene.hosts.run, back=False, force=False, limit_seconds=1)
    assert scene.restart("ollama_bge_0") == restart.DONE
    assert scene.hosts.listed(EMBEDDING) == ["ollama_bge_0"]


def test_requests_that_do_not_end_are_not_cut(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.hosts.in_flight["ollama_bge_0"] = [1]
    assert scene.restart("ollama_bge_0", "ollama_bge_1", seconds=0) == restart.FAILED
    assert scene.events == []
    assert scene.hosts.listed(EMBEDDING) == [], "in use again"
    said = capsys.readouterr().err
    assert "ollama_bge_0 is not restarted" in said
    assert "Not restarted: ollama_bge_1." in said


FAILURES: list[tuple[Callable[[Scene], None], int, str]] = [
    (lambda scene: setattr(scene, "verdict", Verdict.FAILED), restart.FAILED, "it is broken"),
    (lambda scene: setattr(scene, "broken", AccessError("the host is gone", "call it")), restart.FAILED, "gone"),
    (lambda scene: setattr(scene, "broken", KeyboardInterrupt()), INTERRUPTED, "Interrupted"),
]


@pytest.mark.parametrize(("breaks", "status", "words"), FAILURES, ids=["not ready", "host lost", "Ctrl-C"])
def test_what_stays_drained_is_said(
    scene: Scene, breaks: Callable[[Scene], None], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks(scene)
    assert scene.restart("ollama_bge_0", "ollama_bge_1") == status
    assert scene.hosts.listed(EMBEDDING) == ["ollama_bge_0"]
    said = capsys.readouterr().err
    assert words in said
    assert "ollama_bge_0 stays drained at bge_nginx on 192.168.31.65" in said
    assert "stoker undrain ollama_bge_0" in said
    assert "Not restarted: ollama_bge_1." in said


def test_names(scene: Scene) -> None:
    assert [place.container for place in named(FLEET, ["bge_nginx", "ollama_bge_1"])] == ["ollama_bge_1", "bge_nginx"]
    with pytest.raises(UnknownName, match=r"No host has nonsense; there are vllm_llama_gpu0_0, .*bge_nginx\."):
        named(FLEET, ["nonsense", "ollama_bge_1"])


def test_a_gateway_is_refused_before_any_host_is_asked(tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    program = Call("stoker.__main__", "main", cwd=PROJECT, argv=("stoker", "restart", "-y", "bge_nginx"), stderr=said)
    assert call(program).status == 3
    assert "bge_nginx: a gateway is not restarted" in said.read_text()


def test_a_host_that_is_lost_while_the_plan_is_made(scene: Scene) -> None:
    def gone(host: Host, command: str) -> str:
        raise AccessError("no SSH connection", "see the network")

    (place,) = named(FLEET, ["ollama_bge_0"])
    assert "cannot be asked (no SSH connection)" in str(restart.planned(FLEET, place, gone))
