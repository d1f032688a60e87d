"""Rendered Compose files, read by the real Compose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.compose_binary import compose_config
from support.fleet import Data, instances, make_fleet
from support.states import bare

from stoker.render.compose import compose_file, services
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError
from stoker.steps.stack import uuids

Change = Callable[[Data], object]


def host_of(group: str, change: Change = lambda data: None) -> Host:
    fleet: Fleet = make_fleet(change)
    return fleet.hosts[("llm", "embedding").index(group)]


def rendered(host: Host) -> str:
    return compose_file(host, host.stacks[0], uuids(bare(host)))


def read(host: Host, folder: Path) -> dict[str, Any]:
    """A host's only stack as Compose understands it."""
    file = folder / host.stacks[0].compose_file
    file.write_text(rendered(host), encoding="utf-8")
    return compose_config(file)


def hashes(host: Host) -> dict[str, str]:
    found = services(host, host.stacks[0], uuids(bare(host)))
    return {service.container: service.configuration for service in found}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read(host_of("llm"), tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read(host_of("embedding"), tmp_path_factory.mktemp("embedding"))


QUIET = ["--disable-access-log-for-endpoints", "/health,/metrics"]
LLAMA_COMMAND = [
    "/model_data/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
    *("--served-model-name", "llama3.1-8b"),
    *QUIET,
    *("--dtype", "half"),
    *("--gpu-memory-utilization", "0.45"),
    *("--max-model-len", "8192"),
    *("--block-size", "64"),
    *("--max-num-seqs", "16"),
]
QWEN_COMMAND = [
    "/model_data/Qwen2.5-14B-Instruct-GPTQ-Int8",
    *("--served-model-name", "qwen2.5-14b"),
    *QUIET,
    *("--dtype", "half"),
    *("--gpu-memory-utilization", "0.85"),
    *("--max-model-len", "16384"),
    *("--block-size", "128"),
    *("--max-num-seqs", "32"),
]


def test_the_llm_stack(llm: dict[str, Any]) -> None:
    assert llm["name"] == "memoryx-hybrid"
    found = {
        name: (service["container_name"], service["image"], service["command"], port_of(service))
        for name, service in llm["services"].items()
    }
    image = "vllm/vllm-openai:v0.19.1"
    assert found == {
        "vllm-llama-gpu0-0": ("vllm_llama_gpu0_0", image, LLAMA_COMMAND, ("11401", 8000)),
        "vllm-llama-gpu0-1": ("vllm_llama_gpu0_1", image, LLAMA_COMMAND, ("11402", 8000)),
        "vllm-llama-gpu1-0": ("vllm_llama_gpu1_0", image, LLAMA_COMMAND, ("11403", 8000)),
        "vllm-llama-gpu1-1": ("vllm_llama_gpu1_1", image, LLAMA_COMMAND, ("11404", 8000)),
        "vllm-qwen-gpu2": ("vllm_qwen_gpu2", image, QWEN_COMMAND, ("11405", 8000)),
        "nginx": (
            "vllm_nginx",
            "nginx:1.30.6-alpine",
            ["nginx", "-c", "/etc/nginx/stoker/nginx-hybrid.conf", "-g", "daemon off;"],
            ("11434", 11434),
        ),
    }


def test_the_embedding_stack(embedding: dict[str, Any]) -> None:
    assert embedding["name"] == "bge-ha"
    found = {name: (service["container_name"], port_of(service)) for name, service in embedding["services"].items()}
    assert found == {
        "ollama-bge-0": ("ollama_bge_0", ("11434", 11434)),
        "ollama-bge-1": ("ollama_bge_1", ("11435", 11434)),
        "nginx": ("bge_nginx", ("11436", 11436)),
    }
    for name in ("ollama-bge-0", "ollama-bge-1"):
        service = embedding["services"][name]
        assert service["environment"] == {
            "STOKER_INSTANCE": name.replace("-", "_"),
            "OLLAMA_NOPRUNE": "1",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_KEEP_ALIVE": "-1",
        }
        assert mounts(service) == {("/data/ollama_models", "/root/.ollama", False)}


def port_of(service: dict[str, Any]) -> tuple[str, int]:
    (port,) = service["ports"]
    return port["published"], port["target"]


def mounts(service: dict[str, Any]) -> set[tuple[str, str, bool]]:
    """Source, target, whether it is read-only."""
    return {(entry["source"], entry["target"], entry.get("read_only", False)) for entry in service["volumes"]}


def test_what_every_service_has(llm: dict[str, Any], embedding: dict[str, Any]) -> None:
    for service in [*llm["services"].values(), *embedding["services"].values()]:
        assert service["restart"] == "always"
        assert service["logging"] == {"driver": "json-file", "options": {"max-size": "50m", "max-file": "3"}}
        assert service["ulimits"] == {"nofile": 65536}
        assert service["stop_grace_period"] in ("10s", "30s")
        assert len(service["labels"]["stoker.configuration"]) == 16
        assert "privileged" not in service
        assert "network_mode" not in service


@pytest.mark.parametrize("group", ["llm", "embedding"])
def test_cards_by_cdi_and_uuid(group: str, request: pytest.FixtureRequest) -> None:
    tree = request.getfixturevalue(group)
    host = host_of(group)
    cards = {gpu.index: gpu.uuid for gpu in bare(host).gpus}
    for _, instance in host.instances():
        service = tree["services"][instance.service_name]
        wanted = [f"nvidia.com/gpu={cards[index]}" for index in instance.gpus]
        assert [device["source"] for device in service["devices"]] == wanted
        assert "deploy" not in service
        assert "runtime" not in service
    assert "devices" not in tree["services"]["nginx"]


def test_vllm_waits_for_its_turn_on_the_card(llm: dict[str, Any]) -> None:
    card = bare(host_of("llm")).gpus[1].uuid
    service = llm["services"]["vllm-llama-gpu1-0"]
    assert service["entrypoint"] == [
        *("python3", "/stoker/gpu-turn.py"),
        *("--lock", f"/run/stoker/locks/{card}.lock"),
        *("--health", "http://127.0.0.1:8000/health"),
        *("--max-hold", "3600"),
        *("--weights", LLAMA_COMMAND[0]),
        *("--cache", "/var/cache/stoker"),
        *("--", "vllm", "serve"),
    ]
    # The health check must not count what the neighbour on the card needs.
    assert service["healthcheck"]["start_period"] == "1h0m0s"
    assert llm["services"]["vllm-qwen-gpu2"]["healthcheck"]["start_period"] == "30m0s"


def test_what_vllm_sees_of_the_host(llm: dict[str, Any]) -> None:
    card = bare(host_of("llm")).gpus[2].uuid
    assert mounts(llm["services"]["vllm-qwen-gpu2"]) == {
        ("/data/projects/models", "/model_data", True),
        ("/opt/stoker/bin", "/stoker", True),
        ("/var/lib/stoker/locks", "/run/stoker/locks", False),
        (f"/var/lib/stoker/cache/{card}", "/var/cache/stoker", False),
    }


def test_who_fills_a_cache_has_the_lock_of_its_card() -> None:
    """Also on several cards: the cache's card is one whose lock the instance takes."""

    def spread(data: Data) -> None:
        qwen = instances(data, "llm")[4]
        qwen["gpus"] = [2, 0]
        qwen["arguments"] = {**qwen["arguments"], "tensor-parallel-size": 2, "gpu-memory-utilization": 0.05}

    host = host_of("llm", spread)
    for service in services(host, host.stacks[0], uuids(bare(host))):
        locks = {word.removeprefix("/run/stoker/locks/") for word in service.entrypoint if word.endswith(".lock")}
        caches = [volume.split(":")[0] for volume in service.volumes if volume.endswith(":/var/cache/stoker")]
        assert {f"{cache.removeprefix('/var/lib/stoker/cache/')}.lock" for cache in caches} <= locks
        assert bool(caches) == bool(locks)


def test_the_gateway_sees_its_configuration_and_who_is_drained(llm: dict[str, Any]) -> None:
    assert mounts(llm["services"]["nginx"]) == {
        ("/opt/stoker/memoryx-hybrid/gateway", "/etc/nginx/stoker", True),
        ("/var/lib/stoker/gateway/vllm_nginx", "/run/stoker", True),
    }


def test_secrets_are_in_no_mounted_directory(llm: dict[str, Any], embedding: dict[str, Any]) -> None:
    sources = {
        mount[0] for tree in (llm, embedding) for service in tree["services"].values() for mount in mounts(service)
    }
    assert not any("/etc/stoker".startswith(source) for source in sources)


def test_the_same_description_gives_the_same_text() -> None:
    assert rendered(host_of("llm")) == rendered(host_of("llm"))
    assert hashes(host_of("llm")) == hashes(host_of("llm"))


def in_qwen(**fields: Any) -> Change:
    return lambda data: instances(data, "llm")[4].update(fields)


def qwen_argument(name: str, value: Any) -> Change:
    def change(data: Data) -> None:
        qwen = instances(data, "llm")[4]
        qwen["arguments"] = {**qwen["arguments"], name: value}

    return change


@pytest.mark.parametrize(
    "change",
    [
        qwen_argument("max-model-len", 8192),
        qwen_argument("seed", 1),
        in_qwen(port=11499),
        in_qwen(environment={"VLLM_LOGGING_LEVEL": "DEBUG"}),
        in_qwen(image="vllm/vllm-openai:v0.19.0"),
    ],
)
def test_a_change_of_one_instance_changes_its_hash_and_no_other(change: Change) -> None:
    before, after = hashes(host_of("llm")), hashes(host_of("llm", change))
    assert [name for name in before if before[name] != after[name]] == ["vllm_qwen_gpu2"]


def test_another_card_in_the_slot_changes_the_instances_on_it() -> None:
    host = host_of("llm")
    cards = uuids(bare(host))
    found = services(host, host.stacks[0], {**cards, 0: "GPU-ffffffff-5b8e-47c1-9d2a-000000000000"})
    before = hashes(host)
    changed = [s.container for s in found if s.configuration != before[s.container]]
    assert changed == ["vllm_llama_gpu0_0", "vllm_llama_gpu0_1"]


def test_a_third_instance_changes_its_neighbours_only() -> None:
    """Their health checks have to wait longer; the others stay as they are."""

    def change(data: Data) -> None:
        first = instances(data, "llm")[0]
        for instance in instances(data, "llm")[:2]:
            instance["arguments"] = {**instance["arguments"]}
        instances(data, "llm").append(
            {
                **first,
                "name": "vllm_llama_gpu0_2",
                "port": 11406,
                "arguments": {**first["arguments"], "gpu-memory-utilization": 0.1},
            }
        )

    before, after = hashes(host_of("llm")), hashes(host_of("llm", change))
    assert {name for name in after if before.get(name) != after[name]} == {
        "vllm_llama_gpu0_0",
        "vllm_llama_gpu0_1",
        "vllm_llama_gpu0_2",
    }


def test_limits_of_the_site_change_every_container() -> None:
    def change(data: Data) -> None:
        data["all"]["docker"] = {"log_max_size": "10m", "open_files": 4096}

    before, after = hashes(host_of("llm")), hashes(host_of("llm", change))
    assert all(before[name] != after[name] for name in before)


def test_texts_survive_as_they_are(tmp_path: Path) -> None:
    """Compose replaces $NAME, YAML has signs of its own, Jinja2 too."""
    odd = "a $HOME ${X} $$ \"q\" 's' <b> & #c : {{ x }} {% y %} \\ ü €"

    def change(data: Data) -> None:
        qwen_argument("chat-template", odd)(data)
        in_qwen(environment={"A": odd, "NO": "no", "Y": "1e3", "N": "", "ON": "null"})(data)

    tree = read(host_of("llm", change), tmp_path)
    service = tree["services"]["vllm-qwen-gpu2"]
    # `config` prints what can be read again: $ doubled.
    assert service["command"][-1].replace("$$", "$") == odd
    environment = {name: value.replace("$$", "$") for name, value in service["environment"].items()}
    assert {name: value for name, value in environment.items() if len(name) <= 2} == {
        "A": odd,
        "NO": "no",
        "Y": "1e3",
        "N": "",
        "ON": "null",
    }


@pytest.mark.parametrize("name", ["1e3", "007", "null", "on", "0x10", "1_5", "2026-11-20", "yes"])
def test_names_that_look_like_something_else(name: str, tmp_path: Path) -> None:
    def change(data: Data) -> None:
        data["llm"]["stacks"][0]["project"] = name
        in_qwen(name=name, service=name)(data)

    host = host_of("llm", change)
    assert hashes(host)[name]
    tree = read(host, tmp_path)
    assert tree["name"] == name
    assert tree["services"][name]["container_name"] == name


def test_flags_and_what_is_left_out() -> None:
    def change(data: Data) -> None:
        for name, value in {"enforce-eager": True, "enable-prefix-caching": False, "seed": None}.items():
            qwen_argument(name, value)(data)

    host = host_of("llm", change)
    (qwen,) = [s for s in services(host, host.stacks[0], uuids(bare(host))) if s.container == "vllm_qwen_gpu2"]
    assert list(qwen.command) == [*QWEN_COMMAND, "--enforce-eager", "--no-enable-prefix-caching"]


def test_two_cards_for_one_instance(tmp_path: Path) -> None:
    def change(data: Data) -> None:
        data["llm"]["stacks"][0]["instances"] = [*instances(data, "llm")[:2], instances(data, "llm")[4]]
        in_both = {"gpus": [1, 2], "arguments": {"tensor-parallel-size": 2}}
        instances(data, "llm")[2].update(in_both)

    host = host_of("llm", change)
    service = read(host, tmp_path)["services"]["vllm-qwen-gpu2"]
    cards = [gpu.uuid for gpu in bare(host).gpus[1:]]
    assert [device["source"] for device in service["devices"]] == [f"nvidia.com/gpu={card}" for card in cards]
    locks = [word for word in service["entrypoint"] if word.endswith(".lock")]
    assert locks == [f"/run/stoker/locks/{card}.lock" for card in cards]
    assert service["shm_size"] == str(16 << 30)  # NCCL's own is 64 MiB


def test_a_card_that_is_not_there_is_an_error() -> None:
    host = host_of("llm")
    with pytest.raises(KeyError):
        compose_file(host, host.stacks[0], {0: "GPU-0", 1: "GPU-1"})


def test_the_descriptions_own_checks_come_first() -> None:
    """What a template could not survive is refused before anything is rendered."""
    with pytest.raises(SpecError, match="MY VARIABLE"):
        host_of("llm", in_qwen(environment={"MY VARIABLE": "1"}))


def test_the_distributions_docker_gets_its_cards_by_the_hook(tmp_path: Path) -> None:
    def change(data: Data) -> None:
        data["all"]["docker"] = {"source": "distribution"}

    host = host_of("llm", change)
    service = read(host, tmp_path)["services"]["vllm-qwen-gpu2"]
    assert service["deploy"]["resources"]["reservations"]["devices"] == [
        {"capabilities": ["gpu"], "driver": "nvidia", "device_ids": [bare(host).gpus[2].uuid]}
    ]
    assert "devices" not in service


def test_another_revision_of_a_model_needs_another_start() -> None:
    def change(data: Data) -> None:
        data["all"]["models"]["qwen2.5-14b"]["revision"] = "v2"

    before, after = hashes(host_of("llm")), hashes(host_of("llm", change))
    assert [name for name in before if before[name] != after[name]] == ["vllm_qwen_gpu2"]


def test_a_proxy_is_for_downloads_so_ollama_has_it_and_vllm_has_not(tmp_path: Path) -> None:
    def change(data: Data) -> None:
        data["all"]["proxy"] = {"https": "http://proxy.example.org:3128", "no_proxy": ["localhost", ".example.org"]}

    ollama = read(host_of("embedding", change), tmp_path)["services"]["ollama-bge-0"]["environment"]
    assert ollama["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    assert ollama["NO_PROXY"] == "localhost,.example.org"
    assert "PROXY" not in rendered(host_of("llm", change))
