"""``stoker smoke``: load the inventory, run every check, report, answer with an exit code."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stoker.inventory import fleet_of, load_inventory
from stoker.run.pyinfra_setup import UnsupportedPyinfra, set_up
from stoker.smoke.check import Result
from stoker.smoke.plan import EVERYTHING, NothingToCheck, Plan, Selection, plan
from stoker.smoke.report import Report, as_json, as_junit, show
from stoker.smoke.run import run
from stoker.smoke.ssh import logins
from stoker.spec.fleet import Fleet
from stoker.spec.problems import SpecError

PASSED, FAILED, NOT_STARTED, INTERRUPTED = 0, 1, 3, 130


def smoke(
    inventory: Path,
    overlays: Sequence[str] = (),
    hosts: Sequence[str] = (),
    instances: Sequence[str] = (),
    junit: Path | None = None,
    json: Path | None = None,
    verbose: bool = False,
    console: Console | None = None,
) -> int:
    """Check the fleet of an inventory. 0: all passed; 1: something failed; 3: nothing could be checked; 130: interrupted.

    ``hosts`` and ``instances`` (gateways too, by their containers' names) select; without them everything is checked. The files
    ``junit`` and ``json`` are written whatever the outcome. ``verbose`` prints every command line that ran.
    """
    console = console or Console()
    try:
        _, checks = prepare(inventory, overlays, Selection(frozenset(hosts), frozenset(instances)))
    except (SpecError, NothingToCheck, MissingCurl, UnsupportedPyinfra) as error:
        console.print(str(error), style="red", highlight=False, soft_wrap=True)
        return NOT_STARTED
    try:
        report = _watched(checks, console)
    except KeyboardInterrupt:
        console.print("Interrupted; the checks change nothing.", style="red", highlight=False)
        return INTERRUPTED
    show(report, console, verbose)
    files = [(junit, as_junit(report, str(inventory))), (json, as_json(report, str(inventory)))]
    written = [
        _write(path, text, console) for path, text in files if path is not None
    ]  # both, whatever happens to the first
    return PASSED if report.passed and all(written) else FAILED


class MissingCurl(Exception):
    """curl is what the checks run."""

    def __init__(self) -> None:
        super().__init__("The smoke test runs `curl`, which is not installed here: apt-get install curl")


def prepare(inventory: Path, overlays: Sequence[str] = (), selection: Selection = EVERYTHING) -> tuple[Fleet, Plan]:
    """The fleet and its checks. Contacts no host. Raises SpecError, NothingToCheck, MissingCurl, UnsupportedPyinfra."""
    if shutil.which("curl") is None:
        raise MissingCurl
    set_up()
    loaded = load_inventory(inventory, overlays)
    fleet = fleet_of(loaded, inventory, overlays)
    return fleet, plan(fleet, logins(loaded), selection)


def _watched(checks: Plan, console: Console) -> Report:
    """Run, and on a terminal show how far it is."""
    total, done, failed, lock = len(checks.checks), 0, 0, threading.Lock()

    with console.status(f"{total} checks") as status:

        def on_result(result: Result) -> None:
            nonlocal done, failed
            with lock:
                done, failed = done + 1, failed + (result.status == "fail")
                status.update(f"{done} of {total} checks" + (f", [red]{failed} failed[/red]" if failed else ""))

        return run(checks, on_result)


def _write(path: Path, text: str, console: Console) -> bool:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        console.print(f"{path} could not be written: {error.strerror}", style="red", highlight=False)
        return False
    return True
