"""`stoker import`: the Compose files of the four documents, and what else people write by hand."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.commands import Done, run
from support.description import PROJECT, Description

from stoker.draft.cards import parse
from stoker.draft.shipped import Shipped, shipped
from stoker.draft.write import files
from stoker.importer.errors import CannotImport
from stoker.importer.fleet import Imported, Source, import_files
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError
from stoker.spec.settings import HubModel

HANDMADE = PROJECT / "tests/data/handmade"
PINS = shipped()
IMPORTS = PROJECT / "tests/data/imports"


@pytest.fixture(scope="module")
def pins() -> Shipped:
    return PINS


def written(imported: Imported, pins: Shipped, folder: Path) -> Fleet:
    """The files, read as `stoker check-description` reads them."""
    for name, text in files(imported.draft, pins).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return Description(folder).load()


def one(pins: Shipped, tmp_path: Path, compose: str) -> tuple[Host, str]:
    """The host of a Compose file, with two V100, and the notes."""
    file = tmp_path / "compose.yaml"
    file.write_text(compose, encoding="utf-8")
    imported = import_files([Source(file, "10.0.0.7", parse("2 x V100-32GB"))], pins)
    return imported.draft.fleet(pins.versions).hosts[0], "\n".join(imported.notes.lines())


@pytest.fixture(scope="module")
def system_1(pins: Shipped) -> Imported:
    return import_files(
        [
            Source(HANDMADE / "memoryx-hybrid.yaml", "192.168.31.10", parse("3 x V100-32GB")),
            Source(IMPORTS / "unified/bge-ha.yaml", "192.168.31.65", parse("2 x P40")),
        ],
        pins,
    )


def test_system_1_is_the_default_fleet(system_1: Imported, pins: Shipped, tmp_path: Path) -> None:
    """Everything: instances, models, arguments, images, ports, gateways with their pools, cards."""
    assert written(system_1, pins, tmp_path) == Description(PROJECT).load()


@pytest.mark.parametrize(
    "line",
    [
        "image vllm/vllm-openai:latest -> vllm/vllm-openai:v0.19.1",
        "image ollama/ollama:latest -> ollama/ollama:0.32.15",
        "image nginx:alpine -> nginx:1.30.6-alpine",
        "--trust-remote-code is gone",
        "NCCL_P2P_DISABLE is gone",
        "OLLAMA_NUM_PARALLEL is gone",
        "--enable-prefix-caching is gone (vllm_qwen_gpu2)",
        "--enable-chunked-prefill is gone (vllm_qwen_gpu2)",
        "restart: always -> always, and one start at a time on a card",
        "no restart policy -> always (ollama_bge_0, ollama_bge_1, bge_nginx)",
        "bge-m3 is served with num_ctx 8192, num_batch 8192",
        "if ($request_body ...) is gone (bge_nginx)",
        "least_conn without a zone (vllm_nginx, bge_nginx)",
        "proxy_connect_timeout -> 2 s (vllm_nginx)",
        "it serves bge-m3 (ollama_bge_0, ollama_bge_1)",
    ],
)
def test_system_1_tells_every_correction(system_1: Imported, line: str) -> None:
    assert line in "\n".join(system_1.notes.lines())


def test_system_2_embedding_providers(pins: Shipped, tmp_path: Path) -> None:
    source = Source(IMPORTS / "embedding/docker-compose.embedding.yml", "10.0.0.7", parse("2 x RTX 4090"))
    imported = import_files([source], pins)
    (host,) = written(imported, pins, tmp_path).hosts
    found = {one.name: (one.engine, one.model, one.gpus, one.port) for _, one in host.instances()}
    assert found == {
        "memomate-vllm-embedding-1": ("vllm", "bge-m3", (0,), 8001),
        "memomate-vllm-embedding-2": ("vllm", "bge-m3", (1,), 8002),
        "memomate-ollama-1": ("ollama", "bge-m3-ollama", (0,), 11434),
    }
    vllm = next(one for _, one in host.instances() if one.engine == "vllm")
    assert vllm.arguments["runner"] == "pooling"
    assert "trust-remote-code" not in vllm.arguments
    gateway = host.stacks[0].gateway
    assert gateway is not None
    assert (gateway.port, [(pool.model, pool.kind) for pool in gateway.pools]) == (8000, [("bge-m3", "embeddings")])
    (web_ui,) = [stack.web_ui for stack in host.stacks if stack.web_ui]
    assert (web_ui.container, web_ui.service, web_ui.port) == ("memomate-ollama-webui-1", "ollama-webui", 3000)
    notes = "\n".join(imported.notes.lines())
    for line in (
        "--task embed -> runner = pooling",
        "ghcr.io/open-webui/open-webui:main -> the pinned release, accounts on (ollama-webui)",
        "the whole service (without an image) (backend)",
        "gateway memomate-gateway on port 8000",
    ):
        assert line in notes
    text = "".join(path.read_text() for path in tmp_path.rglob("*.py"))
    assert "hf_notarealtoken" not in text + notes


def test_system_3_a_local_directory_and_a_configuration_in_json(pins: Shipped, tmp_path: Path) -> None:
    imported = import_files([Source(IMPORTS / "single/docker-compose.yml", "10.0.0.7", parse("RTX 3090"))], pins)
    (host,) = written(imported, pins, tmp_path).hosts
    ((stack, instance),) = host.instances()
    assert stack.model_directory == "/data/models"
    assert host.model_of(instance) == pins.hub("Qwen3-4B")
    assert (instance.model, instance.port, instance.gpus) == ("qwen3-4b", 8000, (0,))
    # The file says 2048 tokens; the variable, which nothing reads, does not count.
    assert instance.arguments == {"max-num-seqs": 16, "max-model-len": 2048, "gpu-memory-utilization": 0.8}
    notes = "\n".join(imported.notes.lines())
    assert "refuses a configuration file whose name does not end in .yaml" in notes
    assert "--swap-space is gone" in notes
    assert "GPU_MEMORY_UTILIZATION -> gpu-memory-utilization = 0.8" in notes
    assert "MAX_MODEL_LEN is gone" in notes


def test_system_4_the_engine_that_is_known_and_the_one_that_is_not(pins: Shipped, tmp_path: Path) -> None:
    imported = import_files([Source(IMPORTS / "engines/docker-compose.yml", "10.0.0.7", parse("V100-16GB"))], pins)
    (host,) = written(imported, pins, tmp_path).hosts
    ((_, instance),) = host.instances()
    assert instance.model == "Qwen2.5-7B-Instruct-GPTQ-Int4"
    assert instance.image == "vllm/vllm-openai:v0.6.3"
    assert instance.arguments["tensor-parallel-size"] == 1
    notes = "\n".join(imported.notes.lines())
    assert "the engine transformers or vllm" in notes
    assert "computes GPTQ on the V100 with a kernel that has a race" in notes


AWQ = """
name: awq
services:
  chat:
    image: vllm/vllm-openai:latest
    ports: ["8000:8000"]
    volumes: ["/srv/models:/models"]
    command: --model /models/Qwen2.5-14B-Instruct-AWQ --served-model-name qwen --dtype bfloat16
    deploy: {resources: {reservations: {devices: [{driver: nvidia, device_ids: ["0"], capabilities: [gpu]}]}}}
"""


def test_awq_on_a_v100_is_told(pins: Shipped, tmp_path: Path) -> None:
    host, notes = one(pins, tmp_path, AWQ)
    assert "AWQ needs compute capability 7.5, and the V100 has 7.0" in notes
    assert next(host.instances())[1].arguments["dtype"] == "half"
    assert "dtype bfloat16 -> half" in notes


def test_ports_cards_and_shares_that_clash(pins: Shipped, tmp_path: Path) -> None:
    """Compose would refuse the second port when it starts; the third and fourth instance would not find the memory that they ask for."""
    service = """
  chat{n}:
    image: vllm/vllm-openai:v0.19.1
    ports: ["{port}:8000"]
    volumes: ["/srv/models:/models"]
    command: --model /models/Qwen3-4B --served-model-name qwen3-4b --max-model-len 4096
    gpus: [{{driver: nvidia, count: 1}}]
"""
    text = "name: many\nservices:" + "".join(service.format(n=n, port=8000 + n // 2) for n in range(4))
    host, notes = one(pins, tmp_path, text)
    found = [instance for _, instance in host.instances()]
    assert [instance.port for instance in found] == [8000, 8002, 8001, 8003]
    assert [instance.gpus for instance in found] == [(0,), (1,), (0,), (1,)]
    assert {instance.arguments["gpu-memory-utilization"] for instance in found} == {0.45}
    assert "port 8000 -> 8002 (chat1)" in notes
    assert "gpu-memory-utilization 0.9 -> 0.45 (chat0, chat1, chat2, chat3)" in notes


@pytest.mark.parametrize(
    ("cards", "more", "gpus", "size", "note"),
    [
        ('["0", "1"]', "", (0,), None, "GPU 0 of 0, 1 (chat)"),
        ('["0", "1"]', "-tp 2", (0, 1), 2, ""),
        ('["1"]', "--tensor-parallel-size=2", (1,), 1, "tensor-parallel-size 1 (chat)"),
        ('["GPU-5a1d3c2e-7b64-4f0e-9d21-6c0f8e3b1a47"]', "", ("GPU-5a1d3c2e-7b64-4f0e-9d21-6c0f8e3b1a47",), None, ""),
    ],
)
def test_cards_and_tensor_parallel_size(
    pins: Shipped, tmp_path: Path, cards: str, more: str, gpus: tuple[int | str, ...], size: int | None, note: str
) -> None:
    host, notes = one(pins, tmp_path, AWQ.replace('["0"]', cards).replace("bfloat16", f"half {more}"))
    ((_, instance),) = host.instances()
    assert (instance.gpus, instance.arguments.get("tensor-parallel-size")) == (gpus, size)
    assert note in notes


def test_further_names_are_aliases_where_a_gateway_takes_them(pins: Shipped, tmp_path: Path) -> None:
    host, notes = one(pins, tmp_path, AWQ.replace("--served-model-name qwen", "--served-model-name qwen q14 /models/q"))
    model = host.settings.models["qwen"]
    assert isinstance(model, HubModel)
    assert model.aliases == ("q14",)
    assert "the name /models/q (chat)" in notes


def test_two_models_on_one_command_line_are_not_served_both(pins: Shipped, tmp_path: Path) -> None:
    text = AWQ.replace("--model /models", "--model /models/Qwen3-4B --model /models")
    _, notes = one(pins, tmp_path, text)
    assert "the model /models/Qwen3-4B (chat)" in notes


def test_what_is_not_said_is_assumed_aloud(pins: Shipped, tmp_path: Path) -> None:
    text = """
services:
  chat:
    image: vllm/vllm-openai
    command: [--model, ./weights/finetuned, --port, "9000"]
    volumes: ["./weights:/weights"]
"""
    file = tmp_path / "My Stack/compose.yaml"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    imported = import_files([Source(file)], pins)
    target = tmp_path / "fleet"
    target.mkdir()
    (host,) = written(imported, pins, target).hosts
    notes = "\n".join(imported.notes.lines())
    assert host.name == "mystack"
    assert host.gpus.card == "unknown"
    for line in (
        "--inventory-address was not given",
        "gpus of mystack",
        "port 8000",
        "GPU 0",
        "repository 'unknown/finetuned'",
    ):
        assert line in notes


def test_a_gateway_of_some_hosts_stays_theirs(pins: Shipped, tmp_path: Path) -> None:
    """Two hosts serve one model, and the nginx of the first leads to one of its two instances."""
    chat = AWQ.replace("AWQ", "GPTQ-Int8")
    nginx = """
  chat2: {image: "vllm/vllm-openai:v0.19.1", ports: ["8001:8000"], command: --model /models/Qwen2.5-14B-Instruct-GPTQ-Int8
    --served-model-name qwen, volumes: ["/srv/models:/models"], gpus: [{device_ids: ["1"]}]}
  front: {image: nginx, ports: ["80:80"], volumes: ["./front.conf:/etc/nginx/conf.d/default.conf"]}
"""
    (tmp_path / "one.yaml").write_text(chat + nginx, encoding="utf-8")
    (tmp_path / "front.conf").write_text("server { location / { proxy_pass http://chat:8000; } }", encoding="utf-8")
    (tmp_path / "two.yaml").write_text(chat.replace("name: awq", "name: other"), encoding="utf-8")
    imported = import_files(
        [Source(tmp_path / "one.yaml", "10.0.0.1"), Source(tmp_path / "two.yaml", "10.0.0.2")], pins
    )
    gateway = imported.draft.fleet(pins.versions).hosts[0].stacks[0].gateway
    assert gateway is not None
    assert [(pool.model, pool.hosts) for pool in gateway.pools] == [("qwen", ("10.0.0.1",))]
    assert "awq-chat2-1 gets requests too" in "\n".join(imported.notes.lines())


def test_a_port_that_was_closed_is_not_opened_without_a_word(pins: Shipped, tmp_path: Path) -> None:
    _, notes = one(pins, tmp_path, AWQ.replace("8000:8000", "127.0.0.1:8000:8000"))
    assert 'firewall = "engines"' in notes


_ODD = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=5),
    st.lists(st.text(max_size=5), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
_KEYS = (
    "build",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "ports",
    "volumes",
    "deploy",
    "gpus",
    "devices",
    "scale",
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(_KEYS), _ODD, min_size=1, max_size=3))
@example({"scale": 10**18})
@example({"ports": ["1-99999999999"]})
def test_odd_values_end_in_words(odd: dict[str, object]) -> None:
    """Whatever stands there, it is imported, or refused by one of the exceptions that the command knows."""
    service = {"image": "vllm/vllm-openai", "command": "--model /m/x", **odd}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "compose.yaml"
        file.write_text(yaml.safe_dump({"services": {"chat": service}}), encoding="utf-8")
        with contextlib.suppress(CannotImport, SpecError, ValidationError):
            import_files([Source(file, "10.0.0.7")], PINS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: [", "no YAML"),
        ("volumes: {}", "no `services`"),
        ("services: {web: {image: caddy}}", "no service of these files"),
    ],
)
def test_a_file_that_cannot_be_used(pins: Shipped, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CannotImport, match=words):
        import_files([Source(file, "10.0.0.7")], pins)


def test_the_command_writes_asks_and_ends_with_a_status(tmp_path: Path) -> None:
    """From the project's directory, as people run it: the groups of the project's own fleet are not in the way."""
    target = tmp_path / "fleet"
    compose = HANDMADE / "memoryx-hybrid.yaml"

    def import_(file: Path, answer: str = "") -> Done:
        words = ("import", str(file), "--output", str(target), "--inventory-address", "192.168.31.10")
        return run(sys.executable, "-m", "stoker", *words, cwd=PROJECT, stdin=answer)

    first = import_(compose)
    assert first.code == 0, str(first)
    assert "Corrected" in first.out
    (target / "group_data/llm.py").write_text("mine = True\n", encoding="utf-8")
    assert import_(compose, "n\n").code == 1
    assert (target / "group_data/llm.py").read_text(encoding="utf-8") == "mine = True\n"
    assert import_(compose, "y\n").code == 0
    checked = run(sys.executable, "-m", "stoker", "check-description", "-i", str(target / "inventory.py"), cwd=PROJECT)
    assert checked.code == 0, str(checked)
    assert import_(tmp_path / "nothing.yaml").code == 3
    mig = tmp_path / "mig.yaml"
    mig.write_text(AWQ.replace('["0"]', '["MIG-1"]'), encoding="utf-8")
    refused = import_(mig)
    assert (refused.code, "a part of a divided card (MIG)" in refused.err) == (3, True), str(refused)
