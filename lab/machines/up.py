"""lab/up: make and start the lab.

usage: lab/up [--fresh] [--with HOST] [--real [--engines]] | --check [--real] | --packages

    --check      only tell whether this computer has what the lab needs; changes nothing
    --fresh      throw the GPU hosts away and make them bare again; packages, registry and hub stay
    --with HOST  also this host on demand (lab/lab.toml). When the lab is up, only this one is made. Without --with such a host
                 stays as it is, and with --fresh it is thrown away
    --packages   only install the Debian packages that are missing; the unit tests use their programs too
    --real       also real vLLM for CPU, as an image of the lab's registry, with small models (lab/real/README.md)
    --engines    with --real: also the real engines that only tests use

Run it again at any time: it goes on where it was interrupted, switches on what is off, and says so when all is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lab.machines import (
    access,
    config,
    content,
    daemon,
    hosts,
    images,
    internet,
    marker,
    network,
    requirements,
    ui,
)
from lab.machines.arguments import parse
from lab.machines.config import Lab, Machine
from lab.machines.errors import LabError
from lab.machines.paths import LOGS, STATE
from lab.machines.shell import stop_children_when_stopped


def main(arguments: list[str]) -> int:
    """The command. Raises LabError."""
    options = parse(
        __doc__ or "", arguments, flags=("--check", "--fresh", "--packages", "--real", "--engines"), values=("--with",)
    )
    fresh = "--fresh" in options.flags
    real = sorted(options.flags & {"--real", "--engines"})
    started = time.monotonic()
    stop_children_when_stopped()
    lab = config.load()
    asked = tuple(lab.host(name) for name in (options.values.get("--with"),) if name)
    wanted = tuple(machine for machine in lab.machines if machine in (*lab.always, *asked))
    requirements.check(real=bool(real))
    if "--check" in options.flags:
        if real:
            ui.say(requirements.needs_of_real_engines())
        return 0
    if "--packages" in options.flags:
        requirements.install_missing()
        return 0
    with marker.only_one("lab/up"):
        marker.claim()
        if marker.is_up() and not fresh and _all_running(lab):
            requirements.install_missing(engines="--engines" in real)
            content.build(real)
            added = [machine for machine in asked if not _runs(machine)]
            _add(lab, added)
            state = f"{', '.join(machine.name for machine in added)} is up, too" if added else "The lab is already up"
            ui.say(f"{state} ({time.monotonic() - started:.1f} s). {_hint(added or lab.hosts)}")
            return 0
        marker.clear_up()
        _bring_up(lab, wanted, fresh, real)
        marker.set_up()
    ui.say(f"The lab is up, after {time.monotonic() - started:.1f} s. {_hint(lab.hosts)}")
    return 0


def _bring_up(lab: Lab, wanted: Sequence[Machine], fresh: bool, real: list[str]) -> None:
    """Bring the machines in `wanted` up, and with `fresh` throw the other GPU hosts away."""
    requirements.install_missing(engines="--engines" in real)
    for folder in (STATE, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    if not daemon.running():
        with ui.step("the lab's Docker"):
            daemon.start()
    network.create(lab.network)
    if fresh:
        _in_parallel(_with(hosts.remove, machine) for machine in lab.machines if machine not in wanted)
    access.prepare(lab, _not_made(lab, wanted))
    # The content's repositories are signed with a key that the hosts get when they are made; images do not depend on it.
    kinds = {images.name(machine): machine for machine in wanted}
    _in_parallel([_with(content.build, real), *[_with(images.build, machine) for machine in kinds.values()]])
    _in_parallel(_with(_switch_on, lab, machine, fresh) for machine in wanted)
    internet.wait_until_it_answers(lab)
    access.trust(machine for machine in wanted if machine.kind == "gpu")
    images.clean(lab.machines)


def _add(lab: Lab, machines: Sequence[Machine]) -> None:
    """Bring these hosts up beside those that run, which are not touched: also not what is known of their ssh keys."""
    access.prepare(lab, _not_made(lab, machines))
    for machine in machines:
        images.build(machine)
    _in_parallel(_with(_switch_on, lab, machine, False) for machine in machines)
    access.trust(machines)


def _not_made(lab: Lab, wanted: Sequence[Machine]) -> list[Machine]:
    """The hosts on demand that neither are there nor will be."""
    others = [machine for machine in lab.machines if machine.on_demand and machine not in wanted]
    return [machine for machine in others if hosts.container_state(machine) == "absent"]


def _switch_on(lab: Lab, machine: Machine, fresh: bool) -> None:
    """Bring one machine up, from whatever state it is in."""
    state = hosts.container_state(machine)
    current = state not in ("absent", "incomplete") and hosts.image_is_current(machine)
    replace = fresh if machine.kind == "gpu" else not current
    if state in ("absent", "incomplete") or replace:
        with ui.step(f"{machine.name} ({machine.address}), Debian {machine.release}, {_what(machine)}"):
            hosts.create(lab, machine)
            hosts.start(lab, machine)
        return
    if not current:
        ui.say(f"          {machine.name} was made of an older image; lab/up --fresh makes it anew")
    if state != "running":
        with ui.step(f"{machine.name} ({machine.address}) was off: switching it on, with its disk as it was"):
            hosts.start(lab, machine)


def _what(machine: Machine) -> str:
    if machine.kind == "internet":
        return "packages, registry, model hub"
    return "bare, " + ", ".join(f"{count} x {card}" for card, count in machine.cards().items())


def _all_running(lab: Lab) -> bool:
    if not daemon.running() or not network.exists(lab.network):
        return False
    return all(map(_runs, lab.always)) and hosts.image_is_current(lab.internet)


def _runs(machine: Machine) -> bool:
    return hosts.container_state(machine) == "running"


def _hint(machines: Sequence[Machine]) -> str:
    return f"Try: lab/run ssh {machines[0].name} nvidia-smi"


def _with(function: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: function(*arguments)


def _in_parallel(tasks: Iterable[Callable[[], None]]) -> None:
    """Run the tasks at the same time. Raises LabError with every failure, when all have ended."""
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(task) for task in tasks]
    failures = [error for future in futures if (error := future.exception())]
    for error in failures:
        if not isinstance(error, LabError):
            raise error
    if failures:
        raise LabError("\n".join(str(error) for error in failures))
