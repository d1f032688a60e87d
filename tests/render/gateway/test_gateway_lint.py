"""The rendered configuration through gixy-ng, a linter of nginx configurations that also knows each version's vulnerabilities."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import gateway_fleet
import pytest
from nginx_binary import PACKAGES

from stoker.render.gateway import render_gateway
from stoker.spec.gateway import Gateway

#: The oldest nginx that the gateway runs on: what an older one lacks must not be in the files.
NGINX_VERSION = ".".join(map(str, PACKAGES["nginx"]))

#: Finds host names that nginx would resolve only once. The gateway's `proxy_pass http://$stoker_upstream` has none: the variable
#: comes from a map whose values are the names of `upstream` blocks, and nginx looks for such a block before it asks a resolver.
NOT_OURS = "missing_resolver"

#: A browser that has seen this header speaks HTTPS with every port of the host, and the engines' speak plain HTTP.
NOT_WANTED = "hsts_header"


#: Everything that a gateway may have.
FULL = gateway_fleet.unified_with(
    allowed_networks=["192.168.31.0/24", "fd00::/8"],
    admin_networks=["192.168.31.5"],
    keys=[{"name": "ops", "sha256": "a" * 64, "admin": True}],
    client_limits={"requests_per_minute": 600, "concurrent": 32},
    tls={"certificate": "/etc/stoker/tls/fullchain.pem", "key": "/etc/stoker/tls/privkey.pem"},
    metrics_port=9436,
)


@pytest.mark.parametrize(
    "gateway", [gateway_fleet.unified(), gateway_fleet.llm_only(), FULL], ids=["unified", "llm only", "full"]
)
def test_the_linter_finds_nothing(gateway: Gateway, tmp_path: Path) -> None:
    text = configuration(gateway)
    assert findings(text, tmp_path) <= {NOT_OURS, NOT_WANTED}
    assert "proxy_pass http://$" in text
    (values,) = re.findall(r"(?s)map \S+ \$stoker_upstream \{(.*?)\}", text)
    named = re.findall(r"(?m)^\s*member_\d+ (\w+);", values)
    assert named
    assert all(f"upstream {name} {{" in text for name in named), "what is excused is only right for names of upstreams"


@pytest.mark.parametrize(
    ("written", "instead", "finding"),
    [
        (r"proxy_pass http://\$stoker_upstream[^;]*;", "proxy_pass http://$http_host;", "ssrf"),
        (r"server_tokens off;", "server_tokens on;", "version_disclosure"),
    ],
)
def test_the_linter_finds_what_would_be_wrong(written: str, instead: str, finding: str, tmp_path: Path) -> None:
    text = configuration(gateway_fleet.unified())
    wrong, times = re.subn(written, instead, text)
    assert times
    assert finding in findings(wrong, tmp_path)


def configuration(gateway: Gateway) -> str:
    return render_gateway(gateway, gateway_fleet.default_backends(gateway))[gateway.config_file]


def findings(text: str, directory: Path) -> set[str]:
    """The names of the checks that found something."""
    file = directory / "nginx.conf"
    file.write_text(text)
    command = [
        str(Path(sys.executable).with_name("gixy")),
        "--format",
        "json",
        "--nginx-version",
        NGINX_VERSION,
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return {finding["plugin"] for finding in json.loads(done.stdout)}
