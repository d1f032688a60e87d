"""`stoker plan` as a command: which hosts it looks at, and whose log stands beside whose prediction."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import Done, run
from support.fleet import EMBEDDING, LLM, PROJECT
from support.states import fleet_and_host

from stoker.description import Description
from stoker.models.card import load_cards
from stoker.run import plan as command
from stoker.spec.fleet import Fleet

QWEN = "vllm_qwen_gpu2"


def plan(*argv: str) -> Done:
    return run(sys.executable, "-m", "stoker", "plan", "--json", *argv, cwd=PROJECT)


@pytest.mark.parametrize(("limit", "hosts"), [("llm", [LLM]), ("*.65", [EMBEDDING]), (LLM, [LLM])])
def test_a_limit_is_a_group_or_matches_hosts(limit: str, hosts: list[str]) -> None:
    done = plan("--limit", limit)
    assert [host["host"] for host in json.loads(done.out)["hosts"]] == hosts, str(done)


def test_a_limit_without_a_host_is_named_though_another_has_one() -> None:
    done = plan("--limit", LLM, "--limit", "gpu11")
    assert (done.code, done.out) == (3, ""), str(done)
    assert "'gpu11'" in done.err
    assert "embedding" in done.err


def test_a_log_is_compared_with_the_prediction_of_its_own_host(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hosts of one group have containers of the same names."""
    _, host = fleet_and_host()
    hosts = [host, replace(host, name="other")]
    described = Description(None, Fleet(tuple(hosts)), load_cards([PROJECT / "group_data"]), hosts)
    logs = {
        one.name: f"@@stoker logged {QWEN}\nGPU KV cache size: {tokens} tokens\n"
        for one, tokens in zip(hosts, ("54,400", "1,024"), strict=True)
    }
    monkeypatch.setattr(command, "read", lambda *_: described)
    monkeypatch.setattr(command, "_ask_all", lambda _: (logs, {}))
    command.plan(Path("inventory.py"), live=True, as_json=True)
    measured = [
        one["measured"]["tokens"]
        for each in json.loads(capsys.readouterr().out)["hosts"]
        for one in each["instances"]
        if one["name"] == QWEN
    ]
    assert measured == [54_400, 1_024]
