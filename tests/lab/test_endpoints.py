"""What `stoker endpoints` says of the served fleet is true where it will be used."""

from __future__ import annotations

from support.commands import ROOT
from support.project import Project

LLM, EMBEDDING = "192.168.31.10", "192.168.31.65"
#: As a person does it, with the settings in the environment.
_CLIENT = 'eval "$(stoker endpoints --format sh)" && exec "$0"'


def test_the_settings_work_from_here_and_from_containers(reader: Project) -> None:
    check = ("stoker", "endpoints", "--check")
    here, elsewhere, beside, curl = reader.at_once(
        check,
        (*check, "--from-container", f"vllm_qwen_gpu2@{LLM}"),
        (*check, "--containers"),
        ("sh", "-c", _CLIENT, str(ROOT / "examples/clients/curl.sh")),
    )
    for done in (here, elsewhere):
        assert done.code == 0, str(done)
        assert "4 checks" in done.out
    # Docker's DNS leads to the gateway by its service name, and the default fleet's admits no containers of its own host.
    assert beside.code == 1, str(beside)
    assert f"ollama_bge_0@{EMBEDDING}" in beside.out
    assert "network_not_allowed" in beside.out
    assert "docker network inspect bge-ha_default" in beside.out
    assert curl.code == 0, str(curl)
    assert "data: [DONE]" in curl.out
