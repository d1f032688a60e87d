"""Closed engine ports: who reaches them from where, on hosts with a real Docker and over a real boot."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from support.commands import ROOT, run, wait_for
from support.machine import GPU10, GPU65, INTERNET, Machine
from support.project import CHECKOUT, Project, Served, changed, copy_to

ENGINES = {GPU10: (11401, 11402, 11403, 11404, 11405), GPU65: (11434, 11435)}
GATEWAYS = {GPU10: 11434, GPU65: 11436}
_RULES = "/etc/stoker/firewall.nft"
#: curl's own exit statuses.
_OPEN, _REFUSED = "0", "7"
_CURL = "curl -q -s -o /dev/null -m 5 --noproxy '*' -w '%{exitcode}\\n' http://"


@pytest.fixture(scope="module")
def closed(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Both hosts' engine ports are closed, and stay so from test to test."""
    project = copy_to(tmp_path_factory.mktemp("closed"))
    project.append("group_data/all.py", 'firewall = "engines"')
    deploy = project.deploy()
    assert deploy.code == 0, str(deploy)
    assert {("Engine ports", host.address) for host in ENGINES} <= changed(deploy)
    yield project
    opened = CHECKOUT.deploy()
    assert opened.code == 0, str(opened)


#: The machine that stands for the internet has no curl: the same question, with curl's exit statuses as the answer.
_PYTHON = """
import http.client, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]").replace("%25", "%"), int(port), timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse()
        print(0, flush=True)
    except ConnectionRefusedError:
        print(7, flush=True)
    except TimeoutError:
        print(28, flush=True)
    except OSError:
        print(56, flush=True)
"""


def _asking(machine: Machine, *addresses: str) -> str:
    if machine is INTERNET:
        return shlex.join(["python3", "-c", _PYTHON, *addresses])
    return "; ".join(f"{_CURL}{address}/ || true" for address in addresses)


def asked(machine: Machine, *addresses: str) -> dict[str, str]:
    """curl's exit status at each address, asked from a machine."""
    script = _asking(machine, *addresses)
    return dict(zip(addresses, machine.sh(script, seconds=60).split(), strict=True))


def every(host: Machine, ports: tuple[int, ...]) -> list[str]:
    return [f"{host.address}:{port}" for port in ports]


def judge(host: Machine) -> None:
    """Raises AssertionError unless exactly this host and the gateways reach its engines, and everyone its gateway."""
    engines = every(host, ENGINES[host])
    gateway = f"{host.address}:{GATEWAYS[host]}"
    strangers = [INTERNET] if host is GPU10 else [INTERNET, GPU10]  # no gateway on gpu10 uses the engines of gpu65
    for stranger in strangers:
        assert asked(stranger, *engines) == dict.fromkeys(engines, _REFUSED), stranger
        assert asked(stranger, gateway) == {gateway: _OPEN}, stranger
    for friend in (host, GPU65):
        assert asked(friend, *engines) == dict.fromkeys(engines, _OPEN), friend


def test_the_ports_are_closed_to_all_but_the_gateways(closed: Project) -> None:
    for host in ENGINES:
        judge(host)
    # The operator's machine is nobody special; the engines' own checks are made by their hosts.
    operator = closed.lab_run("curl", "-q", "-s", "-m", "5", f"http://{GPU10.address}:11401/health")
    assert operator.code == int(_REFUSED)
    smoke = closed.stoker("smoke", seconds=90)
    assert smoke.code == 0, str(smoke)
    # A route to the container itself, beside the published port.
    container = GPU10.sh(
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' vllm_llama_gpu0_0"
    )
    try:
        INTERNET.sh(f"ip route add {container.strip()}/32 via {GPU10.address}")
        assert asked(INTERNET, f"{container.strip()}:8000") != {f"{container.strip()}:8000": _OPEN}
    finally:
        INTERNET.sh(f"ip route del {container.strip()}/32")
    assert closed.check().code == 0


@pytest.mark.parametrize(
    "script",
    [
        "systemctl restart docker.service && docker restart -t 5 ollama_bge_1",
        # These flush every table of the kernel, Docker's too.
        "systemctl restart nftables.service && systemctl restart docker.service",
        "systemctl start nftables.service && systemctl reload nftables.service && systemctl restart docker.service",
    ],
    ids=["Docker", "nftables", "nftables reloaded"],
)
def test_they_stay_closed_when_a_service_restarts(script: str, closed: Project) -> None:
    GPU65.sh(script, seconds=60)
    wait_for("the engines and the gateway answer on the host", lambda: answers(GPU65))
    judge(GPU65)
    # Stopping it flushes every table once more, and Docker makes its own anew only when it starts.
    GPU65.sh("systemctl disable --now nftables.service 2>/dev/null; systemctl restart docker.service", seconds=60)
    wait_for("the engines and the gateway answer on the host", lambda: answers(GPU65))
    again = closed.deploy()  # the rules are made anew, and the containers' new starts proven
    assert again.code == 0, str(again)


def answers(host: Machine) -> bool:
    ports = (*ENGINES[host], GATEWAYS[host])
    return set(asked(host, *every(host, ports)).values()) == {_OPEN}


def test_rules_that_somebody_flushed_are_seen_and_mended(closed: Project) -> None:
    GPU10.sh("nft flush table inet stoker")
    GPU65.sh(f"systemctl disable stoker-firewall.service; echo '# edited' >>{_RULES}")
    assert asked(INTERNET, "192.168.31.10:11401") == {"192.168.31.10:11401": _OPEN}
    doctor = closed.stoker("doctor", seconds=60)
    assert "Engine ports: close ports 11401" in " ".join(doctor.out.split()), str(doctor)
    check, predicted = closed.predicted()
    assert check.code == 2
    assert predicted == {("Engine ports", host.address) for host in ENGINES}
    deploy = closed.deploy()
    assert deploy.code == 0, str(deploy)
    assert changed(deploy) == predicted
    for host in ENGINES:
        judge(host)
    assert closed.check().code == 0


@pytest.mark.fault
def test_they_are_closed_from_the_first_moment_of_a_boot(closed: Project) -> None:
    """Asked from the third machine all the time: no engine answers it between boot and readiness."""
    watch = (
        "rm -f /run/seen; while test ! -e /run/enough; do "
        + _asking(INTERNET, "192.168.31.65:11434")
        + " >>/run/seen; sleep 0.05; done"
    )
    INTERNET.sh(f"rm -f /run/enough; setsid sh -c {shlex.quote(watch)} </dev/null >/dev/null 2>&1 &")
    try:
        done = run(str(ROOT / "lab/reboot"), GPU65.name, seconds=90)
        assert done.code == 0, str(done)
        wait_for("the engines and the gateway answer on the host", lambda: answers(GPU65), 90)
        judge(GPU65)
    finally:
        INTERNET.sh("touch /run/enough")
    seen = set(INTERNET.sh("sort -u /run/seen").split())
    assert _REFUSED in seen
    assert _OPEN not in seen
    order = GPU65.sh("systemctl show -p ActiveEnterTimestampMonotonic --value stoker-firewall.service docker.service")
    first, second = (int(word) for word in order.split())
    assert 0 < first < second
    again = closed.deploy()
    assert again.code == 0, str(again)
    assert "Engine ports" not in {operation for operation, _ in changed(again)}


def test_turned_off_nothing_is_left(closed: Project) -> None:
    deploy = CHECKOUT.deploy()
    assert deploy.code == 0, str(deploy)
    assert changed(deploy) == {("Engine ports", host.address) for host in ENGINES}
    for host in ENGINES:
        assert not host.holds("nft list table inet stoker 2>/dev/null")
        assert not host.holds(f"ls {_RULES} /etc/systemd/system/stoker-firewall.service 2>/dev/null | grep .")
        engines = every(host, ENGINES[host])
        assert asked(INTERNET, *engines) == dict.fromkeys(engines, _OPEN)
