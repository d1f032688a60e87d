"""``stoker adopt``: an earlier stack, made by hand, is replaced container by container, with a way back.

What has been done is on the host, so a run that was ended half way is finished by the next.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from stoker.description import CannotStart, read
from stoker.facts.probe import script
from stoker.facts.state import Container, HostState, parse
from stoker.plan.handmade import blockers, comparison, described, differences, repository
from stoker.run.runner import Exit, Options, confirmed, deploy
from stoker.run.show import console
from stoker.smoke.ssh import COMMAND_SECONDS, UNREACHED, AccessError, Login, Shell, logins
from stoker.spec.fleet import Fleet, Host
from stoker.steps import docker, toolkit
from stoker.steps.adopt import ADOPTED, CLOSED, GO_BACK
from stoker.steps.questions import questions

#: Seconds without a word from go-back.sh on a host: removing and starting one container takes some.
_GO_BACK_SECONDS = 120

#: The newest copy that is not finished with.
_OPEN = f'for d in {ADOPTED}/*/; do test ! -d "$d" || test -e "$d{CLOSED}" || echo "$d"; done | tail -n 1'


@dataclass(frozen=True)
class Found:
    """A host and what was found on it."""

    host: Host
    login: Login
    state: HostState
    directory: str  #: where the old containers are kept, or will be
    begun: bool  #: by an earlier run, which was ended half way

    @property
    def old(self) -> list[Container]:
        return [old for olds in blockers(self.host, self.state).values() for old in olds]

    @property
    def engines(self) -> list[str]:
        """Engines that Stoker has not made yet, in the order of replacement."""
        return [
            one.name
            for one in described(self.host)
            if one.instance and not ((there := self.state.containers.get(one.name)) is not None and there.configuration)
        ]


@dataclass(frozen=True)
class Run:
    """The command line."""

    inventory: Path
    overlays: Sequence[str]

    def deploy(self, found: Found, only: str = "") -> int:
        """One container, or whatever is left."""
        return deploy(
            Options(
                inventory=self.inventory,
                overlays=[*self.overlays],
                limit=[found.host.name],
                only=[only] if only else [],
                yes=True,
                adopting={found.host.name: found.directory},
            )
        )


def adopt(inventory: Path, overlays: Sequence[str], limit: Sequence[str], check: bool, yes: bool) -> int:
    """Run it; returns the exit status. Prints to stderr."""
    try:
        described = read(inventory, overlays, limit)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return Exit.NOT_STARTED
    fleet, hosts = described.fleet, described.hosts
    access = logins(described.inventory)
    with ThreadPoolExecutor(len(hosts)) as pool:
        answers = list(pool.map(lambda host: _look(fleet, host, access.get(host.name)), hosts))
    failed = [answer for answer in answers if isinstance(answer, str)]
    if failed:
        console.print("\n".join(map(escape, failed)))
        return Exit.NOT_STARTED
    found = [answer for answer in answers if isinstance(answer, Found)]
    return _adopt(found, Run(inventory, overlays), check, yes)


def _look(fleet: Fleet, host: Host, login: Login | None) -> Found | str:
    if login is None:
        return f"{host.name}: {UNREACHED}"
    shell = Shell(login)
    try:
        output = shell.run(f"sh -c {shlex.quote(script(questions(fleet, host)))}", sudo=True)
        begun = shell.run(f"sh -c {shlex.quote(_OPEN)}", sudo=True).strip().rstrip("/")
    except AccessError as error:
        return f"{host.name}: {error.reason}; {error.remedy}"
    finally:
        shell.close()
    directory = begun or f"{ADOPTED}/{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    return Found(host, login, parse(output.splitlines()), directory, bool(begun))


def _adopt(found: Sequence[Found], run: Run, check: bool, yes: bool) -> int:
    todo = [one for one in found if one.old or one.begun]
    for one in found:
        _show(one)
    if not todo:
        return Exit.DONE
    if check:
        return Exit.PENDING
    if not yes and not confirmed():
        return Exit.NOT_STARTED
    for one in todo:
        status = _replace_all(one, run)
        if status != Exit.DONE:
            later = [other.host.name for other in todo[todo.index(one) + 1 :]]
            if later:
                console.print(f"Not begun: {', '.join(later)}")
            return status
    console.print("Try it: stoker smoke")
    return Exit.DONE


def _show(found: Found) -> None:
    name = f"[bold]{escape(found.host.name)}[/]"
    if not found.old:
        words = (
            "the rest of an adoption that was begun" if found.begun else "nothing that was made by hand is in the way"
        )
        console.print(f"{name}  {words}")
        return
    files = dict.fromkeys(file for old in found.old for file in old.config_files)
    projects = ", ".join(dict.fromkeys(old.project for old in found.old))
    console.print(
        f"{name}  made by hand: project {escape(projects)}, {escape(', '.join(files) or 'no Compose file known')}"
    )
    for old in found.old:
        console.print(f"    {escape(old.name)}  {old.status}")
    console.print("  old -> new")
    for difference in differences(comparison(found.host, found.state)):
        console.print(f"    {escape(str(difference))}")
    before = [
        action
        for action in [*docker.actions(found.host, found.state), *toolkit.actions(found.host, found.state)]
        if action.interrupts
    ]
    for action in before:
        console.print(f"  first, with an interruption of everything: {escape(action.description)}")
    console.print(
        f"  kept in {found.directory}; replaced one at a time: {', '.join([*found.engines, *_gateways(found)])}"
    )


def _gateways(found: Found) -> list[str]:
    return [
        one.name
        for one in described(found.host)
        if one.instance is None and one.name in blockers(found.host, found.state)
    ]


def _replace_all(found: Found, run: Run) -> int:
    """Engine by engine, then what is left: the gateway."""
    done: list[str] = []
    for name in [*found.engines, ""]:
        status = run.deploy(found, name)
        if status != Exit.DONE:
            _not_all(found, done, name, status)
            return Exit.FAILED if done and status == Exit.NOT_STARTED else status
        if name:
            done.append(name)
            _let_old_gateways_look_again(found)
    _on(found, f"test ! -d {found.directory} || touch {found.directory}/{CLOSED}")
    console.print(f"[bold]{escape(found.host.name)}[/]  [green]replaced[/]: {', '.join(old.name for old in found.old)}")
    console.print(f"  to go back:                    {escape(_go_back(found))}")
    console.print(f"  when you are content, remove:  {escape(_line(found, f'rm -r {found.directory}'))}")
    return Exit.DONE


def _let_old_gateways_look_again(found: Found) -> None:
    """nginx asks for its members' addresses when it starts; the new container may have another one."""
    for old in found.old:
        if repository(old.image) == repository(found.host.gateway_image):
            _on(found, f"docker exec {shlex.quote(old.name)} nginx -s reload >/dev/null 2>&1 || true")


def _not_all(found: Found, done: Sequence[str], name: str, status: int) -> None:
    """Say how far it came; what did not get ready is replaced by what was there before."""
    gateways = _gateways(found)
    rest = [one for one in [*found.engines, *gateways] if one not in done]
    console.print(f"[red bold]Not finished[/]: {escape(found.host.name)}")
    console.print(f"  replaced:     {', '.join(done) or 'none'}")
    console.print(f"  not replaced: {', '.join(rest) or 'none'}")
    failed = [name] if name else gateways
    if status == Exit.FAILED and failed:  # without a name go-back.sh brings everything back
        script_path = f"{found.directory}/{GO_BACK}"
        _on(found, f"test ! -e {script_path} || sh {script_path} {shlex.join(failed)}", _GO_BACK_SECONDS)
    console.print("  to go on from here:  stoker adopt")
    if done:
        console.print(f"  to go back wholly:   {escape(_go_back(found))}")


def _on(found: Found, command: str, seconds: float = COMMAND_SECONDS) -> None:
    """Run it there, on a connection of its own: a deploy may have taken long. What it says, or why it failed, is shown."""
    shell = Shell(found.login)
    try:
        said = shell.run(f"sh -c {shlex.quote(command)}", sudo=True, seconds=seconds)
    except AccessError as error:
        said = f"{error.reason}; {error.remedy}"
    finally:
        shell.close()
    for line in said.splitlines():
        console.print(f"  {escape(line)}")


def _go_back(found: Found) -> str:
    return _line(found, f"sh {found.directory}/{GO_BACK}")


def _line(found: Found, command: str) -> str:
    return Shell(found.login).line(command, sudo=True)
