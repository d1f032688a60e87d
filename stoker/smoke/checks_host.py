"""The checks of a host itself: Docker, containers, GPUs and their memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import docker.errors

from stoker.engine.registry import engine_of
from stoker.facts import identity
from stoker.smoke import containers
from stoker.smoke.check import Check, CheckFailed, CheckSkipped, Trace
from stoker.smoke.ssh import UNREACHED, AccessError, Shell
from stoker.spec.fleet import Host
from stoker.spec.gateway import Gateway
from stoker.spec.gpu_name import GpuName, label
from stoker.spec.instance import Instance
from stoker.spec.web_ui import WebUi

ACCESS = "docker"


@dataclass
class HostWitness:
    """What the host itself says: before the requests of the other checks, and now."""

    host: Host
    shell: Shell | None
    before: dict[str, containers.Inspection | None] = field(default_factory=dict)
    reached: bool = False
    _cards: dict[GpuName, containers.Card] | None = None
    # Looked up when it is made: pyinfra may replace threading.Lock (gevent) after this module was imported.
    _lock: threading.Lock = field(default_factory=lambda: threading.Lock())

    def reach(self, names: Sequence[str]) -> str:
        """Connect and look at the containers for the first time. Raises CheckFailed."""
        shell = self.usable()
        try:
            version = shell.run("docker version --format '{{.Server.Version}}'", sudo=True).strip()
            self.before = {name: self.inspect(name) for name in names}
        except AccessError as error:
            raise CheckFailed("Docker answers", error.reason, _remedy(error)) from error
        self.reached = True
        return f"Docker {version}"

    def usable(self) -> Shell:
        if self.shell is None:
            raise CheckSkipped(UNREACHED)
        return self.shell

    def inspect(self, name: str) -> containers.Inspection | None:
        """A container as Docker describes it now; None when there is none. Raises AccessError."""
        try:
            found: containers.Inspection = self.usable().docker().inspect_container(name)
        except docker.errors.NotFound:
            return None
        except (docker.errors.DockerException, OSError) as error:
            raise AccessError(f"docker inspect {name}: {error}", "see `systemctl status docker` there") from error
        return found

    def log(self, container: str, seconds: float) -> str:
        """The container's standard output of the last seconds, by the host's own clock. Raises AccessError."""
        since = int(self.usable().run("date +%s")) - int(seconds) - 2
        try:
            text = self.usable().docker().logs(container, stdout=True, stderr=False, since=since)
        except (docker.errors.DockerException, OSError) as error:
            raise AccessError(f"docker logs {container}: {error}", "see `systemctl status docker` there") from error
        return bytes(text).decode("utf-8", "replace")

    def cards(self) -> dict[GpuName, containers.Card]:
        """The host's cards by each of their names, asked once. Raises AccessError, CheckFailed."""
        with self._lock:
            if self._cards is None:
                there = containers.cards(self.usable().run(containers.CARDS_COMMAND))
                record = self.usable().run(f"cat {identity.RECORD} 2>/dev/null || true")
                self._cards = identity.named(there, identity.parse_record(record))
            return self._cards


def access_check(witness: HostWitness, names: Sequence[str]) -> Check:
    """The check that all others of this host rest on."""

    def run(trace: Trace) -> str:
        trace.commands.append(witness.usable().line("docker version", sudo=True))
        return witness.reach(names)

    return Check(ACCESS, witness.host.name, witness.host.name, run)


def instance_checks(witness: HostWitness, instance: Instance) -> Iterator[Check]:
    host = witness.host
    yield _container(witness, instance.name, host.image_of(instance))

    def gpu(trace: Trace) -> str:
        shell = witness.usable()
        command = f"docker exec {instance.name} {containers.VISIBLE_COMMAND}"
        trace.commands += [shell.line(containers.CARDS_COMMAND), shell.line(command, sudo=True)]
        inspection = witness.inspect(instance.name)
        if inspection is None or (inspection.get("State") or {}).get("Status") != "running":
            raise CheckSkipped("the container does not run")
        return containers.gpus(instance.gpus, witness.cards(), inspection, shell.run(command, sudo=True))

    if instance.gpus:
        yield Check("GPU", host.name, instance.name, _after_access(witness, gpu), afterwards=True)


def gateway_check(witness: HostWitness, gateway: Gateway) -> Check:
    return _container(witness, gateway.container, witness.host.gateway_image)


def web_ui_check(witness: HostWitness, web_ui: WebUi) -> Check:
    return _container(witness, web_ui.container, witness.host.web_ui_image)


def memory_checks(witness: HostWitness, instances: Sequence[Instance]) -> Iterator[Check]:
    """One for each card that one of the instances is described on."""
    for name in sorted({gpu for instance in instances for gpu in instance.gpus}, key=str):
        yield _memory(witness, name)


def _memory(witness: HostWitness, name: GpuName) -> Check:
    there = [instance for _, instance in witness.host.instances() if name in instance.gpus]
    shares = {instance.name: _share(instance) for instance in there if witness.host.profile_of(instance).uses_cards}

    def run(trace: Trace) -> str:
        if not shares:
            raise CheckSkipped(witness.host.profile_of(there[0]).not_applicable)
        trace.commands.append(witness.usable().line(containers.CARDS_COMMAND))
        card = witness.cards().get(name)
        if card is None:
            raise CheckFailed(
                label(name),
                f"nvidia-smi shows {len({card.uuid for card in witness.cards().values()})} other GPUs",
                "see dmesg for a card that fell off the bus",
            )
        return containers.memory(card, shares)

    return Check("memory", witness.host.name, label(name), _after_access(witness, run), afterwards=True)


def _container(witness: HostWitness, name: str, image: str) -> Check:
    def run(trace: Trace) -> str:
        trace.commands.append(witness.usable().line(f"docker inspect {name}", sudo=True))
        return containers.running(name, witness.before.get(name), witness.inspect(name), image)

    return Check("container", witness.host.name, name, _after_access(witness, run), afterwards=True)


def _after_access(witness: HostWitness, run: Callable[[Trace], str]) -> Callable[[Trace], str]:
    """What cannot be asked is said once, by the access check; a later loss of the connection is a failure."""

    def guarded(trace: Trace) -> str:
        if not witness.reached:
            raise CheckSkipped(f"see the check {ACCESS!r} of {witness.host.name}")
        try:
            return run(trace)
        except AccessError as error:
            raise CheckFailed("an answer of the host", error.reason, error.remedy) from error

    return guarded


def _remedy(error: AccessError) -> str:
    reason = error.reason.lower()
    if "permission denied" in reason and "docker" in reason:
        return "the user may not use Docker there: set _sudo = True for the host in the inventory"
    if "not found" in reason and "docker" in reason:
        return "Docker is not installed there: deploy first"
    if "cannot connect to the docker daemon" in reason:
        return "Docker does not run there: see `systemctl status docker`, or deploy again"
    return error.remedy


def _share(instance: Instance) -> float | None:
    """Share of a card that an instance takes; with a fixed KV cache, or without one (an embedding model's), it is not known."""
    engine = engine_of(instance.engine)
    if "kv-cache-memory-bytes" in instance.arguments or engine.kind(instance.arguments) == "embeddings":
        return None
    return engine.share(instance.arguments) or None
