"""A host that Stoker runs on (``@local``): the third host of the lab deploys itself, and every verb works there without SSH."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.aboard import PLACE, Aboard
from support.machine import GPU40
from support.project import changed

_FLEET = ("-i", "fleets/single/inventory.py")
_INVENTORY = f"{PLACE}/checkout/fleets/single/inventory.py"
_DEPLOY_SECONDS = 120


@pytest.fixture(scope="module")
def aboard(third_host: None) -> Iterator[Aboard]:
    """Stoker on the host, with the fleet `single` there."""
    made = Aboard(GPU40, {"MODEL_NAME": "Qwen/Qwen3-4B"})
    made.bring()
    _reach_by("")
    yield made
    made.remove()


def _reach_by(more: str) -> None:
    GPU40.sh(f"cat >{_INVENTORY} <<'END'\nsingle = [('@local', {{'address': '{GPU40.address}'{more}}})]\nEND")


def test_a_host_deploys_itself_and_every_verb_works_without_ssh(aboard: Aboard) -> None:
    first = aboard.stoker("deploy", *_FLEET, "--yes", seconds=_DEPLOY_SECONDS)
    assert first.code == 0, str(first)
    contacts = GPU40.contacts()
    again = aboard.stoker("deploy", *_FLEET, "--yes")
    assert (again.code, changed(again)) == (0, set()), str(again)
    assert "No changes" in again.err

    _smoke(aboard)
    for verb, *words in (
        *(("status",), ("doctor",), ("wait",), ("plan", "--live"), ("top", "--once"), ("endpoints", "--check")),
        *(("restart", "vllm", "--yes"), ("drain", "vllm", "--force"), ("undrain", "vllm")),
    ):
        done = aboard.stoker(verb, *_FLEET, *words)
        assert done.code == 0, str(done)
        assert "SSH" not in done.text, str(done)
    logs = aboard.stoker("logs", *_FLEET, "--tail", "3")
    assert (logs.code, len(logs.out.splitlines())) == (0, 6), str(logs)
    inside = aboard.stoker("endpoints", *_FLEET, "--from-container", "vllm@@local")
    assert f"pass  gateway  http://{GPU40.address}:8080" in inside.out, str(inside)

    program = aboard.stoker("exec", *_FLEET, "vllm", "sh", "-c", "echo $0; exit 7", "two words")
    assert (program.code, program.out) == (7, "two words\n"), str(program)
    terminal = aboard.stoker("exec", *_FLEET, "vllm", "tty", terminal=True)
    assert (terminal.code, terminal.out[:9]) == (0, "/dev/pts/"), str(terminal)
    assert GPU40.contacts() == contacts
    assert not GPU40.holds("pgrep -f 'docker (logs|exec|system)'"), "a command was left behind"


def test_with_sudo(aboard: Aboard) -> None:
    _reach_by(", '_sudo': True")
    _smoke(Aboard(GPU40, aboard.settings, user="operator"))


def _smoke(aboard: Aboard) -> None:
    done = aboard.stoker("smoke", *_FLEET, "--limit", "@local", "--json", "/tmp/smoke.json")
    assert done.code == 0, str(done)
    checks = json.loads(GPU40.sh("cat /tmp/smoke.json; rm /tmp/smoke.json"))["checks"]
    assert {check["status"] for check in checks} == {"pass"}, str(done)
    assert {"docker", "container", "GPU", "memory"} <= {check["name"] for check in checks}
