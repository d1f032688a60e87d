"""`stoker endpoints`: the settings of applications, read back by the parsers that applications have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import Done, run
from support.compose_binary import compose_config
from support.fleet import EMBEDDING, LLM, PROJECT, Data, instances, make_fleet

from stoker.endpoints.endpoint import NoEndpoints, find
from stoker.endpoints.formats import text
from stoker.keys.make import hash_of, new_key
from stoker.spec.fleet import Fleet

ENTRY = f"http://{EMBEDDING}:11436"
DEFAULT = {
    "UNIFIED_URL": ENTRY,
    "EMBEDDING_API_BASE": f"{ENTRY}/v1",
    "EMBEDDING_MODEL": "bge-m3",
    "EMBEDDING_API_KEY": "unused",
    "LLAMA_BASE_URL": f"{ENTRY}/v1",
    "LLAMA_MODEL": "llama3.1-8b",
    "LLAMA_API_KEY": "unused",
    "QWEN_BASE_URL": f"{ENTRY}/qwen/v1",
    "QWEN_MODEL": "qwen2.5-14b",
    "QWEN_API_KEY": "unused",
}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOKER_KEY", raising=False)


def dotenv(folder: Path, content: str, **environment: str) -> dict[str, str]:
    """What a container of an application has, by Compose's own reading of the .env file."""
    (folder / "app.env").write_text(content)
    file = folder / "compose.yaml"
    file.write_text("{name: app, services: {app: {image: app, env_file: [app.env]}}}")
    found = compose_config(file, **environment)["services"]["app"]["environment"]
    return {name: value.replace("$$", "$") for name, value in found.items()}


def sourced(folder: Path, content: str, **environment: str) -> dict[str, str]:
    """What a shell has after `. file`."""
    file = folder / "app.sh"
    file.write_text(content)
    done = run("sh", "-ec", f". {file}; exec env -0", env=environment)
    assert done.code == 0, str(done)
    return dict(entry.split("=", 1) for entry in done.out.split("\0") if "=" in entry)


def settings(fleet: Fleet, folder: Path, **options: Any) -> dict[str, str]:
    return dotenv(folder, text(find(fleet, **options), "env"))


def gateway(data: Data, group: str = "embedding") -> dict[str, Any]:
    found: dict[str, Any] = data[group]["stacks"][0]["gateway"]
    return found


def test_env_and_shell_say_the_same(tmp_path: Path) -> None:
    found = find(make_fleet())
    assert dotenv(tmp_path, text(found, "env")) == DEFAULT
    assert DEFAULT.items() <= sourced(tmp_path, text(found, "sh")).items()


def test_spring() -> None:
    tree = yaml.safe_load(text(find(make_fleet()), "spring"))
    chat = {"api-key": "unused", "timeout": 180000, "max-tokens": 1024, "temperature": 0.7, "top-p": 0.9}
    assert tree == {
        "embedding": {"embed": {"api-base": f"{ENTRY}/v1", "model": "bge-m3", "api-key": "unused"}},
        "llm": {
            "llama": {"url": f"{ENTRY}/v1/chat/completions", "model": "llama3.1-8b", **chat},
            "qwen": {"url": f"{ENTRY}/qwen/v1/chat/completions", "model": "qwen2.5-14b", **chat},
        },
    }


def test_json() -> None:
    found = json.loads(text(find(make_fleet()), "json"))
    assert (found["unified_url"], found["network"], found["notes"]) == (ENTRY, None, [])
    assert [(one["name"], one["kind"], one["default"]) for one in found["endpoints"]] == [
        ("embed", "embeddings", True),
        ("llama", "chat", True),
        ("qwen", "chat", False),
    ]
    assert found["endpoints"][0]["dimensions"] == 1024


def test_containers_beside_the_gateway_know_it_by_its_service(tmp_path: Path) -> None:
    found = find(make_fleet(), containers=True)
    assert (found.network, found.host) == ("bge-ha_default", EMBEDDING)
    assert dotenv(tmp_path, text(found, "env")) == {
        name: value.replace(ENTRY, "http://nginx:11436") for name, value in DEFAULT.items()
    }


@pytest.mark.parametrize(("networks", "warned"), [(["192.168.31.0/24"], True), (["172.18.0.0/16"], False)])
def test_a_gateway_that_admits_no_containers_is_told(networks: list[str], warned: bool) -> None:
    fleet = make_fleet(lambda data: gateway(data).update(allowed_networks=networks))
    assert any("403" in note for note in find(fleet, containers=True).notes) is warned
    assert find(fleet).notes == ()


def test_another_gateway(tmp_path: Path) -> None:
    """What it has not comes from the one that has."""
    found = settings(make_fleet(), tmp_path, gateway="vllm_nginx")
    assert (found["UNIFIED_URL"], found["LLAMA_BASE_URL"], found["EMBEDDING_API_BASE"]) == (
        f"http://{LLM}:11434",
        f"http://{LLM}:11434/v1",
        f"{ENTRY}/v1",
    )
    inside = settings(make_fleet(), tmp_path, gateway="vllm_nginx", containers=True)
    assert (inside["QWEN_BASE_URL"], inside["EMBEDDING_API_BASE"]) == ("http://nginx:11434/qwen/v1", f"{ENTRY}/v1")


def without_anything(data: Data) -> None:
    for group in ("llm", "embedding"):
        data[group]["stacks"] = []


def without_gateways(data: Data) -> None:
    for group in ("llm", "embedding"):
        del data[group]["stacks"][0]["gateway"]


def test_without_a_gateway_names_come_from_the_models(tmp_path: Path) -> None:
    found = find(make_fleet(without_gateways))
    assert dotenv(tmp_path, text(found, "env")) == {
        "LLAMA3_1_8B_BASE_URL": f"http://{LLM}:11401/v1",
        "LLAMA3_1_8B_MODEL": "llama3.1-8b",
        "LLAMA3_1_8B_API_KEY": "unused",
        "QWEN2_5_14B_BASE_URL": f"http://{LLM}:11405/v1",
        "QWEN2_5_14B_MODEL": "qwen2.5-14b",
        "QWEN2_5_14B_API_KEY": "unused",
        "EMBEDDING_API_BASE": f"http://{EMBEDDING}:11434/v1",
        "EMBEDDING_MODEL": "bge-m3",
        "EMBEDDING_API_KEY": "unused",
    }
    assert any("4 instances serve llama3.1-8b" in note for note in found.notes)


def test_without_a_gateway_containers_ask_the_engine_in_their_network(tmp_path: Path) -> None:
    found = settings(make_fleet(without_gateways), tmp_path, containers=True)
    assert found["LLAMA3_1_8B_BASE_URL"] == "http://vllm-llama-gpu0-0:8000/v1"
    assert found["EMBEDDING_API_BASE"] == f"http://{EMBEDDING}:11434/v1"


def test_a_closed_port_and_an_engines_own_key(tmp_path: Path) -> None:
    def change(data: Data) -> None:
        without_gateways(data)
        data["all"]["firewall"] = "engines"
        instances(data, "llm")[4]["environment"] = {"VLLM_API_KEY": "s3cret-of-the-engine"}

    found = find(make_fleet(change))
    assert any("port of vllm_qwen_gpu2 is closed" in note for note in found.notes)
    assert "s3cret" not in "".join(text(found, form) for form in ("env", "sh", "spring", "json")) + repr(found)
    assert sourced(tmp_path, text(found, "sh"), VLLM_API_KEY="one")["QWEN2_5_14B_API_KEY"] == "one"


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("coder_v2", "CODER_V2"),
        ("embedding", "EMBEDDING_2"),  # the chat pool's settings do not mix with the embeddings'
        ("unified", "UNIFIED_2"),
    ],
)
def test_pools_of_other_names(name: str, prefix: str, tmp_path: Path) -> None:
    fleet = make_fleet(lambda data: gateway(data)["pools"][2].update(name=name))
    found = settings(fleet, tmp_path)
    assert found[f"{prefix}_MODEL"] == "qwen2.5-14b"
    assert found["EMBEDDING_MODEL"] == "bge-m3"
    assert len(found) == len(DEFAULT)


def test_two_pools_whose_names_are_one_variable(tmp_path: Path) -> None:
    def change(data: Data) -> None:
        gateway(data)["pools"][1]["name"] = "a-b"
        gateway(data)["pools"][2]["name"] = "a_b"

    found = settings(make_fleet(change), tmp_path)
    assert (found["A_B_MODEL"], found["A_B_2_MODEL"]) == ("llama3.1-8b", "qwen2.5-14b")


TLS = {"certificate": "/etc/stoker/tls/chain.pem", "key": "/etc/stoker/tls/key.pem"}
NAMED = f"https://{EMBEDDING}:"


@pytest.mark.parametrize(
    ("tls", "clients", "containers", "warned"),
    [
        ({}, f"{NAMED}11436", f"{NAMED}11436", True),
        ({"port": 11443}, f"{NAMED}11443", "http://nginx:11436", True),
        ({"domain": "llm.example.org"}, "https://llm.example.org:11436", "https://llm.example.org:11436", False),
    ],
)
def test_https_where_the_gateway_has_it(tls: dict[str, Any], clients: str, containers: str, warned: bool) -> None:
    fleet = make_fleet(lambda data: gateway(data).update(tls=TLS | tls))
    found = find(fleet)
    assert (found.unified_url, found.endpoints[2].base_url) == (clients, f"{clients}/qwen/v1")
    assert any("tls.domain" in note for note in found.notes) is warned
    assert find(fleet, containers=True).unified_url == containers


@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        ({"gateway": "nobody"}, None, "it has vllm_nginx, bge_nginx"),
        ({"gateway": "nobody"}, without_gateways, "none at all"),
        ({"containers": True}, without_anything, "no instance"),
    ],
)
def test_refusals(options: dict[str, Any], change: Callable[[Data], None] | None, said: str) -> None:
    with pytest.raises(NoEndpoints, match=said):
        find(make_fleet(change) if change else make_fleet(), **options)


# --- keys ---


def keyed(*keys: str) -> Fleet:
    entries = [{"name": f"key-{number}", "sha256": hash_of(key)} for number, key in enumerate(keys)]
    return make_fleet(lambda data: gateway(data).update(keys=entries))


@pytest.mark.parametrize("form", ["env", "sh", "spring", "json"])
def test_a_key_is_named_and_not_written(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    monkeypatch.setenv("STOKER_KEY", key)
    found = find(keyed(key))
    assert key not in text(found, form) + repr(found)
    assert text(found, form).count("${STOKER_KEY") == 3
    assert text(found, form, clear=True).count(key) == 3


def test_the_place_of_a_key_is_filled_by_who_reads_it(tmp_path: Path) -> None:
    found = find(keyed("sk-of-another"))
    assert dotenv(tmp_path, text(found, "env"), STOKER_KEY="sk-mine")["LLAMA_API_KEY"] == "sk-mine"
    assert sourced(tmp_path, text(found, "sh"), STOKER_KEY="sk-mine")["LLAMA_API_KEY"] == "sk-mine"


def test_a_shell_without_the_key_stops(tmp_path: Path) -> None:
    file = tmp_path / "app.sh"
    file.write_text(text(find(keyed("sk-of-another")), "sh"))
    done = run("sh", "-c", f". {file}; echo went on")
    assert done.code != 0
    assert "STOKER_KEY" in done.err
    assert "went on" not in done.out


@pytest.mark.parametrize("key", ["sk-plain_KEY-0123456789", 'it\'s $HOME #1 \\n "x" ${STOKER_KEY}0123456789'])
def test_any_key_survives_the_way(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_KEY", key)
    found = find(keyed(key))
    assert dotenv(tmp_path, text(found, "env", clear=True))["LLAMA_API_KEY"] == key
    assert sourced(tmp_path, text(found, "sh", clear=True))["LLAMA_API_KEY"] == key
    assert yaml.safe_load(text(found, "spring", clear=True))["llm"]["llama"]["api-key"] == key


# --- the command ---


def stoker(*argv: str, cwd: Path = PROJECT, **environment: str) -> Done:
    env = {"STOKER_GROUP_DATA": "", "STOKER_KEY": "", **environment}
    return run(sys.executable, "-m", "stoker", "endpoints", *argv, cwd=cwd, env=env)


def with_keys(folder: Path, key: str) -> Path:
    """Group data by which the unified gateway has this key."""
    (folder / "embedding.py").write_text(
        (PROJECT / "group_data/embedding.py").read_text()
        + f'\nstacks[0]["gateway"]["keys"] = [{{"name": "app", "sha256": "{hash_of(key)}"}}]\n'
    )
    return folder


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    assert dotenv(tmp_path, stoker().out) == DEFAULT
    key = new_key()
    overlay, file = with_keys(tmp_path, key), tmp_path / "secret.env"
    refused = stoker("--group-data", str(overlay), "--with-key", str(file), STOKER_KEY="sk-of-another")
    assert (refused.code, file.exists()) == (3, False), str(refused)
    assert "only their hashes" in refused.err
    done = stoker("--group-data", str(overlay), "--with-key", str(file), STOKER_KEY=key)
    assert (done.code, key in done.text) == (0, False), str(done)
    assert file.stat().st_mode & 0o777 == 0o600
    assert dotenv(tmp_path, file.read_text())["QWEN_API_KEY"] == key
    assert [one.name for one in tmp_path.iterdir() if "secret" in one.name] == ["secret.env"]
    again = stoker("--group-data", str(overlay), "--with-key", str(file), STOKER_KEY=key)
    assert again.code == 0, str(again)
    file.write_text("MINE=1\n")
    refused = stoker("--group-data", str(overlay), "--with-key", str(file), STOKER_KEY=key)
    assert (refused.code, file.read_text()) == (3, "MINE=1\n"), str(refused)
    assert "`stoker endpoints` did not write it" in refused.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--with-key", "app.env"], "No key is needed"),
        (["--check", "--from-container", "app"], "write NAME@HOST"),
    ],
)
def test_the_command_refuses(argv: list[str], said: str) -> None:
    done = stoker(*argv)
    assert (done.code, done.out) == (3, ""), str(done)
    assert said in done.err
