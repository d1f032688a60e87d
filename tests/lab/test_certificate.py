"""A gateway's certificate by ACME, from a real authority's test server on the internet machine, by the distribution's own certbot."""

from __future__ import annotations

from support.machine import GPU65, INTERNET
from support.project import Project

DIRECTORY = "https://acme.internet.test:14000/dir"
DOMAIN = "llm.internet.test"
URL = f"https://{DOMAIN}:11436"
#: Leads to the internet machine, which has no proof to show.
ELSEWHERE = "acme.internet.test"
_BEFORE = '"config_file": "nginx-unified.conf",\n'
#: The authority's root, which it makes anew at each start and shows to its own machine alone.
_ROOT = """
import ssl, urllib.request
context = ssl._create_unverified_context()
print(urllib.request.urlopen("https://127.0.0.1:15000/roots/0", context=context).read().decode())
"""
_TRUST = "cat >/usr/local/share/ca-certificates/lab-acme.crt <<'END'\n{}\nEND\nupdate-ca-certificates 2>&1"


def tls(domain: str) -> str:
    return f'{_BEFORE}            "tls": {{"domain": "{domain}", "acme": {{"directory": "{DIRECTORY}"}}}},\n'


def served() -> str:
    """Fingerprint and issuer of what the gateway shows."""
    return GPU65.sh(
        "openssl s_client -connect 127.0.0.1:11436 </dev/null 2>/dev/null | openssl x509 -noout -issuer -fingerprint"
    )


def test_a_certificate_is_issued_renewed_and_kept_when_the_authority_refuses(project: Project) -> None:
    GPU65.sh(_TRUST.format(INTERNET.read("/run/lab-acme/cert.pem")))

    project.edit("group_data/embedding.py", _BEFORE, tls(ELSEWHERE))
    refused = project.deploy()
    assert refused.code == 1, str(refused)
    assert f"no certificate was issued for {ELSEWHERE}, and the gateway keeps the one that it has" in refused.err
    assert f"Domain: {ELSEWHERE}" in refused.err, "certbot's own words"
    assert f"CN = {ELSEWHERE}" in served(), "the placeholder, which signs itself"

    project.edit("group_data/embedding.py", tls(ELSEWHERE), tls(DOMAIN))
    deploy = project.deploy()
    assert deploy.code == 0, str(deploy)
    first = served()
    assert "Pebble Intermediate" in first
    check = project.check()
    assert check.code == 0, str(check)

    root = project.directory / "authority.pem"
    root.write_text(INTERNET.sh(f"python3 -c '{_ROOT}'"), encoding="ascii")
    smoke = project.stoker("smoke", "--only", "bge_nginx", CURL_CA_BUNDLE=str(root))
    assert smoke.code == 0, str(smoke)
    asked = project.lab_run("curl", "-qsS", "--cacert", str(root), "-w", "%{http_version} %{http_code}", f"{URL}/ready")
    assert asked.out.endswith("2 200"), str(asked)
    plain = project.lab_run("curl", "-qs", "-o", "/dev/null", "-w", "%{http_code}", f"http://{DOMAIN}/v1/models")
    assert plain.out == "404"

    GPU65.sh("certbot renew --force-renewal --no-random-sleep-on-renew --quiet", seconds=60)
    assert served() not in (first, ""), "read without a deploy"
    assert "Pebble Intermediate" in served()
    again = project.check()
    assert again.code == 0, str(again)
