"""What one deploy works on: the fleet, the options, and every host's verdict. Shared by all hosts of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stoker.models.card import Cards, load_cards
from stoker.plan.finding import Finding, refusals
from stoker.ready.board import Board
from stoker.ready.outcome import Outcome
from stoker.spec.fleet import Fleet
from stoker.spec.problems import Problem, SpecError
from stoker.steps.action import Action


@dataclass
class Session:
    """One run. ``only`` names instances; empty means all."""

    fleet: Fleet
    only: tuple[str, ...] = ()
    skip_unreachable: bool = False
    #: Host -> directory there that keeps what was made by hand and is replaced (`stoker adopt`). Elsewhere it is refused.
    adopting: Mapping[str, str] = field(default_factory=dict)
    #: What the preflight found on each host.
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    #: What is known of the models.
    cards: Cards = field(default_factory=Cards)
    board: Board = field(default_factory=Board)
    #: What the plan found to do on each host, in order.
    planned: dict[str, list[Action]] = field(default_factory=dict)
    #: Hosts on which Docker or the toolkit was changed in this run, and systemd with them.
    reloaded: set[str] = field(default_factory=set)
    #: Hosts on which every container is interrupted by a restart of Docker in this run.
    interrupted: set[str] = field(default_factory=set)
    #: Hosts whose cards are not known when the run is planned, because it brings their driver.
    unseen: set[str] = field(default_factory=set)
    #: What the wait for the engines found, in the order of their verdicts.
    outcomes: list[Outcome] = field(default_factory=list)

    def refused(self, host_name: str) -> bool:
        return host_name in refusals(self.findings)

    def hub_token(self, host_name: str) -> str | None:
        """The secret itself, from this machine's environment."""
        name = self.fleet.host(host_name).settings.keys.hub
        return os.environ.get(name) if name else None


_current: Session | None = None


def begin(
    fleet: Fleet,
    only: Sequence[str] = (),
    skip_unreachable: bool = False,
    adopting: Mapping[str, str] | None = None,
    cards: Cards | None = None,
) -> Session:
    """Start a run. Raises SpecError when ``only`` names an instance that does not exist, or a secret is not given."""
    global _current
    problems = []
    known = {instance.name for host in fleet.hosts for _, instance in host.instances()}
    for name in only:
        if name not in known:
            problems.append(
                Problem(
                    "--only",
                    "instance",
                    repr(name),
                    "no host has an instance of this name",
                    f"use one of {', '.join(sorted(known))}",
                )
            )
    for variable in dict.fromkeys(host.settings.keys.hub for host in fleet.hosts):
        if variable and not os.environ.get(variable):
            problems.append(
                Problem(
                    "group_data",
                    "keys.hub",
                    repr(variable),
                    "the environment of this machine has no such variable",
                    f"export {variable}=..., or remove it from `keys`",
                )
            )
    if problems:
        raise SpecError(problems)
    _current = Session(fleet, tuple(only), skip_unreachable, adopting or {}, cards=cards or Cards())
    return _current


def session() -> Session:
    """The run that is going on."""
    if _current is None:
        raise RuntimeError(
            "no run has begun: start it with `stoker deploy`, or with `pyinfra` in the directory that holds config.py"
        )
    return _current


def begin_from_command_line() -> Session:
    """For plain ``pyinfra INVENTORY deploy.py``: read the command line that pyinfra was given, before it connects.

    ``--data only=NAME`` and ``--data skip_unreachable=true`` stand for the options of ``stoker deploy``.
    """
    import click

    from stoker.inventory import data_folders, load_fleet
    from stoker.run.pyinfra_setup import set_up

    if _current is not None:
        return _current
    set_up()
    context = click.get_current_context()
    data = dict(item.partition("=")[::2] for item in context.params.get("data") or ())
    inventory, overlays = Path(context.params["inventory"]), list(context.params.get("group_data") or ())
    fleet, cards = load_fleet(inventory, overlays), load_cards(data_folders(inventory, overlays))
    only = [name for name in data.get("only", "").split(",") if name]
    return begin(fleet, only, data.get("skip_unreachable", "").lower() == "true", cards=cards)
