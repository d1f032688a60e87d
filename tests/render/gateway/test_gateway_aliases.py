"""Further names of a model: known to the gateway and to the engines, and checked against clashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gateway_fleet
import pytest
from gateway_members import Member, running_members
from gateway_process import RunningGateway, running_gateway
from support.fleet import Data, make_fleet
from support.states import converged

from stoker.render.compose import services
from stoker.spec.fleet import Fleet
from stoker.spec.problems import SpecError
from stoker.steps.stack import backends, uuids

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, Member]]:
    qwen = Member("qwen", "qwen2.5-14b", aliases=("gpt-4o", "judge"))
    members = [Member("ollama_0", "bge-m3", "ollama"), Member("llama_0", "llama3.1-8b"), qwen]
    directory: Path = tmp_path_factory.mktemp("aliases") / "etc"
    with running_members(members), running_gateway(gateway_fleet.unified(), members, directory) as gateway:
        yield gateway, qwen


@pytest.mark.parametrize("path", [CHAT, "/qwen/v1/completions"])
@pytest.mark.parametrize("alias", ["gpt-4o", "judge"])
def test_an_alias_reaches_its_pool_and_the_body_is_not_touched(
    running: tuple[RunningGateway, Member], path: str, alias: str
) -> None:
    gateway, qwen = running
    body = b'{ "model" : "%s", "prompt":"x"}' % alias.encode()
    assert gateway.ask(path, raw=body).json["member"] == "qwen"
    assert qwen.received[-1].body == body


@pytest.mark.parametrize(
    ("path", "model", "status"),
    [
        (CHAT, "gpt-4", 404),
        (CHAT, "Judge", 404),
        ("/llama/v1/completions", "judge", 404),
        ("/v1/embeddings", "judge", 400),
    ],
)
def test_an_alias_goes_nowhere_else(running: tuple[RunningGateway, Member], path: str, model: str, status: int) -> None:
    assert running[0].ask(path, {"model": model}).status == status


def test_the_list_of_models_has_the_first_name(running: tuple[RunningGateway, Member]) -> None:
    names = [entry["id"] for entry in running[0].ask("/v1/models").json["data"]]
    assert names == ["bge-m3", "llama3.1-8b", "qwen2.5-14b"]


def with_aliases(model: str, *aliases: str) -> Fleet:
    def change(data: Data) -> None:
        data["all"]["models"][model]["aliases"] = list(aliases)

    return make_fleet(change)


def test_the_engines_know_them_and_no_other_engine_is_made_anew() -> None:
    before, after = make_fleet(), with_aliases("qwen2.5-14b", "gpt-4o", "judge")

    def described(fleet: Fleet) -> dict[str, tuple[tuple[str, ...], str]]:
        host = fleet.hosts[0]
        found = services(host, host.stacks[0], uuids(converged(fleet, host)))
        return {service.container: (service.command, service.configuration) for service in found}

    old, new = described(before), described(after)
    assert [name for name in old if old[name] != new[name]] == ["vllm_qwen_gpu2"]
    command = new["vllm_qwen_gpu2"][0]
    place = command.index("--served-model-name")
    assert command[place + 1 : place + 4] == ("qwen2.5-14b", "gpt-4o", "judge")
    gateway = after.hosts[0].stacks[0].gateway
    assert gateway
    assert [backend.aliases for backend in backends(after, gateway)] == [(), ("gpt-4o", "judge")]


@pytest.mark.parametrize("aliases", [("llama3.1-8b",), ("bge-m3:latest",), ("judge", "judge"), ("a b",)])
def test_clashes(aliases: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match=r"is taken by|aliases"):
        with_aliases("qwen2.5-14b", *aliases)


def test_ollama_has_none() -> None:
    with pytest.raises(SpecError, match="aliases"):
        with_aliases("bge-m3", "text-embedding-3-small")
