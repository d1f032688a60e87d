"""A gateway alone in its stack, as a keyed proxy to a service elsewhere: brought, asked, given another key, and taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.commands import wait_for
from support.machine import GPU65, INTERNET
from support.project import Project, changed

_PORT = 9100
_KEY, _NEXT = "sk-proj-first-of_the-lab", "sk-proj-second-of_the-lab"
_FILE = "/etc/stoker/services/proxy_nginx/embed.conf"
_LIMIT = ("--limit", GPU65.address)

#: The service: one model, one key at a time, busy at every first request; says what it has seen at GET /.
_SERVICE = """
import http.server, json
seen = []

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.append([self.path, body["model"], self.headers["Authorization"]])
        if len(seen) == 1:
            return self.answer(429, {"error": {"message": "busy"}})
        data = [{"index": at, "embedding": [0.5, at + 1.0, 0.25]} for at, _ in enumerate(body["input"])]
        self.answer(200, {"object": "list", "model": "theirs-2", "data": data})
    def do_GET(self):
        self.answer(200, seen)
    def answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

http.server.ThreadingHTTPServer(("", 9100), Handler).serve_forever()
"""

_STACK = f"""
stacks = [*stacks, {{
    "project": "proxy",
    "compose_file": "proxy.yaml",
    "gateway": {{
        "container": "proxy_nginx",
        "port": 11500,
        "config_file": "nginx.conf",
        "allowed_networks": ["192.168.31.0/24"],
        "pools": [{{
            "name": "embed", "model": "text-embedding", "kind": "embeddings", "default": True,
            "external": {{"url": "http://packages.internet.test:{_PORT}/v1", "key": "LAB_SERVICE_KEY", "model": "theirs", "dimensions": 3}},
        }}],
    }},
}}]
"""


@pytest.fixture
def service(internet: object) -> Iterator[None]:
    INTERNET.sh(
        f"cat >/run/lab-service.py <<'END'\n{_SERVICE}\nEND\nsystemctl stop lab-service 2>/dev/null\nsystemd-run --quiet --collect --unit lab-service python3 /run/lab-service.py"
    )
    wait_for("the service answers", lambda: INTERNET.holds(f"bash -c ': </dev/tcp/127.0.0.1/{_PORT}'"), seconds=10)
    yield
    INTERNET.sh("systemctl stop lab-service; rm -f /run/lab-service.py")


#: The machine that stands for the internet has no curl.
_GET = f'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:{_PORT}/", timeout=5).read().decode())'


def seen() -> list[list[str]]:
    found: list[list[str]] = json.loads(INTERNET.sh(f"python3 -c '{_GET}'"))
    return found


def test_a_keyed_proxy_to_a_service_elsewhere(project: Project, service: None) -> None:
    project.append("group_data/embedding.py", _STACK)
    refused = project.deploy(*_LIMIT)
    assert refused.code != 0
    assert "the environment of this machine has no LAB_SERVICE_KEY" in refused.err, str(refused)
    assert not GPU65.holds("test -e /opt/stoker/proxy")

    deploy = project.deploy(*_LIMIT, LAB_SERVICE_KEY=_KEY)
    assert deploy.code == 0, str(deploy)
    assert _KEY not in deploy.out + deploy.err
    assert GPU65.sh(f"stat -c '%a %U' {_FILE} && stat -c %a /etc/stoker").split() == ["600", "root", "700"]
    assert not GPU65.holds(f"grep -rqF {_KEY} /opt/stoker /var/lib/stoker /run/stoker-jobs /var/log /data")
    again = project.check(*_LIMIT)
    assert again.code == 0, str(again)

    body = json.dumps({"model": "text-embedding", "input": ["hello"]})
    url = f"http://{GPU65.address}:11500/v1/embeddings"
    ask = ("curl", "-qsS", "-H", "Content-Type: application/json", "-H", "Authorization: Bearer mine", "-d", body, url)
    answer = project.lab_run(*ask)
    assert json.loads(answer.out)["data"][0]["embedding"] == [0.5, 1.0, 0.25], str(answer)
    assert seen() == [["/v1/embeddings", "theirs", f"Bearer {_KEY}"]] * 2, "busy at first, and asked again"

    before = GPU65.containers()["proxy_nginx"]
    renewed = project.deploy(*_LIMIT, LAB_SERVICE_KEY=_NEXT)
    assert renewed.code == 0, str(renewed)
    assert {name for name, _ in changed(renewed)} == {"Keys of services", "Gateway configuration"}
    assert GPU65.containers()["proxy_nginx"] == before
    smoke = project.stoker("smoke", "--only", "proxy_nginx")
    assert smoke.code == 0, str(smoke)
    assert seen()[-1][2] == f"Bearer {_NEXT}"
    status = project.stoker("status")
    assert status.code == 0, str(status)
    assert "text-embedding" in status.out
    endpoints = project.stoker("endpoints", "--gateway", "proxy_nginx")
    assert f"http://{GPU65.address}:11500/v1" in endpoints.out, str(endpoints)
