"""`stoker doctor` where it cannot look: a description that is wrong, a host that is away."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.commands import Done, run
from support.fleet import LLM, PROJECT
from support.states import fleet_and_host

from stoker.description import Description
from stoker.doctor.command import _options, ask
from stoker.inventory import GROUP_DATA_VARIABLE
from stoker.models.card import Cards
from stoker.smoke.ssh import Login
from stoker.spec.fleet import Fleet, Host


def doctor(*argv: str) -> Done:
    return run(sys.executable, "-m", "stoker", "doctor", *argv, cwd=PROJECT)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("-i", "no-such.py"), "no-such.py"),
        (("--limit", "192.168.31.11"), LLM),
        (("--group-data", "nowhere"), "nowhere"),
    ],
)
def test_a_description_that_cannot_be_used(argv: tuple[str, ...], named: str) -> None:
    done = doctor(*argv)
    assert done.code == 3, str(done)
    assert named in done.err
    assert done.out == ""


def described(fleet: Fleet, host: Host) -> Description:
    return Description(None, fleet, Cards(), [host])


def test_a_host_that_cannot_be_reached_is_unknown() -> None:
    def refused() -> None:
        raise OSError("Connection refused")

    fleet, host = fleet_and_host()
    (only,) = ask(described(fleet, host), host, Login(refused, ("ssh", host.name)), ())  # type: ignore[arg-type]
    assert (only.name, only.verdict) == ("connection", "unknown")
    assert "Connection refused" in only.detail
    assert f"ssh {host.name}" in only.fix


def test_a_host_without_ssh_is_unknown() -> None:
    fleet, host = fleet_and_host()
    (only,) = ask(described(fleet, host), host, None, ())
    assert (only.verdict, only.detail) == ("unknown", "the inventory reaches it neither by SSH nor as @local")
    assert only.fix


def test_a_fix_names_the_description_only_where_it_is_not_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GROUP_DATA_VARIABLE, raising=False)
    assert _options(Path("inventory.py"), []) == ()
    assert _options(Path("mine/inventory.py"), ["a", "b"]) == (
        *("-i", "mine/inventory.py"),
        *("--group-data", "a"),
        *("--group-data", "b"),
    )
    monkeypatch.setenv(GROUP_DATA_VARIABLE, "a:b")
    assert _options(Path("inventory.py"), ["a", "b"]) == ()
