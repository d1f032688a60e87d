"""The default inventory describes system 1 exactly: names, ports, directories, arguments, images."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.description import PROJECT, Description

from stoker.inventory import GROUP_DATA_VARIABLE, group_data_directories
from stoker.spec.fleet import Fleet, Host
from stoker.spec.settings import HubModel, OllamaModel
from stoker.spec.vllm import to_argv

LLAMA = (
    "--dtype half --gpu-memory-utilization 0.45 --max-model-len 8192 --block-size 64 --max-num-seqs 16",
    "Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
    "llama3.1-8b",
)
QWEN = (
    "--dtype half --gpu-memory-utilization 0.85 --max-model-len 16384 --block-size 128 --max-num-seqs 32",
    "Qwen2.5-14B-Instruct-GPTQ-Int8",
    "qwen2.5-14b",
)

#: container, service, GPU, host port, (arguments, model directory, served name)
LLM_INSTANCES = [
    ("vllm_llama_gpu0_0", "vllm-llama-gpu0-0", 0, 11401, LLAMA),
    ("vllm_llama_gpu0_1", "vllm-llama-gpu0-1", 0, 11402, LLAMA),
    ("vllm_llama_gpu1_0", "vllm-llama-gpu1-0", 1, 11403, LLAMA),
    ("vllm_llama_gpu1_1", "vllm-llama-gpu1-1", 1, 11404, LLAMA),
    ("vllm_qwen_gpu2", "vllm-qwen-gpu2", 2, 11405, QWEN),
]

#: container, service, GPU, host port
EMBEDDING_INSTANCES = [
    ("ollama_bge_0", "ollama-bge-0", 0, 11434),
    ("ollama_bge_1", "ollama-bge-1", 1, 11435),
]

#: name, model, prefix, whether requests without a model go there
CHAT_POOLS = [("llama", "llama3.1-8b", "/llama", True), ("qwen", "qwen2.5-14b", "/qwen", False)]


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """Read by pyinfra's own loader, in place."""
    return Description(PROJECT).load()


@pytest.fixture(scope="module")
def llm(fleet: Fleet) -> Host:
    return fleet.host("192.168.31.10")


@pytest.fixture(scope="module")
def embedding(fleet: Fleet) -> Host:
    return fleet.host("192.168.31.65")


def test_two_hosts_and_their_cards(fleet: Fleet) -> None:
    assert [(host.name, host.address) for host in fleet.hosts] == [
        ("192.168.31.10", "192.168.31.10"),
        ("192.168.31.65", "192.168.31.65"),
    ]
    cards = [(host.gpus.count, host.gpus.card, host.gpus.memory_gib) for host in fleet.hosts]
    assert cards == [(3, "V100", 32), (2, "P40", 24)]


def test_the_five_vllm_instances(llm: Host) -> None:
    (stack,) = llm.stacks
    assert (stack.project, stack.compose_file, stack.model_directory) == (
        "memoryx-hybrid",
        "memoryx-hybrid.yaml",
        "/data/projects/models",
    )
    found = []
    for instance in stack.instances:
        model = llm.model_of(instance)
        assert isinstance(model, HubModel)
        assert instance.engine == "vllm"
        assert instance.environment == {}
        served = (" ".join(to_argv(instance.arguments)), model.directory, instance.model)
        (gpu,) = instance.gpus
        found.append((instance.name, instance.service_name, gpu, instance.port, served))
    assert found == LLM_INSTANCES


def test_the_two_ollama_instances(embedding: Host) -> None:
    (stack,) = embedding.stacks
    assert (stack.project, stack.compose_file, stack.model_directory) == (
        "bge-ha",
        "bge-ha.yaml",
        "/data/ollama_models",
    )
    found = [(i.name, i.service_name, *i.gpus, i.port) for i in stack.instances]
    assert found == EMBEDDING_INSTANCES
    for instance in stack.instances:
        assert instance.engine == "ollama"
        assert instance.model == "bge-m3"
        assert instance.arguments == {}
        assert instance.environment == {"OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_KEEP_ALIVE": "-1"}


def test_bge_m3_takes_texts_of_8192_tokens(embedding: Host) -> None:
    model = embedding.settings.models["bge-m3"]
    assert isinstance(model, OllamaModel)
    assert model.parameters == {"num_ctx": 8192, "num_batch": 8192}
    assert model.dimensions == 1024
    assert model.library.startswith("bge-m3:")


def test_the_gateway_on_the_llm_host(llm: Host) -> None:
    gateway = llm.stacks[0].gateway
    assert gateway is not None
    assert (gateway.container, gateway.service, gateway.port) == ("vllm_nginx", "nginx", 11434)
    assert gateway.config_file == "nginx-hybrid.conf"
    assert [(pool.name, pool.model, pool.prefix, pool.default) for pool in gateway.pools] == CHAT_POOLS
    assert {pool.kind for pool in gateway.pools} == {"chat"}


def test_the_unified_gateway(embedding: Host) -> None:
    gateway = embedding.stacks[0].gateway
    assert gateway is not None
    assert (gateway.container, gateway.service, gateway.port) == ("bge_nginx", "nginx", 11436)
    assert gateway.config_file == "nginx-unified.conf"
    embed, *chat = gateway.pools
    assert (embed.name, embed.model, embed.kind, embed.prefix, embed.default) == (
        "embed",
        "bge-m3",
        "embeddings",
        "/embed",
        True,
    )
    assert [(pool.name, pool.model, pool.prefix, pool.default) for pool in chat] == CHAT_POOLS


def test_gateway_times_and_sizes(llm: Host, embedding: Host) -> None:
    for host in (llm, embedding):
        gateway = host.stacks[0].gateway
        assert gateway is not None
        limits = gateway.limits
        assert (limits.connect_seconds, limits.read_seconds, limits.send_seconds) == (2, 600, 600)
        assert (limits.parsed_body_mib, limits.body_mib) == (32, 100)


def test_pinned_versions(llm: Host, embedding: Host) -> None:
    assert llm.images() == ["vllm/vllm-openai:v0.19.1", "nginx:1.30.6-alpine"]
    assert embedding.images() == ["ollama/ollama:0.32.15", "nginx:1.30.6-alpine"]
    assert llm.settings.versions.driver_branch == 580


def test_publishers_addresses_are_the_default(llm: Host) -> None:
    mirrors = llm.settings.mirrors
    assert mirrors.docker == "https://download.docker.com/linux"
    assert mirrors.container_toolkit == "https://nvidia.github.io/libnvidia-container"
    assert mirrors.hub == "https://huggingface.co"
    assert mirrors.registries == ()


def test_a_hosts_own_data_overrides_its_groups(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit(
        "inventory.py",
        '\nllm = ["192.168.31.10"]',
        '\nllm = [("192.168.31.10", {"ssh_user": "operator", "_sudo": True, "address": "10.0.0.10", "ready_timeout": 60})]',
    )
    fleet = description.load()
    assert fleet.host("192.168.31.10").address == "10.0.0.10"
    assert fleet.host("192.168.31.10").settings.ready_timeout == 60
    assert fleet.host("192.168.31.65").settings.ready_timeout == 1800


def test_later_overlays_override_earlier_ones(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.append("site/all.py", 'mirrors = {"hub": "https://hf-mirror.com"}\nready_timeout = 100\n')
    description.append("night/embedding.py", "ready_timeout = 200\n")
    description.append("night/all.py", "ready_timeout = 150\n")
    fleet = description.load(["site", "night"])
    llm, embedding = fleet.hosts
    assert [host.settings.mirrors.hub for host in fleet.hosts] == ["https://hf-mirror.com"] * 2
    assert llm.settings.ready_timeout == 150
    assert embedding.settings.ready_timeout == 200


def test_an_inventory_in_another_directory_brings_its_group_data(tmp_path: Path) -> None:
    other = tmp_path / "fleets" / "lab"
    other.mkdir(parents=True)
    Description.copy(other)
    assert len(Description(tmp_path).load(inventory="fleets/lab/inventory.py").hosts) == 2


def test_a_host_in_two_groups(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.append("inventory.py", 'slow = ["192.168.31.65"]\n')
    description.append("group_data/slow.py", "ready_timeout = 3600\n")
    assert [host.settings.ready_timeout for host in description.load().hosts] == [1800, 3600]


def test_overlays_of_the_command_line_replace_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROUP_DATA_VARIABLE, "/a:/b")
    assert group_data_directories() == ["/a", "/b"]
    assert group_data_directories(["/c"]) == ["/c"]
    monkeypatch.delenv(GROUP_DATA_VARIABLE)
    assert group_data_directories() == []
