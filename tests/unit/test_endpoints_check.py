"""`stoker endpoints --check`: each model called from here, and from inside a container's network by the host's own curl."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from smoke_fleet import rack
from smoke_stand_in import as_json
from support.namespaces import Namespace, namespace
from support.stubs import Stubs

from stoker.endpoints.check import checks
from stoker.endpoints.endpoint import find
from stoker.endpoints.inside import Container
from stoker.smoke.check import CheckFailed
from stoker.smoke.curl import Key, Request
from stoker.smoke.plan import Plan
from stoker.smoke.report import Report
from stoker.smoke.run import run
from stoker.smoke.ssh import AccessError

#: Answers every request with its headers and body as JSON.
_ECHO = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"path": self.path, "key": self.headers["Authorization"], "body": body}).encode())
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 8000), Echo)
print("ready", flush=True)
server.serve_forever()
"""


@dataclass
class LocalShell:
    """This machine as the host; ``stubs`` has its docker."""

    stubs: Stubs
    unreachable: str = ""

    def outcome(self, command: str, seconds: float, stdin: str = "", sudo: bool = False) -> tuple[int, str, str]:
        assert sudo, "another container's network is for root"
        if self.unreachable:
            raise AccessError(self.unreachable, "repair the network")
        path = f"{self.stubs.folder}:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            ["sh", "-c", command], input=stdin, capture_output=True, text=True, timeout=seconds, env={"PATH": path}
        )
        return done.returncode, done.stdout, done.stderr

    def line(self, command: str, sudo: bool = False) -> str:
        return command


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(Stubs(tmp_path / "programs"))


def container(shell: LocalShell) -> Container:
    return Container("app", "box", shell)  # type: ignore[arg-type]


def running(shell: LocalShell, folder: Path, machine: Namespace) -> None:
    """A container app with the name `nginx` for its own loopback."""
    (folder / "hosts").write_text("127.0.0.1 nginx\n")
    (folder / "resolv.conf").write_text("nameserver 127.0.0.11\n")
    shell.stubs.prints("docker", f"{machine.pid} :{folder}/resolv.conf :{folder}/hosts\n")


def test_the_request_is_made_in_the_containers_network_with_its_names(shell: LocalShell, tmp_path: Path) -> None:
    names_here = Path("/etc/hosts").read_text(), Path("/etc/resolv.conf").read_text()
    with ExitStack() as stack:
        machine = namespace(stack)
        server = subprocess.Popen(machine.argv(sys.executable, "-c", _ECHO), stdout=subprocess.PIPE, text=True)
        stack.callback(lambda: (server.kill(), server.communicate()))
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        running(shell, tmp_path, machine)
        request = Request("http://nginx:8000/v1/x", {"text": "it's $HOME"}, Key("STOKER_KEY", "s3cret"), 5)
        answer = container(shell).run(request)
        silent = container(shell).run(Request("http://nginx:9/", seconds=5))
        line = container(shell).printed(request)
        _, pasted, _ = shell.outcome(f"STOKER_KEY=pasted; {line}", 10, sudo=True)
        unknown = container(shell).run(Request("http://bge_nginx.invalid:9/", seconds=5))
    assert json.loads(answer.body) == {"path": "/v1/x", "key": "Bearer s3cret", "body": '{"text": "it\'s $HOME"}'}
    assert (silent.status, "connect" in silent.error) == (0, True), silent
    assert "Could not resolve host" in unknown.error
    assert names_here == (Path("/etc/hosts").read_text(), Path("/etc/resolv.conf").read_text())
    assert "s3cret" not in line
    assert json.loads(pasted.split("\n")[-3])["key"] == "Bearer pasted"


@pytest.mark.parametrize(
    ("stub", "said"),
    [
        ("echo 'Error response from daemon: No such container: app' >&2; exit 1", "No such container: app"),
        ("echo '0 : :'", "it does not run"),
        ("echo '1073741824 : :'", "No such file"),  # its process ended in between, or the user is not root
    ],
)
def test_what_cannot_be_entered_is_told(shell: LocalShell, stub: str, said: str) -> None:
    shell.stubs.add("docker", stub)
    with pytest.raises(CheckFailed) as failure:
        container(shell).run(Request("http://nginx/", seconds=5))
    assert said in failure.value.found


def test_a_host_that_cannot_be_reached(shell: LocalShell) -> None:
    shell.unreachable = "no SSH connection: timed out"
    with pytest.raises(CheckFailed) as failure:
        container(shell).run(Request("http://nginx/", seconds=5))
    assert failure.value.found == "no SSH connection: timed out"


def call(found: object, inside: Container | None = None) -> Report:
    return run(Plan(tuple(checks(found, inside, 5)), {}))  # type: ignore[arg-type]


def test_every_endpoint_is_called_from_here() -> None:
    with rack() as one:
        report = call(find(one.fleet))
        asked = {(path, (body or {}).get("model")) for path, _, body in one.engines["nginx_0"].requests}
        one.engines["nginx_0"].embed = lambda text: [float("nan")] * 8
        broken = call(find(one.fleet))
    assert report.passed, report
    assert [result.check.subject for result in report.results] == ["gateway", "llama", "embed"]
    assert asked == {("/health", None), ("/v1/chat/completions", "llama"), ("/v1/embeddings", "bge-m3")}
    assert [result.check.subject for result in broken.of("fail")] == ["embed"]


def test_containers_that_the_gateway_does_not_admit(shell: LocalShell, tmp_path: Path) -> None:
    """Docker's address of the container is no mistake of Docker's there."""
    refused = as_json({"error": {"code": "network_not_allowed"}}, 403)
    with ExitStack() as stack:
        one = stack.enter_context(rack())
        machine = subprocess.Popen(["sleep", "600"])  # in this machine's network, where the stand-ins are
        stack.callback(lambda: (machine.kill(), machine.wait()))
        running(shell, tmp_path, Namespace(machine.pid))
        one.engines["nginx_0"].replies["/v1/chat/completions"] = refused
        report = call(find(one.fleet, containers=True), container(shell))
    (failure,) = report.of("fail")
    assert (failure.check.host, failure.check.subject) == ("app@box", "llama")
    assert "docker network inspect p_default" in failure.remedy
    assert "allowed_networks" in failure.remedy
