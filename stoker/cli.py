"""The command ``stoker``: one verb for each thing that a person wants done."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import pyinfra_cli  # noqa: F401  (first of all: it patches the standard library for gevent)
import typer

from stoker.endpoints.formats import Format
from stoker.inventory import GROUP_DATA_VARIABLE, group_data_directories, load_fleet
from stoker.keys.command import app as keys
from stoker.models.command import app as models
from stoker.spec.problems import SpecError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Bare Linux machines with NVIDIA GPUs to a working, verified LLM service, over SSH.",
    epilog="Exit status: 0 done, 1 failed, 2 changes pending (--check), 3 could not start, 130 interrupted.",
)

app.add_typer(models, name="models")
app.add_typer(keys, name="key")

Inventory = Annotated[Path, typer.Option("--inventory", "-i", help="The inventory file.")]
GroupData = Annotated[
    list[str] | None,
    typer.Option(
        "--group-data",
        metavar="DIR",
        help=f"More group data, overriding group_data/; default: ${GROUP_DATA_VARIABLE}. May be repeated.",
    ),
]

Limit = Annotated[
    list[str] | None, typer.Option(metavar="HOST", help="Only this host, group or pattern. May be repeated.")
]
Instances = Annotated[
    list[str], typer.Argument(metavar="INSTANCE...", help="Names of instances, as in the description.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


_INIT_EXAMPLES = (
    "Examples: stoker init --host 192.168.31.10 --host 192.168.31.65        "
    "stoker init --cards '3 x V100-32GB' --cards '2 x P40' --yes --output fleets/mine"
)
_IMPORT_EXAMPLE = (
    "Example: stoker import memoryx-hybrid.yaml bge-ha.yaml --inventory-address 192.168.31.10 "
    "--inventory-address 192.168.31.65 --output fleets/mine"
)


@app.command(epilog="Example: stoker check-description -i fleets/three-racks/inventory.py")
def check_description(inventory: Inventory = Path("inventory.py"), group_data: GroupData = None) -> None:
    """Validate inventory and group data; contacts no host."""
    try:
        fleet = load_fleet(inventory, group_data_directories(group_data or ()))
    except SpecError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(3) from None
    for host in fleet.hosts:
        # A stack without instances is its gateway.
        names = [name for stack in host.stacks for name in [one.name for one in stack.instances] or stack.containers]
        print(f"{host.name}: {', '.join(names)}")


@app.command(
    epilog="Examples: stoker deploy --check        stoker deploy --yes --limit 192.168.31.10        stoker deploy --only vllm_qwen_gpu2"
)
def deploy(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="INSTANCE", help="Touch only this instance's container, and no gateway. May be repeated."),
    ] = None,
    skip_unreachable: Annotated[
        bool, typer.Option("--skip-unreachable", help="Go on without hosts that cannot be reached; exit status 1.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell what would change: exit status 2 if anything, else 0.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Also -vv and -vvv: facts, commands, output.")
    ] = 0,
) -> None:
    """Bring every host to what is described, and wait until every model answers."""
    from stoker.run.runner import Options
    from stoker.run.runner import deploy as run

    _leave(
        run(
            Options(
                inventory=inventory,
                overlays=group_data_directories(group_data or ()),
                limit=limit or [],
                only=only or [],
                skip_unreachable=skip_unreachable,
                check=check,
                yes=yes,
                verbosity=verbose,
            )
        )
    )


@app.command(epilog="Examples: stoker smoke        stoker smoke --junit smoke.xml --json smoke.json")
def smoke(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Only what concerns this host. May be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="INSTANCE", help="Only what concerns this instance or gateway. May be repeated."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every request as a command to repeat.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit XML.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as JSON.")] = None,
) -> None:
    """Prove by real requests that everything described works."""
    from stoker.smoke.command import smoke as run

    _leave(
        run(
            inventory,
            group_data_directories(group_data or ()),
            hosts=limit or [],
            instances=only or [],
            junit=junit,
            json=json,
            verbose=verbose,
        )
    )


@app.command(
    epilog="Examples: stoker status        stoker status --watch        stoker status --limit 192.168.31.10 --json"
)
def status(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look every 5 s, until Ctrl-C: exit status 130.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the fleet: states, GPU memory, load, gateways, drift. Exit status 1 unless everything is ready."""
    from stoker.status.command import status as run

    _leave(run(inventory, group_data_directories(group_data or ()), limit or [], json, watch))


@app.command(epilog="Examples: stoker wait        stoker wait vllm_qwen_gpu2 --limit 192.168.31.10")
def wait(
    instances: Annotated[
        list[str] | None, typer.Argument(metavar="INSTANCE", help="Names of instances; all without one.")
    ] = None,
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
) -> None:
    """Watch what loads until every instance has given a real answer; starts and stops nothing. Exit status 1 if one does not."""
    from stoker.operate.wait_command import wait as run

    _leave(run(inventory, group_data_directories(group_data or ()), limit or [], instances or []))


@app.command(epilog="Examples: stoker plan        stoker plan --live        stoker plan --json --limit 192.168.31.10")
def plan(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the hosts: their cards and files, and what the engines' logs say.")
    ] = False,
    json: Json = False,
) -> None:
    """Predict what every instance takes of its cards; contacts no host unless --live. Exit status 1 if it does not fit."""
    from stoker.run.plan import plan as run

    _leave(run(inventory, group_data_directories(group_data or ()), limit or [], live, json))


@app.command(epilog="Examples: stoker doctor        stoker doctor --limit 192.168.31.10 --json")
def doctor(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Examine a live fleet; changes nothing. Exit status 1: findings, 2: something could not be checked."""
    from stoker.doctor.command import doctor as run

    _leave(run(inventory, group_data_directories(group_data or ()), limit or [], json))


@app.command(epilog="Examples: stoker adopt --check        stoker adopt --limit 192.168.31.65")
def adopt(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only show old against new: exit status 2 if anything is to be replaced.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Replace an earlier stack that was made by hand, one container at a time, with a way back."""
    from stoker.run.adopt import adopt as run

    _leave(run(inventory, group_data_directories(group_data or ()), limit or [], check, yes))


@app.command(
    epilog="Examples: stoker drain vllm_llama_gpu0_0        stoker drain vllm_llama_gpu0_0 vllm_llama_gpu0_1 --seconds 60"
)
def drain(
    instances: Instances,
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    seconds: Annotated[int, typer.Option(min=1, help="Wait so long for requests to end; exit status 1 then.")] = 600,
    force: Annotated[bool, typer.Option("--force", help="Also when a pool has no other member left.")] = False,
) -> None:
    """Let gateways send these instances nothing new, and wait until nothing runs there. Holds until `stoker undrain`."""
    from stoker.run.drain import drain as run

    overlays = group_data_directories(group_data or ())
    _leave(run(inventory, overlays, instances, force=force, limit_seconds=seconds))


@app.command(
    epilog="Examples: stoker load-time vllm_qwen_gpu2        stoker load-time vllm_qwen_gpu2@192.168.31.10 --yes"
)
def load_time(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Name of a vLLM instance.")],
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Restart an instance without its caches and with them, and tell how long each phase took. Interrupts it twice."""
    from stoker.run.load_time import load_time as run
    from stoker.run.runner import confirmed

    _leave(run(inventory, group_data_directories(group_data or ()), instance, lambda: yes or confirmed()))


@app.command(epilog="Example: stoker undrain vllm_llama_gpu0_0")
def undrain(instances: Instances, inventory: Inventory = Path("inventory.py"), group_data: GroupData = None) -> None:
    """Let gateways use instances again that were drained."""
    from stoker.run.drain import drain as run

    _leave(run(inventory, group_data_directories(group_data or ()), instances, back=True, limit_seconds=10))


@app.command(
    epilog="Examples: stoker logs -f        stoker logs vllm_qwen_gpu2 --since 10m --grep 'POST|Traceback'        stoker logs --errors"
)
def logs(
    instances: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INSTANCE...]", help="Instances and gateways; all when none is named."),
    ] = None,
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as lines come, until Ctrl-C: exit status 130.")
    ] = False,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only lines since then: 10m, 2d, 2026-11-28T03:00:00Z.")
    ] = "",
    tail: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="The last N lines of each; default: 100, all with --since, --grep or --errors."
        ),
    ] = None,
    grep: Annotated[str, typer.Option(metavar="PATTERN", help="Only lines with this regular expression.")] = "",
    errors: Annotated[
        bool, typer.Option("--errors", help="Only errors with their tracebacks, and why an instance has ended.")
    ] = False,
) -> None:
    """Show what containers print, of all hosts in the order of time (UTC)."""
    from stoker.logs.command import Wanted
    from stoker.logs.command import logs as run

    wanted = Wanted(instances or (), limit or (), follow, since, tail, grep, errors)
    _leave(run(inventory, group_data_directories(group_data or ()), wanted))


@app.command(
    name="exec",
    context_settings={"allow_interspersed_args": False},
    epilog="Examples: stoker exec vllm_qwen_gpu2 -- nvidia-smi        stoker exec ollama_bge_0 bash",
)
def execute(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="An instance or a gateway.")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The program and its arguments.")],
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
) -> None:
    """Run a program in a container, with a terminal where this is one. Options go before INSTANCE. Exit status: the program's own."""
    from stoker.operate.inside import execute as run

    words = command[1:] if command[0] == "--" else command
    _leave(run(inventory, group_data_directories(group_data or ()), instance, words))


@app.command(epilog="Examples: stoker top        stoker top --once --json --limit 192.168.31.10")
def top(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    limit: Limit = None,
    once: Annotated[bool, typer.Option("--once", help="One look, not one every 2 s until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show what cards and containers do: use, memory, heat, power, and whose processes they are."""
    from stoker.operate.top_command import top as run

    _leave(run(inventory, group_data_directories(group_data or ()), limit or [], once, json))


@app.command(
    epilog="Examples: stoker restart vllm_llama_gpu0_0        stoker restart vllm_llama_gpu0_0 vllm_llama_gpu0_1 --yes"
)
def restart(
    instances: Instances,
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    seconds: Annotated[
        int, typer.Option(min=1, help="Wait so long for the requests of one to end; not restarted then.")
    ] = 600,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Start instances anew, one at a time: drained first where the pool has another member, in use again when it has answered."""
    from stoker.operate.restart_command import restart as run

    _leave(run(inventory, group_data_directories(group_data or ()), instances, yes=yes, limit_seconds=seconds))


@app.command(epilog=_INIT_EXAMPLES)
def init(
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="A GPU host; asked for when none is given. May be repeated."),
    ] = None,
    cards: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CARDS", help="Its cards, for instance '3 x V100-32GB': once for each host, and none is asked."
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="The hosts' SSH user; default: as ssh_config says.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The SSH key.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The SSH port.")] = None,
    sudo: Annotated[bool, typer.Option("--sudo", help="The user becomes root by sudo.")] = False,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where inventory.py and group_data/ are written.")] = Path(
        "fleets/mine"
    ),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; files that are there are never replaced.")
    ] = False,
) -> None:
    """Propose a fleet that fits the cards of some hosts, with the memory plan, and write it; changes nothing on a host."""
    from stoker.propose.command import Wishes
    from stoker.propose.command import init as run

    login = {"ssh_user": user, "ssh_key": str(key) if key else None, "ssh_port": port, "_sudo": sudo or None}
    wanted = {name: value for name, value in login.items() if value is not None}
    _leave(run(Wishes(host or [], cards or [], wanted, output, yes)))


@app.command("import", epilog=_IMPORT_EXAMPLE)
def import_(
    compose_files: Annotated[list[Path], typer.Argument(metavar="COMPOSE_FILE...", help="Compose files made by hand.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where inventory.py and group_data/ are written.")],
    inventory_address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS", help="The host that runs it: once for all files, or once for each in their order."
        ),
    ] = None,
    cards: Annotated[
        list[str] | None,
        typer.Option(metavar="CARDS", help="What the host has, for instance '3 x V100-32GB'; given as the address is."),
    ] = None,
) -> None:
    """Write the fleet that hand-made Compose files describe, and list every correction; contacts no host."""
    from stoker.importer.command import import_ as run

    _leave(run(compose_files, inventory_address or [], cards or [], output, typer.confirm))


@app.command(
    epilog="Examples: stoker endpoints >app.env        stoker endpoints --containers --format spring        stoker endpoints --check --from-container app@192.168.31.65"
)
def endpoints(
    inventory: Inventory = Path("inventory.py"),
    group_data: GroupData = None,
    form: Annotated[
        Format, typer.Option("--format", help="env: a .env file; sh: exports; spring: a block of application.yml.")
    ] = "env",
    containers: Annotated[
        bool, typer.Option("--containers", help="For containers in the Compose network of the gateway.")
    ] = False,
    gateway: Annotated[
        str, typer.Option(metavar="CONTAINER", help="By this gateway; default: the one with the most models.")
    ] = "",
    with_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write FILE (mode 0600) with the key of $STOKER_KEY in clear.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Call each: from here, or with --containers from an engine's container.")
    ] = False,
    from_container: Annotated[
        str, typer.Option(metavar="NAME@HOST", help="Call each from inside this container on a host of the inventory.")
    ] = "",
) -> None:
    """Write what applications read: addresses, models and keys' places. Exit status 1 if a call of --check fails."""
    from stoker.endpoints.command import Options
    from stoker.endpoints.command import endpoints as run

    options = Options(form, containers, gateway, with_key, check, from_container)
    _leave(run(inventory, group_data_directories(group_data or ()), options))


def _leave(status: int) -> None:
    """End without waiting for what an interrupted connection may still hold."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
