"""``stoker deploy``: connect, judge, plan, ask, execute, and answer with an exit code that means something.

pyinfra's own command line answers 0 to Ctrl-C, to a mistyped inventory and to pending changes (pyinfra 3.10), and with ``-y`` it
looks for errors only while it changes hosts. This drives the same machinery: ``pyinfra_cli`` is not a stable API, hence the version check.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
import gevent
import jinja2
import pyinfra
from pyinfra import logger
from pyinfra.api import BaseStateCallback, Config, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operations import run_ops
from pyinfra.api.output import set_echo, set_formatter
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state
from pyinfra_cli.log import setup_logging
from pyinfra_cli.prints import build_plan_json
from pyinfra_cli.util import exec_file, load_deploy_file

from stoker.inventory import data_folders, fleet_of, limited, load_inventory
from stoker.models.card import load_cards
from stoker.plan.finding import refusals, warnings
from stoker.run import interrupt, show
from stoker.run.pyinfra_setup import UnsupportedPyinfra, set_up
from stoker.run.session import Session, begin
from stoker.spec.problems import Problem, SpecError
from stoker.steps import images


class Exit(IntEnum):
    """What a verb's exit status means."""

    DONE = 0
    FAILED = 1
    PENDING = 2  #: changes are pending (``--check``)
    NOT_STARTED = 3
    INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """The command line of ``stoker deploy``."""

    inventory: Path
    deploy_file: Path = Path("deploy.py")
    overlays: list[str] = field(default_factory=list)
    limit: list[str] = field(default_factory=list)
    only: list[str] = field(default_factory=list)
    skip_unreachable: bool = False
    check: bool = False
    yes: bool = False
    verbosity: int = 0
    adopting: Mapping[str, str] = field(default_factory=dict)  #: as in Session


def _noting(errors: dict[str, str]) -> BaseStateCallback:
    """Notes in ``errors`` why a host could not be connected to."""

    class Connections(BaseStateCallback):
        @staticmethod
        def host_connect_error(state: State, host: Any, error: Any) -> None:
            errors[host.name] = str(error)

    return Connections()


def deploy(options: Options) -> int:
    """Run a deploy; returns the exit status. Prints to stderr."""
    began = time.monotonic()
    try:
        set_up()
        inventory = load_inventory(options.inventory, options.overlays)
        run = begin(
            fleet_of(inventory, options.inventory, options.overlays),
            options.only,
            options.skip_unreachable or bool(options.limit),
            options.adopting,
            load_cards(data_folders(options.inventory, options.overlays)),
        )
        limit = limited(inventory, options.limit) or _with_instances(inventory, run)
        _check_deploy_file(options.deploy_file)
    except (SpecError, UnsupportedPyinfra) as error:
        print(error, file=sys.stderr)
        return Exit.NOT_STARTED
    with _only_run(options.inventory) as alone:
        if not alone:
            print(f"another deploy of {options.inventory} is going on; wait for it, or stop it", file=sys.stderr)
            return Exit.NOT_STARTED
        state = _state(options, inventory, limit)
        status = _guarded(state, options, run)
        show.end(status, time.monotonic() - began)
        return status


def _with_instances(inventory: Any, run: Session) -> list[Any] | None:
    """The hosts that have one of the instances named by --only; None for all."""
    if not run.only:
        return None
    return [host for host in inventory if any(i.name in run.only for _, i in run.fleet.host(host.name).instances())]


def _check_deploy_file(path: Path) -> None:
    if not path.is_file():
        reason = f"there is no such file in {Path.cwd()}"
        raise SpecError(
            [Problem(str(path), "deploy file", "", reason, "run stoker in the directory that holds deploy.py")]
        )


@contextlib.contextmanager
def _only_run(inventory: Path) -> Iterator[bool]:
    """Two deploys of one inventory at once would undo each other's work; the lock goes when the process ends."""
    path = inventory.resolve().parent / ".stoker.lock"
    with open(path, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _state(options: Options, inventory: Any, limit: list[Any] | None) -> State:
    pyinfra.is_cli = True  # operations are ordered by their place in the deploy file
    set_formatter(click.style)
    set_echo(click.echo)
    if not logger.handlers:  # several deploys in one process are logged once each
        setup_logging(logging.INFO)
    sys.path.insert(0, os.getcwd())
    state = State(check_for_changes=True)
    state.cwd = os.getcwd()
    state.print_noop_info = state.print_fact_info = options.verbosity > 0
    state.print_input = state.print_fact_input = options.verbosity > 1
    state.print_output = state.print_fact_output = options.verbosity > 2
    ctx_state.set(state)
    config = Config(CONNECT_TIMEOUT=5)
    ctx_config.set(config)
    if Path("config.py").exists():
        exec_file("config.py")
    ctx_inventory.set(inventory)
    state.init(inventory, config, initial_limit=limit)
    return state


def _guarded(state: State, options: Options, run: Session) -> int:
    main = gevent.getcurrent()

    def on_signal(number: int, frame: Any) -> None:
        if not interrupt.press():
            os._exit(Exit.INTERRUPTED)
        print("\nInterrupted: stopping. Again: at once.", file=sys.stderr)
        # Into the main greenlet: an exception raised here would hit whichever greenlet happens to run.
        gevent.get_hub().loop.run_callback_threadsafe(main.throw, KeyboardInterrupt())

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        return _run(state, options, run)
    except KeyboardInterrupt:
        run.board.close()
        show.interrupted(options.inventory, begun=state.current_stage > StateStage.Prepare)
        return Exit.INTERRUPTED
    except jinja2.TemplateError as error:
        where = f"{getattr(error, 'filename', None) or 'templates/'}:{getattr(error, 'lineno', '?')}"
        print(f"{where}: {type(error).__name__}: {error}", file=sys.stderr)
        return Exit.NOT_STARTED if state.current_stage <= StateStage.Prepare else Exit.FAILED
    except (PyinfraError, click.ClickException) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return Exit.NOT_STARTED if state.current_stage <= StateStage.Prepare else Exit.FAILED
    finally:
        if not interrupt.interrupted():
            disconnect_all(state)


def _run(state: State, options: Options, run: Session) -> int:
    unreached: dict[str, str] = {}
    state.add_callback_handler(_noting(unreached))
    logger.setLevel(logging.INFO if options.verbosity else logging.CRITICAL)
    state.set_stage(StateStage.Connect)
    # pyinfra raises when no host is left; the callback has the reason of each.
    with contextlib.suppress(PyinfraError):
        connect_all(state)
    if unreached:
        proceed = run.skip_unreachable and bool(state.activated_hosts)
        show.unreachable(unreached, proceed)
        if not proceed:
            return Exit.NOT_STARTED
    state.set_stage(StateStage.Prepare)
    load_deploy_file(state, str(options.deploy_file))
    against = refusals(run.findings)
    show.warnings([warning for found in run.findings.values() for warning in warnings(found)])
    if against:
        show.refusals(against)
        return Exit.NOT_STARTED
    if state.failed_hosts - {host for host in state.inventory if host.name in unreached}:
        return Exit.FAILED
    pending = [operation for operation in build_plan_json(state) if operation["hosts_with_change"]]
    operations = len(state.get_op_order())
    names = [host.name for host in state.inventory if host in state.activated_hosts]
    notes = {name: images.notes(run.fleet.host(name)) for name in names}
    show.plan(run.planned, names, operations, notes)
    incomplete = Exit.FAILED if unreached else Exit.DONE
    if options.check:
        return Exit.PENDING if pending else incomplete
    if not pending:
        return incomplete
    if not options.yes and not confirmed():
        return Exit.NOT_STARTED
    logger.setLevel(logging.INFO)
    state.set_stage(StateStage.Execute)
    # pyinfra raises when no host is left; the results tell more.
    with contextlib.suppress(PyinfraError):
        run_ops(state)
    state.set_stage(StateStage.Disconnect)
    show.results(state)
    return Exit.FAILED if state.failed_hosts else incomplete


def confirmed() -> bool:
    if not sys.stdin.isatty():
        print("Nothing was changed: there is no terminal to ask; use --yes", file=sys.stderr)
        return False
    return click.confirm("Do this?", default=False, err=True)
