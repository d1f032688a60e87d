"""lab/up: make and start the lab.

usage: lab/up [--fresh] [--real [--engines]] | --check [--real] | --packages

    --check      only tell whether this computer has what the lab needs; changes nothing
    --fresh      throw the GPU hosts away and make them bare again; packages, registry and hub stay
    --packages   only install the Debian packages that are missing; the unit tests use their programs too
    --real       also real vLLM for CPU, as an image of the lab's registry, with small models (lab/real/README.md)
    --engines    with --real: also the real engines that only tests use

Run it again at any time: it goes on where it was interrupted, switches on what is off, and says so when all is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
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
    options = parse(__doc__ or "", arguments, flags=("--check", "--fresh", "--packages", "--real", "--engines"))
    fresh = "--fresh" in options.flags
    real = sorted(options.flags & {"--real", "--engines"})
    started = time.monotonic()
    stop_children_when_stopped()
    lab = config.load()
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
            ui.say(f"The lab is already up ({time.monotonic() - started:.1f} s). {_hint(lab)}")
            return 0
        marker.clear_up()
        _bring_up(lab, fresh, real)
        marker.set_up()
    ui.say(f"The lab is up, after {time.monotonic() - started:.1f} s. {_hint(lab)}")
    return 0


def _bring_up(lab: Lab, fresh: bool, real: list[str]) -> None:
    requirements.install_missing(engines="--engines" in real)
    for folder in (STATE, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    if not daemon.running():
        with ui.step("the lab's Docker"):
            daemon.start()
    network.create(lab.network)
    access.prepare(lab)
    # The content's repositories are signed with a key that the hosts get when they are made; images do not depend on it.
    kinds = {images.name(machine): machine for machine in lab.machines}
    _in_parallel([_with(content.build, real), *[_with(images.build, machine) for machine in kinds.values()]])
    _in_parallel(_with(_switch_on, lab, machine, fresh) for machine in lab.machines)
    internet.wait_until_it_answers(lab)
    access.trust(lab)
    images.clean(lab.machines)


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
    running = all(hosts.container_state(machine) == "running" for machine in lab.machines)
    return running and hosts.image_is_current(lab.internet)


def _hint(lab: Lab) -> str:
    return f"Try: lab/run ssh {lab.hosts[0].name} nvidia-smi"


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
