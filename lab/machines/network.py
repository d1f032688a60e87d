"""The lab's network: a namespace with one bridge, no way out of it, and a cable to every machine."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path

from lab.machines.config import Machine, Network
from lab.machines.shell import run

NO_FORWARDING = "echo 0 >/proc/sys/net/ipv4/ip_forward"
"""A new namespace inherits the computer's setting, and where that runs Docker it is 1."""


def exists(network: Network) -> bool:
    """Whether the namespace is there and is more than the empty file that a restart of the computer leaves behind."""
    return _is_mounted(_name_file(network))


def create(network: Network) -> None:
    """Make the namespace and the bridge with the controller's address, unless they are there."""
    if not exists(network):
        _name_file(network).unlink(missing_ok=True)
        run(["ip", "netns", "add", network.namespace], what="making the lab's network namespace")
    if run(["ip", "-n", network.namespace, "link", "show", network.bridge], check=False).returncode == 0:
        return
    _batch(
        network.namespace,
        f"link set lo up\n"
        f"link add {network.bridge} type bridge forward_delay 0\n"
        f"address add {network.controller}/{network.prefix} dev {network.bridge}\n"
        f"link set {network.bridge} up\n",
    )
    run(["ip", "netns", "exec", network.namespace, "sh", "-c", NO_FORWARDING])


def remove(network: Network) -> None:
    """Take the namespace away; the bridge and the cables go with it."""
    name_file = _name_file(network)
    if exists(network):
        run(["ip", "netns", "delete", network.namespace], what="removing the lab's network namespace")
    name_file.unlink(missing_ok=True)
    shutil.rmtree(files(network), ignore_errors=True)


def attach(network: Network, machine: Machine, pid: int) -> None:
    """Plug the cable: eth0 with its address and default route in the machine whose first process is `pid`."""
    run(["ip", "-n", network.namespace, "link", "delete", machine.cable], check=False)
    _batch(
        network.namespace,
        f"link add {machine.cable} type veth peer name eth0 address {hardware_address(machine)} netns {pid}\n"
        f"link set {machine.cable} master {network.bridge} up\n",
    )
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    setup = (
        f"link set lo up\naddress add {machine.address}/{network.prefix} broadcast + dev eth0\nlink set eth0 up\n"
        + ("" if machine.kind == "internet" else f"route add default via {network.gateway}\n")
    )
    what = f"setting up the network of {machine.name}"
    run([*inside, "ip", "-batch", "-"], stdin=setup.encode(), what=what)
    run([*inside, "sh", "-c", NO_FORWARDING], what=what)


def hardware_address(machine: Machine) -> str:
    """The machine's Ethernet address, made of its IPv4 address.

    It stays the same when the machine reboots or is rebuilt: with another one its neighbours would send to the old one
    until their ARP entries expire, half a minute later.
    """
    octets = ipaddress.IPv4Address(machine.address).packed
    return ":".join(f"{octet:02x}" for octet in (0x02, 0x00, *octets))  # 02: locally administered


def files(network: Network) -> Path:
    """Files here are laid over /etc for every command that runs in the namespace (see ip-netns(8))."""
    return Path("/etc/netns") / network.namespace


def _batch(namespace: str, commands: str) -> None:
    run(["ip", "-n", namespace, "-batch", "-"], stdin=commands.encode(), what="setting up the lab's network")


def _name_file(network: Network) -> Path:
    return Path("/run/netns") / network.namespace


def _is_mounted(path: Path) -> bool:
    return any(line.split()[1] == str(path) for line in Path("/proc/self/mounts").read_text().splitlines())
