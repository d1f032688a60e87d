"""What a deploy tells the person: plan, refusals, results. On stderr, so that stdout stays free for data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stoker.plan.finding import Finding
from stoker.steps.action import Action

console = Console(stderr=True, highlight=False, soft_wrap=True)


def plan(
    planned: Mapping[str, Sequence[Action]],
    hosts: Sequence[str],
    operations: int,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """What will be done on each host, in order, and ``notes``: what is left out and why."""
    if not any(planned.values()):
        console.print(
            f"[green]No changes[/]: all {operations} operations on {', '.join(hosts)} find what is described."
        )
        return
    console.print("[bold]Plan[/]")
    for host in hosts:
        actions = planned.get(host, [])
        console.print(f"  [bold]{host}[/]" + ("" if actions else "  nothing to do"))
        for action in actions:
            interrupts = f" [yellow]INTERRUPTS {escape(action.interrupts)}[/]" if action.interrupts else ""
            console.print(f"    - {escape(action.description)}{interrupts}")
        for note in (notes or {}).get(host, ()):
            console.print(f"    [dim]{escape(note)}[/]")


def warnings(found: Sequence[Finding]) -> None:
    """What the preflight says and does not stop for."""
    for one in found:
        word = "[yellow]Warning[/]" if one.severity == "warn" else "[dim]Note[/]"
        console.print(f"{word}: {escape(str(one))}")


def refusals(found: Mapping[str, Sequence[Finding]]) -> None:
    count = sum(map(len, found.values()))
    console.print(
        f"[red bold]Refused[/]: {count} reason{'s' if count != 1 else ''} not to start; nothing was changed on any host."
    )
    for reasons in found.values():
        for refusal in reasons:
            console.print(f"  {escape(str(refusal))}")


def unreachable(errors: Mapping[str, str], proceed: bool) -> None:
    for host, error in errors.items():
        console.print(f"[red bold]Unreachable[/]: {host}: {escape(error)}")
        if "host key" in error.lower() or "does not match" in error.lower():
            # -f: OpenSSH looks in the home that the password database names, pyinfra in $HOME.
            command = f"ssh-keygen -f {Path.home() / '.ssh' / 'known_hosts'} -R {host}"
            console.print(f"  remedy: if you rebuilt the machine, forget its old key and deploy again: {command}")
            console.print("  more:   docs/troubleshooting.md#host-key-changed")
    if proceed:
        console.print("  Going on without " + ", ".join(errors) + "; the exit status will be 1.")
    else:
        console.print("  Nothing was changed on any host. To go on without: --skip-unreachable")


def results(state: Any) -> None:
    """One row for each operation that did something or failed, and a count of the others."""
    table = Table("operation", "host", "result", box=None, pad_edge=False)
    unchanged = 0
    not_run: dict[str, int] = {}
    for identity in state.get_op_order():
        name = ", ".join(sorted(state.op_meta[identity].names))
        for host in state.inventory.iter_activated_hosts():
            if identity not in state.ops[host]:
                continue
            meta = state.ops[host][identity].operation_meta
            if not meta.is_complete():
                not_run[host.name] = not_run.get(host.name, 0) + 1
            elif not meta.did_succeed():
                table.add_row(name, host.name, "[red]failed[/]")
            elif meta.did_change():
                table.add_row(name, host.name, "[green]changed[/]")
            else:
                unchanged += 1
    console.print(table)
    console.print(f"{unchanged} more found nothing to do.")
    for host_name, count in not_run.items():
        console.print(f"[yellow]{host_name}: {count} later operations were not run.[/]")


def interrupted(inventory: Path, begun: bool) -> None:
    """What goes on without this program, and how to see it."""
    if not begun:
        return
    option = "" if inventory == Path("inventory.py") else f" -i {inventory}"
    console.print("Containers that were started go on loading, and so do downloads that were begun.")
    console.print(f"  go on watching:        stoker wait{option}", markup=False)
    console.print(f"  take up what is left:  stoker deploy{option}", markup=False)


def end(status: int, seconds: float) -> None:
    words = {
        0: "[green]done[/]",
        1: "[red]failed[/]",
        2: "[yellow]changes are pending[/]",
        3: "[red]not started[/]",
        130: "[yellow]interrupted[/]",
    }
    console.print(f"{words.get(status, '?')} after {seconds:.1f} s (exit status {int(status)})")
