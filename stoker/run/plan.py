"""``stoker plan``: what every instance will take of its cards, from the description alone or beside what runs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from stoker.description import CannotStart, Description, read
from stoker.facts.state import HostState, parse
from stoker.plan.memory_plan import HostPlan, plan_host
from stoker.plan.memory_view import as_data, level, lines
from stoker.plan.read_back import Measured, logs_script, read_logs
from stoker.spec.fleet import Host

FITS, REFUSED, NOT_STARTED = 0, 1, 3

#: Container -> what its log said, on one host.
Logged = Mapping[str, Measured]


def plan(
    inventory: Path,
    overlays: Sequence[str] = (),
    limit: Sequence[str] = (),
    live: bool = False,
    as_json: bool = False,
) -> int:
    """Print the memory plan. 0: it fits, perhaps with warnings; 1: something does not fit, or a host did not answer; 3: bad input."""
    try:
        described = read(inventory, overlays, limit)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    found, errors = _ask_all(described) if live else ({}, {})
    states = {name: parse(output.splitlines()) for name, output in found.items()}
    # By host: hosts of one group have containers of the same names.
    logged = {name: read_logs(output) for name, output in found.items()}
    plans = [plan_host(host, described.cards, states.get(host.name)) for host in described.hosts]
    if as_json:
        _print_json(plans, logged, errors)
    else:
        _print(plans, logged, errors, states)
    return REFUSED if errors or level(plans) == "refuse" else FITS


def _ask_all(described: Description) -> tuple[dict[str, str], dict[str, str]]:
    """Host -> what the probe and the engines' logs said; host -> why it could not be asked."""
    from stoker.facts.probe import script
    from stoker.smoke.ssh import UNREACHED, AccessError, Shell, logins
    from stoker.steps.questions import questions

    access, hosts = logins(described.inventory), described.hosts

    def ask(host: Host) -> tuple[str, str]:
        login = access.get(host.name)
        if login is None:
            return "", UNREACHED
        shell = Shell(login)
        try:
            whole = f"{logs_script([one.name for _, one in host.instances() if one.engine == 'vllm'])}\n{script(questions(described.fleet, host))}"
            return shell.run(f"sh -c {shlex.quote(whole)}", sudo=True), ""
        except AccessError as error:
            return "", f"{error.reason}; {error.remedy}"
        finally:
            shell.close()

    with ThreadPoolExecutor(len(hosts)) as pool:
        answers = dict(zip([host.name for host in hosts], pool.map(ask, hosts), strict=True))
    return (
        {name: output for name, (output, error) in answers.items() if not error},
        {name: error for name, (_, error) in answers.items() if error},
    )


def _print_json(plans: Sequence[HostPlan], logged: Mapping[str, Logged], errors: Mapping[str, str]) -> None:
    hosts = [as_data(one, logged.get(one.host, {})) | {"error": errors.get(one.host, "")} for one in plans]
    print(json.dumps({"verdict": level(plans), "hosts": hosts}, indent=2))


def _print(
    plans: Sequence[HostPlan],
    logged: Mapping[str, Logged],
    errors: Mapping[str, str],
    states: Mapping[str, HostState],
) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for one in plans:
        for line in lines(one, logged.get(one.host, {})):
            console.print(line)
        if one.host in errors:
            console.print(f"  [red]not asked[/]: {errors[one.host]}; shown as described")
        elif one.host in states and states[one.host].gpu_error:
            console.print(f"  [yellow]no card was found there[/]: {states[one.host].gpu_error}; shown as described")
    words = {"fit": "[green]fits[/]", "warn": "[yellow]fits, with warnings[/]", "refuse": "[red]does not fit[/]"}
    cards = sum(len(one.cards) for one in plans)
    instances = sum(len(one.instances) for one in plans)
    console.print(
        f"{instances} instances on {cards} cards: {words[level(plans)]}. A prediction; one start differs from the next."
    )
