"""`stoker adopt` when one of its deploys fails: what failed goes back to what was there, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from support import handmade
from support.states import bare, fleet_and_host

from stoker.run import adopt
from stoker.run.runner import Exit
from stoker.smoke.ssh import Login

DIRECTORY = "/var/lib/stoker/adopted/20261124-200000"
GATEWAY = "vllm_nginx"
#: What the deploy is asked for last: whatever is not an engine.
REST = ""


@dataclass(frozen=True)
class Deploys(adopt.Run):
    """Deploys that end as they are told to, by the container that they are for; every other one succeeds."""

    ends: Mapping[str, Exit] = field(default_factory=dict)

    def deploy(self, found: adopt.Found, only: str = "") -> int:
        return self.ends.get(only, Exit.DONE)


def went_back(monkeypatch: pytest.MonkeyPatch, ends: Mapping[str, Exit], without: str = "") -> list[str]:
    """What go-back.sh was called with when the documents' stack is replaced, each call its arguments."""
    _, host = fleet_and_host("llm")
    old = {name: one for name, one in handmade.containers("memoryx-hybrid.yaml", "").items() if name != without}
    state = replace(bare(host), docker_version="28.5.2", containers=old)
    found = adopt.Found(host, Login(lambda: None, ("ssh", host.name)), state, DIRECTORY, False)  # type: ignore[arg-type,return-value]
    commands: list[str] = []
    monkeypatch.setattr(adopt, "_on", lambda found, command, seconds=0.0: commands.append(command))
    assert adopt._adopt([found], Deploys(Path("inventory.py"), (), ends), check=False, yes=True) == Exit.FAILED
    return [command.partition("|| sh ")[2].partition(" ")[2] for command in commands if "go-back.sh" in command]


def test_an_engine_that_fails_goes_back_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert went_back(monkeypatch, {"vllm_llama_gpu0_1": Exit.FAILED}) == ["vllm_llama_gpu0_1"]


def test_a_gateway_that_fails_goes_back_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert went_back(monkeypatch, {REST: Exit.FAILED}) == [GATEWAY]


def test_engines_that_serve_stay_when_what_had_no_predecessor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """go-back.sh without a name would bring everything back."""
    assert went_back(monkeypatch, {REST: Exit.FAILED}, without=GATEWAY) == []
