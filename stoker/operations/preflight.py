"""The barrier at the begin of every run: all verdicts are in before anything is written on any host."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, operation

from stoker.facts.reach import Reach
from stoker.facts.state import HostState
from stoker.operations.memory import current
from stoker.plan.downloads import addresses
from stoker.plan.finding import Finding, refusals
from stoker.plan.preflight import HAND_MADE, findings, unreachable_sources
from stoker.run.session import Session


def barrier(name: str, run: Session, host_name: str) -> None:
    """Note this host's verdict now, while the run is prepared, and end the run in the first operation if any is a refusal.

    Preparing happens for all hosts before anything is executed, also with ``pyinfra -y``.
    """
    run.findings[host_name] = verdict(run, host_name)
    _barrier(name=name, run=run)


def against(run: Session, host_name: str, found: HostState) -> list[Finding]:
    """What a run has against a host by its state; an earlier stack is what `stoker adopt` is for."""
    described = run.fleet.host(host_name)
    said = findings(described, found, int(time.time()), cards=run.cards, environment=os.environ, only=run.only)
    return [one for one in said if one.check != HAND_MADE or host_name not in run.adopting]


def verdict(run: Session, host_name: str) -> list[Finding]:
    described = run.fleet.host(host_name)
    found = current(host, run.fleet)
    said = against(run, host_name, found)
    wanted = addresses(described.only(run.only), found)
    if wanted and found.uid >= 0:
        # Mirrors matter only when something has to be downloaded; and nothing is asked of a host that did not answer.
        reach: dict[str, str] = host.get_fact(Reach, addresses=wanted)
        said += unreachable_sources(described, reach)
    return said


@operation()
def _barrier(run: Session) -> Generator[Any, None, None]:
    unreachable = unreachable_hosts(state)
    if not refusals(run.findings) and (not unreachable or run.skip_unreachable):
        host.noop("nothing speaks against it")
        return
    yield FunctionCommand(_refuse, (run, unreachable), {})


def unreachable_hosts(pyinfra_state: Any) -> list[str]:
    """Hosts that this run should work on and that could not be connected to."""
    return [
        entry.name
        for entry in pyinfra_state.inventory
        if pyinfra_state.is_host_in_limit(entry) and entry not in pyinfra_state.activated_hosts
    ]


def _refuse(state: Any, host: Any, run: Session, unreachable: list[str]) -> bool:
    refused = refusals(run.findings)
    mine = refused.get(host.name, [])
    others = [name for name in refused if name != host.name] + unreachable
    for refusal in mine:
        who = f"{refusal.instance}: " if refusal.instance else ""
        host.log_styled(f"refused: {who}{refusal.reason}", fg="red", log_func=logger.error)
        host.log(f"  remedy: {refusal.remedy}", log_func=logger.error)
    if not mine:
        host.log_styled(f"nothing was changed here, because of {', '.join(others)}", fg="yellow", log_func=logger.error)
    return False
