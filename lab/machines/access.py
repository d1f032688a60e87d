"""What lab/run's commands need to reach the hosts: the ssh key, known_hosts, ssh configuration, the resolver.

Two ways lead to it, because programs look in two places. paramiko (and pyinfra) read $HOME/.ssh, and lab/run sets HOME.
OpenSSH looks into the account's home directory whatever HOME says; for it an ssh_config is laid over /etc/ssh in the lab's
namespace, and the person's own ~/.ssh stays in front of it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from lab.machines import network
from lab.machines.config import Lab, Machine
from lab.machines.paths import HOME, LAB, STATE
from lab.machines.shell import run

OPERATOR = (1000, 37)
"""The account `operator` of every GPU host: its number from image/customize.sh, its group's from Debian's base-passwd."""

SSH = HOME / ".ssh"
KEY = SSH / "id_ed25519"
KNOWN_HOSTS = SSH / "known_hosts"
HOST_KEYS = STATE / "hostkeys"


def prepare(lab: Lab, absent: Collection[Machine] = ()) -> None:
    """Write the key (once), the ssh configuration and the files that lab/run's commands see under /etc.

    To ssh the hosts in `absent` are named as not started; other programs find no machine at their address.
    """
    SSH.mkdir(mode=0o700, parents=True, exist_ok=True)
    HOST_KEYS.mkdir(parents=True, exist_ok=True)
    if not KEY.exists():
        run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stoker lab", "-f", str(KEY)],
            what="making the lab's ssh key",
        )
    configuration = ssh_config(lab)
    (SSH / "config").write_text(configuration)
    folder = network.files(lab.network)
    (folder / "ssh").mkdir(parents=True, exist_ok=True)
    (folder / "ssh/ssh_config").write_text(ssh_config(lab, absent))
    (folder / "resolv.conf").write_text(f"nameserver {lab.network.gateway}\n")
    # A resolver service of the computer is asked through a socket and would answer from outside the lab.
    switch = Path("/etc/nsswitch.conf")
    if switch.exists():
        (folder / "nsswitch.conf").write_text(only_dns(switch.read_text()))


def ssh_config(lab: Lab, absent: Collection[Machine] = ()) -> str:
    """The ssh configuration: names for the addresses, the lab's key and known_hosts, nothing of the person's."""
    entries = [
        f"Host {host.name} {host.address}\n"
        f"    HostName {host.address}\n"
        f"    IdentityFile {KEY}\n"
        f"    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {KNOWN_HOSTS}\n"
        + (f"    ProxyCommand sh -c 'echo \"{host.how_to_start}\" >&2; exit 1'\n" if host in absent else "")
        for host in lab.gpu_machines
    ]
    return "# Written by lab/up.\n" + "\n".join(entries)


def only_dns(nsswitch: str) -> str:
    """nsswitch.conf with host names from /etc/hosts and DNS only."""
    lines = (line for line in nsswitch.splitlines() if not line.startswith("hosts:"))
    return "\n".join([*lines, "hosts: files dns"]) + "\n"


def new_host_key(machine: Machine) -> tuple[bytes, bytes]:
    """Make a host key for a new machine; returns the private and the public part, and remembers the public one."""
    with tempfile.TemporaryDirectory(prefix="stoker-lab-") as folder:
        file = Path(folder) / "key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{machine.name}", "-f", str(file)])
        private, public = file.read_bytes(), file.with_suffix(".pub").read_bytes()
    (HOST_KEYS / f"{machine.name}.pub").write_bytes(public)
    return private, public


def public_key() -> bytes:
    """The key that opens root and operator on every GPU host."""
    return KEY.with_suffix(".pub").read_bytes()


def trust(machines: Iterable[Machine]) -> None:
    """Put the present keys of these hosts into known_hosts; what it has of others stays.

    lab/rebuild does not call this: a rebuilt host has a new key, and whoever connects next must notice.
    """
    keys = {host.address: (HOST_KEYS / f"{host.name}.pub").read_text().split()[:2] for host in machines}
    known = KNOWN_HOSTS.read_text().splitlines() if KNOWN_HOSTS.exists() else []
    lines = [line for line in known if line.partition(" ")[0] not in keys]
    lines += [" ".join((address, *key)) for address, key in keys.items()]
    KNOWN_HOSTS.write_text("".join(f"{line}\n" for line in lines))


def answers(machine: Machine) -> bool:
    """Whether the machine's sshd lets root in with the lab's key, and shows the key it was made with."""
    kind, key = (HOST_KEYS / f"{machine.name}.pub").read_text().split()[:2]
    with tempfile.NamedTemporaryFile("w", prefix="stoker-lab-") as known:
        known.write(f"{machine.address} {kind} {key}\n")
        known.flush()
        options = ["BatchMode=yes", "ConnectTimeout=2", f"UserKnownHostsFile={known.name}"]
        argv = [str(LAB / "run"), "ssh", *[f"-o{option}" for option in options], f"root@{machine.address}", "true"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def forget(lab: Lab) -> None:
    """Remove the keys and the files under /etc/netns."""
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.rmtree(HOST_KEYS, ignore_errors=True)
    shutil.rmtree(network.files(lab.network), ignore_errors=True)
