"""One machine: create it bare, start it, wait until it is up, throw it away.

A machine is a container of the lab's Docker that runs systemd. Its disk is the container's own layer and two volumes
for the Docker that will be installed inside; throwing the container away throws the disk away.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
import uuid
from pathlib import Path

from lab.doubles.driver.cards import gpus_json
from lab.machines import access, content, daemon, idle, images, network
from lab.machines.config import CONTAINER_PREFIX, Lab, Machine
from lab.machines.errors import LabError
from lab.machines.paths import STATE
from lab.machines.processes import wait_until

BOOT_SECONDS = 60
SHUTDOWN_SECONDS = 20

ROOT_USER = (0, 0)
File = tuple[str, str | bytes, int, tuple[int, int]]
"""Path, content, mode, and the owner's and the group's number."""

# All that a machine needs and a container normally has not. SYS_RESOURCE is left out because a computer that lacks it
# itself could not give it, and nothing here needs it; for the same reason this is not --privileged.
MACHINE_OPTIONS = (
    "--network=none",
    "--cgroupns=private",
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--tmpfs=/run:exec,mode=755",
    "--tmpfs=/tmp:exec,mode=1777",
    "--volume=/var/lib/docker",
    "--volume=/var/lib/containerd",
    "--stop-signal=SIGRTMIN+3",  # systemd's "halt"
    "--env=container=docker",
)


def create(lab: Lab, machine: Machine) -> None:
    """Throw away what there is under this name and make the machine bare, with a new disk, identity and host key."""
    remove(machine)
    arguments = ["create", "--name", machine.container, "--hostname", machine.name, *MACHINE_OPTIONS]
    if machine.kind == "internet":
        arguments.append(f"--volume={content.folder()}:/srv/internet:ro")
    what = f"making {machine.name}"
    daemon.docker(*arguments, images.name(machine), "/usr/lib/stoker-lab/entry", what=what)
    daemon.docker_input(_identity(lab, machine), "cp", "--archive", "-", f"{machine.container}:/", what=what)


def start(lab: Lab, machine: Machine) -> None:
    """Switch the machine on and wait until systemd is up, and sshd on a GPU host.

    Raises LabError with what the machine said when it does not come up within BOOT_SECONDS.
    """
    daemon.docker("start", machine.container, what=f"starting {machine.name}")
    network.attach(lab.network, machine, pid(machine))
    if machine.kind == "gpu":
        idle.make_idle(pid(machine), _container_id(machine))
    end = time.monotonic() + BOOT_SECONDS
    # Asked again and again: `is-system-running --wait`, started this early, sometimes misses the end of the boot and sits there.
    if not wait_until(lambda: system_state(machine) in ("running", "degraded"), BOOT_SECONDS):
        raise LabError(_not_up(machine, f"systemd says {system_state(machine) or 'nothing'}"))
    if machine.kind == "gpu" and not wait_until(lambda: access.answers(machine), end - time.monotonic()):
        raise LabError(_not_up(machine, "sshd does not let the lab's key in"))
    _mark_complete(machine)


def stop(machine: Machine) -> None:
    """Switch the machine off, as `poweroff` does."""
    daemon.docker("stop", "--time", str(SHUTDOWN_SECONDS), machine.container, what=f"stopping {machine.name}")


def remove(machine: Machine) -> None:
    """Throw the machine and its disk away, if there is one."""
    daemon.docker("rm", "--force", "--volumes", machine.container, check=False)
    _record(machine).unlink(missing_ok=True)


def remove_all(lab: Lab) -> None:
    """Throw away every machine that the lab has made, also one that lab.toml no longer names."""
    records = {path.name for path in (STATE / "machines").glob("*")}
    containers = {machine.container for machine in lab.machines} | {f"{CONTAINER_PREFIX}{name}" for name in records}
    daemon.docker("rm", "--force", "--volumes", *sorted(containers), check=False)


def uptime(machine: Machine) -> str:
    """How long the machine has been up, such as "2m 5s"."""
    started = float(execute(machine, "stat", "--format=%Y", "/proc/1").strip() or time.time())
    minutes, seconds = divmod(max(0, int(time.time() - started)), 60)
    return f"{minutes}m {seconds}s"


def container_state(machine: Machine) -> str:
    """ "running", "exited" and so on, or "absent"; "incomplete" for a machine whose making was interrupted."""
    done = daemon.docker("inspect", "--format", "{{.State.Status}} {{.Id}}", machine.container, check=False)
    if done.returncode != 0:
        return "absent"
    status, _, identity = done.stdout.strip().partition(" ")
    record = _record(machine)
    return status if record.is_file() and record.read_text() == identity else "incomplete"


def image_is_current(machine: Machine) -> bool:
    """Whether the machine was made of the image that the present inputs make."""
    used = daemon.docker("inspect", "--format", "{{.Config.Image}}", machine.container, check=False).stdout.strip()
    return used == images.name(machine)


def pid(machine: Machine) -> int:
    """The machine's first process, as this computer numbers it. Raises LabError when the machine is off."""
    shown = daemon.docker(
        "inspect", "--format", "{{.State.Pid}}", machine.container, what=f"finding {machine.name}"
    ).stdout
    number = int(shown)
    if number == 0:
        raise LabError(_not_up(machine, "its first process has ended"))
    return number


def execute(machine: Machine, *argv: str, timeout: float | None = 60) -> str:
    """Run a program on the machine, as root, and return what it printed; its exit code does not matter."""
    return daemon.docker("exec", machine.container, *argv, check=False, timeout=timeout).stdout


def system_state(machine: Machine) -> str:
    """What systemd says of the whole machine: "starting", "running", "degraded" ...; empty when it does not answer yet."""
    return execute(machine, "systemctl", "is-system-running").strip()


def _not_up(machine: Machine, reason: str) -> str:
    said = daemon.docker("logs", "--tail", "8", machine.container, check=False)
    lines = (said.stdout + said.stderr).strip().splitlines() or ["(nothing)"]
    return f"{machine.name} does not come up: {reason}. The end of its console:\n    " + "\n    ".join(lines)


def _record(machine: Machine) -> Path:
    return STATE / "machines" / machine.name


def _container_id(machine: Machine) -> str:
    return daemon.docker("inspect", "--format", "{{.Id}}", machine.container).stdout.strip()


def _mark_complete(machine: Machine) -> None:
    record = _record(machine)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(_container_id(machine))


def _identity(lab: Lab, machine: Machine) -> bytes:
    """The files that make a machine this one and no other, as a tar stream."""
    resolver = "127.0.0.1" if machine.kind == "internet" else lab.network.gateway
    files: list[File] = [
        ("etc/hostname", f"{machine.name}\n", 0o644, ROOT_USER),
        (
            "etc/hosts",
            f"127.0.0.1\tlocalhost\n127.0.1.1\t{machine.name}\n::1\tlocalhost ip6-localhost\n",
            0o644,
            ROOT_USER,
        ),
        ("etc/resolv.conf", f"nameserver {resolver}\n", 0o644, ROOT_USER),
        ("etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444, ROOT_USER),
    ]
    if machine.kind == "gpu":
        private, public = access.new_host_key(machine)
        login = access.public_key()
        files += [
            ("etc/ssh/ssh_host_ed25519_key", private, 0o600, ROOT_USER),
            ("etc/ssh/ssh_host_ed25519_key.pub", public, 0o644, ROOT_USER),
            ("root/.ssh/authorized_keys", login, 0o600, ROOT_USER),
            ("home/operator/.ssh/authorized_keys", login, 0o600, access.OPERATOR),
            ("etc/apt/sources.list.d/debian.sources", _sources(machine), 0o644, ROOT_USER),
            ("usr/share/keyrings/lab-archive-keyring.gpg", content.keyring().read_bytes(), 0o644, ROOT_USER),
            ("etc/lab-gpu/gpus.json", gpus_json(machine.entry()), 0o644, ROOT_USER),
        ]
    return _tar(files)


def _sources(machine: Machine) -> str:
    """The only package source of a bare host: the internet machine's part of Debian."""
    return (
        "Types: deb\n"
        "URIs: http://packages.internet.test/debian\n"
        f"Suites: {machine.release}\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/lab-archive-keyring.gpg\n"
    )


def _tar(files: list[File]) -> bytes:
    """A tar stream of files; a .ssh directory is private and its owner's."""
    stream = io.BytesIO()
    now = int(time.time())
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, text, mode, owner in files:
            folder = os.path.dirname(path)
            if folder.endswith(".ssh"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode, entry.uid, entry.gid, entry.mtime = tarfile.DIRTYPE, 0o700, *owner, now
                archive.addfile(entry)
            data = text.encode() if isinstance(text, str) else text
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.uid, entry.gid, entry.mtime = len(data), mode, *owner, now
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
