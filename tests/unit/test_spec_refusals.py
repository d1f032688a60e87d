"""What is wrong with a description is said in full: file, instance, field, value, reason and remedy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from support.description import Description
from support.fleet import Data, make_fleet

from stoker.spec.problems import Problem

ALL, LLM, EMBEDDING = "group_data/all.py", "group_data/llm.py", "group_data/embedding.py"
QWEN = '{"name": "vllm_qwen_gpu2", "gpus": [2], "port": 11405, **_qwen}'
QWEN_ENGINE = '"engine": "vllm",\n    "model": "qwen2.5-14b"'
#: The place of Qwen's fields in group_data/llm.py.
FIELD = "stacks[0].instances[4]"


@dataclass(frozen=True)
class Slip:
    """One edit of the default description, and the one problem that it makes."""

    file: str
    old: str
    new: str
    where: str
    instance: str
    field: str
    value: str
    reason: str  #: part of it
    remedy: str  #: part of it


def in_qwen(old: str, new: str, field: str, value: str, reason: str, remedy: str) -> Slip:
    """A slip in the entry of vllm_qwen_gpu2."""
    return Slip(LLM, QWEN, QWEN.replace(old, new), LLM, "vllm_qwen_gpu2", field, value, reason, remedy)


def in_arguments(text: str, name: str, value: str, reason: str, remedy: str) -> Slip:
    """A slip in Qwen's arguments."""
    return Slip(
        LLM,
        '"block-size": 128',
        f'"block-size": 128, {text}',
        LLM,
        "vllm_qwen_gpu2",
        f"arguments[{name!r}]",
        value,
        reason,
        remedy,
    )


def in_settings(old: str, new: str, field: str, value: str, reason: str, remedy: str) -> Slip:
    """A slip in group_data/all.py."""
    return Slip(ALL, old, new, ALL, "", field, value, reason, remedy)


MORE = "# keys = "  # a line of group_data/all.py before which settings can be added

SLIPS = {
    # Fields and types
    "unknown field": in_qwen(
        '"port"', '"prot": 1, "port"', f"{FIELD}.prot", "1", "no field of this name", "did you mean 'port'?"
    ),
    "misspelt field": in_qwen(
        '"gpus"', '"gpu"', f"{FIELD}.gpu", "[2]", "no field of this name", "did you mean 'gpus'?"
    ),
    "missing field": in_qwen(', "port": 11405', "", f"{FIELD}.port", "", "not given", "add 'port'"),
    "port as text": in_qwen("11405", '"11405"', f"{FIELD}.port", "'11405'", "it is a text", "a whole number"),
    "port too high": in_qwen("11405", "114050", f"{FIELD}.port", "114050", "less than or equal to 65535", "range"),
    "gpus not a list": in_qwen("[2]", "2", f"{FIELD}.gpus", "2", "it is a whole number", "write a list"),
    "gpu as text": in_qwen("[2]", '["2"]', f"{FIELD}.gpus[0]", "'2'", "an index is a number", "without quotes"),
    "gpu by half a UUID": in_qwen(
        "[2]",
        '["GPU-8f3c"]',
        f"{FIELD}.gpus[0]",
        "'GPU-8f3c'",
        "neither the UUID nor the bus address",
        "GPU- and 36 signs",
    ),
    "gpu by a part of a card": in_qwen(
        "[2]", '["MIG-8f3c"]', f"{FIELD}.gpus[0]", "'MIG-8f3c'", "a part of a divided card", "name the whole card"
    ),
    "gpu as a switch": in_qwen("[2]", "[True]", f"{FIELD}.gpus[0]", "True", "a GPU has no such name", "3b:00.0"),
    "one gpu in two spellings": in_qwen(
        "[2]",
        '["3b:00.0", "00000000:3B:00.0"]',
        "gpus",
        "['0000:3b:00.0', '0000:3b:00.0']",
        "a GPU is named twice",
        "name each GPU once",
    ),
    "no gpu": in_qwen("[2]", "[]", "gpus", "[]", "names no card", "the cards of the host"),
    "environment number": Slip(
        EMBEDDING,
        '"port": 11434, **_bge',
        '"port": 11434, **{**_bge, "environment": {"OLLAMA_KEEP_ALIVE": -1}}',
        EMBEDDING,
        "ollama_bge_0",
        "stacks[0].instances[0].environment.OLLAMA_KEEP_ALIVE",
        "-1",
        "it is a whole number",
        "a text in quotes",
    ),
    "environment name": in_qwen(
        '"port"',
        '"environment": {"MY VARIABLE": "1"}, "port"',
        f"{FIELD}.environment.MY VARIABLE",
        "'MY VARIABLE'",
        "right form",
        "letters, digits and _",
    ),
    "relative path": Slip(
        LLM,
        '"/data/projects/models"',
        '"data/models"',
        LLM,
        "",
        "stacks[0].model_directory",
        "'data/models'",
        "right form",
        "begins with /",
    ),
    "compose file in a directory": Slip(
        LLM,
        '"memoryx-hybrid.yaml"',
        '"sub/memoryx-hybrid.yaml"',
        LLM,
        "",
        "stacks[0].compose_file",
        "'sub/memoryx-hybrid.yaml'",
        "right form",
        "without a directory",
    ),
    # Names and ports
    "port twice": in_qwen("11405", "11401", "port", "11401", "vllm_llama_gpu0_0, vllm_qwen_gpu2", "its own port"),
    "name twice": Slip(
        LLM,
        '"vllm_qwen_gpu2"',
        '"vllm_llama_gpu0_0"',
        LLM,
        "vllm_llama_gpu0_0",
        "name",
        "'vllm_llama_gpu0_0'",
        "2 containers on 192.168.31.10",
        "its own name",
    ),
    "service twice": Slip(
        LLM,
        '"port": 11405',
        '"port": 11405, "service": "nginx"',
        LLM,
        "",
        "service",
        "'nginx'",
        "2 services of project memoryx-hybrid",
        "its own name",
    ),
    # GPUs
    "gpu out of range": in_qwen("[2]", "[3]", "gpus", "[3]", "GPU 3 does not exist", "use 0 to 2"),
    "gpu below range": in_qwen("[2]", "[-1]", "gpus", "[-1]", "GPU -1 does not exist", "use 0 to 2"),
    "gpu named twice": in_qwen("[2]", "[2, 2]", "gpus", "[2, 2]", "named twice", "once"),
    "utilization above 1": Slip(
        LLM,
        '"gpu-memory-utilization": 0.85',
        '"gpu-memory-utilization": 85',
        LLM,
        "vllm_qwen_gpu2",
        "arguments['gpu-memory-utilization']",
        "85",
        "a share",
        "0.9 for 90 %",
    ),
    "card promised twice": in_qwen(
        '"gpus": [2]',
        '"gpus": [1]',
        "gpu-memory-utilization",
        "1.75",
        "GPU 1 (vllm_llama_gpu1_0, vllm_llama_gpu1_1, vllm_qwen_gpu2) want more than the whole card",
        "another GPU",
    ),
    "utilization not given": Slip(
        LLM,
        '"gpu-memory-utilization": 0.45,  #',
        "#",
        LLM,
        "",
        "gpu-memory-utilization",
        "1.8",
        "want more than the whole card",
        "lower gpu-memory-utilization",
    ),
    # Engines and models
    "unknown engine": Slip(
        LLM,
        QWEN_ENGINE,
        QWEN_ENGINE.replace("vllm", "vlm"),
        LLM,
        "vllm_qwen_gpu2",
        f"{FIELD}.engine",
        "'vlm'",
        "it must be 'llama-cpp', 'ollama'",
        "did you mean 'vllm'?",
    ),
    "bad model name": Slip(
        LLM,
        QWEN_ENGINE,
        QWEN_ENGINE.replace("qwen2.5-14b", "qwen 2.5"),
        LLM,
        "vllm_qwen_gpu2",
        f"{FIELD}.model",
        "'qwen 2.5'",
        "right form",
        "letters, digits",
    ),
    "model that is not described": Slip(
        LLM,
        QWEN_ENGINE,
        QWEN_ENGINE.replace("qwen2.5-14b", "qwen3"),
        LLM,
        "vllm_qwen_gpu2",
        "model",
        "'qwen3'",
        "no model of this name",
        "bge-m3, llama3.1-8b, qwen2.5-14b",
    ),
    "two models": Slip(
        LLM,
        QWEN_ENGINE,
        '"engine": "vllm",\n    "model": ["qwen2.5-14b", "llama3.1-8b"]',
        LLM,
        "vllm_qwen_gpu2",
        f"{FIELD}.model",
        "['qwen2.5-14b', 'llama3.1-8b']",
        "one instance serves one model",
        "one instance for each",
    ),
    "two models under another name": Slip(
        LLM,
        QWEN_ENGINE,
        '"engine": "vllm",\n    "models": ["qwen2.5-14b", "llama3.1-8b"]',
        LLM,
        "vllm_qwen_gpu2",
        f"{FIELD}.models",
        "['qwen2.5-14b', 'llama3.1-8b']",
        "one instance serves one model",
        "one instance for each",
    ),
    "vLLM for a model of Ollama": Slip(
        LLM,
        QWEN_ENGINE,
        QWEN_ENGINE.replace("qwen2.5-14b", "bge-m3"),
        LLM,
        "vllm_qwen_gpu2",
        "engine",
        "'vllm'",
        "Ollama library",
        "change the engine",
    ),
    "arguments for Ollama": Slip(
        EMBEDDING,
        '"port": 11434,',
        '"port": 11434, "arguments": {"num_ctx": 8192},',
        EMBEDDING,
        "ollama_bge_0",
        "arguments['num_ctx']",
        "8192",
        "no command-line arguments",
        "`parameters`",
    ),
    # vLLM's arguments
    "json config": in_arguments(
        '"config": "/config/vllm.json"', "config", "'/config/vllm.json'", "ends in .yaml or .yml", "convert it to YAML"
    ),
    "removed: task": in_arguments('"task": "embed"', "task", "'embed'", "does not know --task", "runner = 'pooling'"),
    "removed: swap-space": in_arguments('"swap-space": 4', "swap-space", "4", "does not know --swap-space", "remove"),
    "removed, with dashes": in_arguments('"--swap_space": 4', "--swap_space", "4", "--swap-space", "remove"),
    "removed: disable-log-requests": in_arguments(
        '"disable-log-requests": True', "disable-log-requests", "True", "does not know", "enable-log-requests"
    ),
    "ours: model": in_arguments('"model": "x"', "model", "'x'", "Stoker sets this", "one instance serves one model"),
    "ours: port": in_arguments('"port": 8001', "port", "8001", "Stoker sets this", "field `port`"),
    "secret in an argument": in_arguments('"api-key": "x"', "api-key", "'x'", "Stoker sets", "process list"),
    "dashes in front": in_arguments('"--seed": 1', "--seed", "1", "without dashes in front", "write 'seed'"),
    "underscores": in_arguments('"max_logprobs": 5', "max_logprobs", "5", "- between words", "write 'max-logprobs'"),
    "list as an argument": Slip(
        LLM,
        '"block-size": 128',
        '"block-size": [128]',
        LLM,
        "vllm_qwen_gpu2",
        f"{FIELD}.arguments.block-size",
        "[128]",
        "one value",
        "JSON text",
    ),
    # Versions
    "an unknown firewall": in_settings(
        MORE, 'firewall = "strict"\n' + MORE, "firewall", "'strict'", "'off' or 'engines'", "one of these"
    ),
    "a network with bits of a host": in_settings(
        MORE,
        'engine_networks = ["10.0.0.0/8", "192.168.31.5/24"]\n' + MORE,
        "engine_networks[1]",
        "'192.168.31.5/24'",
        "bits beyond its prefix",
        "192.168.31.0/24",
    ),
    "no network": in_settings(
        MORE,
        'engine_networks = ["monitor.lan"]\n' + MORE,
        "engine_networks[0]",
        "'monitor.lan'",
        "no IP network",
        "/24",
    ),
    "latest": in_settings(
        "vllm-openai:v0.19.1",
        "vllm-openai:latest",
        "versions.vllm",
        "'vllm/vllm-openai:latest'",
        "`latest` changes",
        "name a version",
    ),
    "no tag": in_settings('"nginx:1.30.6-alpine"', '"nginx"', "versions.nginx", "'nginx'", "means `latest`", "VERSION"),
    "latest-something": in_settings(
        "ollama/ollama:0.32.15", "ollama/ollama:latest-rocm", "versions.ollama", "'ollama/ollama:latest-rocm'", "", ""
    ),
    "registry with a port and no tag": in_settings(
        '"nginx:1.30.6-alpine"',
        '"registry.example.org:5000/nginx"',
        "versions.nginx",
        "'registry.example.org:5000/nginx'",
        "means `latest`",
        "registry.example.org:5000/nginx:VERSION",
    ),
    "latest in one instance": in_qwen(
        '"port"', '"image": "x/y:latest", "port"', f"{FIELD}.image", "'x/y:latest'", "`latest` changes", "a version"
    ),
    "latest of the library": in_settings(
        '"library": "bge-m3:567m"',
        '"library": "bge-m3:latest"',
        "models.bge-m3",
        "{'library': 'bge-m3:latest', 'parameters': {'num_ctx': 8192, 'num_batch': 819...",
        "`latest` is the name under which",
        "versioned tag",
    ),
    "version as a number": in_settings(
        '"docker": "28.5.2"', '"docker": 28.5', "versions.docker", "28.5", "with a decimal point", "a text in quotes"
    ),
    # Models and settings
    "unknown field of a library model": in_settings(
        '"dimensions": 1024',
        '"dimension": 1024',
        "models.bge-m3.dimension",
        "1024",
        "no field of this name",
        "did you mean 'dimensions'?",
    ),
    "unknown field of a hub model": in_settings(
        '"repository": "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"',
        '"repo": 1, "repository": "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"',
        "models.qwen2.5-14b.repo",
        "1",
        "no field of this name",
        "directory, exclude, file, repository, revision",
    ),
    "repository without an owner": in_settings(
        '"Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"',
        '"Qwen2.5-14B"',
        "models.qwen2.5-14b.repository",
        "'Qwen2.5-14B'",
        "right form",
        "OWNER/NAME",
    ),
    "name of a model": in_settings(
        '"qwen2.5-14b": {',
        '"qwen 2.5": {"repository": "a/b", "directory": "b"}, "qwen2.5-14b": {',
        "models.qwen 2.5",
        "'qwen 2.5'",
        "right form",
        "letters",
    ),
    "model that is no dictionary": in_settings(
        '"llama3.1-8b": {', '"mistral": "x", "llama3.1-8b": {', "models.mistral", "'x'", "it is a text", "a dictionary"
    ),
    "mirror without a scheme": in_settings(
        MORE,
        'mirrors = {"hub": "hf-mirror.com"}\n#',
        "mirrors.hub",
        "'hf-mirror.com'",
        "right form",
        "begins with http:// or https://",
    ),
    "misspelt mirror": in_settings(
        MORE,
        'mirrors = {"hubs": "https://hf-mirror.com"}\n#',
        "mirrors.hubs",
        "'https://hf-mirror.com'",
        "no field of this name",
        "did you mean 'hub'?",
    ),
    "daemon.json's own settings": in_settings(
        MORE,
        'docker = {"daemon": {"log-opts": {}}}\n#',
        "docker.daemon",
        "{'log-opts': {}}",
        "set by Stoker itself",
        "log_max_size",
    ),
    # Top-level names
    "misspelt setting": Slip(
        LLM, "stacks = [", "stack = [", LLM, "", "stack", "", "no setting has this name", "did you mean 'stacks'?"
    ),
    "misspelt name in all.py": Slip(
        ALL, "versions = {", "version = {", ALL, "", "version", "", "no setting has", "did you mean 'versions'?"
    ),
    "name that nothing knows": Slip(
        LLM, "stacks = [", "colour = 1\nstacks = [", LLM, "", "colour", "1", "no setting has this name", "use one of"
    ),
    "misspelt data of one host": Slip(
        "inventory.py",
        '\nllm = ["192.168.31.10"]',
        '\nllm = [("192.168.31.10", {"gpu": 3})]',
        "inventory.py (192.168.31.10)",
        "",
        "gpu",
        "3",
        "no setting has this name",
        "did you mean 'gpus'?",
    ),
    # Gateways
    "pool without members": Slip(
        LLM,
        '{"name": "qwen", "model": "qwen2.5-14b"',
        '{"name": "qwen", "model": "qwen3"',
        LLM,
        "vllm_nginx",
        "gateway.pools['qwen'].model",
        "'qwen3'",
        "no instance in the fleet serves this model",
        "remove the pool",
    ),
    "pool on an unknown host": Slip(
        LLM,
        '"prefix": "/qwen"}',
        '"prefix": "/qwen", "hosts": ["gpu11"]}',
        LLM,
        "vllm_nginx",
        "gateway.pools['qwen'].hosts",
        "['gpu11']",
        "no such host",
        "use 192.168.31.10, 192.168.31.65",
    ),
    "gateway for nobody": Slip(
        LLM,
        '            "allowed_networks": ["192.168.31.0/24"],\n',
        "",
        LLM,
        "vllm_nginx",
        "gateway.allowed_networks",
        "[]",
        "nobody could use the gateway",
        '"allowed_networks": ["192.168.31.0/24"]',
    ),
    "no progress for longer than a start may take": Slip(
        LLM,
        "gpus = {",
        "ready_timeout = 300\nready_stall_timeout = 301\ngpus = {",
        LLM,
        "",
        "ready_stall_timeout",
        "301",
        "ready_timeout ends the wait after 300 s",
        "make it smaller",
    ),
    "strict without keys": Slip(
        LLM,
        "stacks = [",
        "strict = True\nstacks = [",
        LLM,
        "vllm_nginx",
        "gateway.keys",
        "[]",
        "`strict` asks for keys",
        "stoker key new NAME",
    ),
    # Files
    "syntax error": Slip(LLM, "stacks = [", "stacks = [[", f"{LLM}:29", "", "Python", "", "never closed", "correct"),
    "name error": Slip(
        LLM, "stacks = [", "stacks = more + [", f"{LLM}:29", "", "Python", "", "NameError: name 'more'", "correct"
    ),
    "import error": Slip(
        ALL, "versions = {", "import nosuch\nversions = {", f"{ALL}:4", "", "Python", "", "'nosuch'", "correct"
    ),
    "syntax error in the inventory": Slip(
        "inventory.py", "\nllm = [", "\nllm = = [", "inventory.py:7", "", "Python", "", "SyntaxError", "correct"
    ),
}


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_a_slip_is_explained(slip: Slip, tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit(slip.file, slip.old, slip.new)
    problems = description.problems()
    if slip.field == "gpu-memory-utilization" and not slip.instance:
        problems = problems[:1]  # both cards have the same one
        assert problems[0].instance == "vllm_llama_gpu0_0, vllm_llama_gpu0_1"
    elif slip.field == "gpu-memory-utilization":
        assert problems[0].instance.endswith(slip.instance)
    else:
        assert [problem.instance for problem in problems] == [slip.instance], [*map(str, problems)]
    (problem,) = problems
    assert (problem.where, problem.field) == (slip.where, slip.field)
    assert problem.value == slip.value or not slip.value
    assert slip.reason in problem.reason
    assert slip.remedy in problem.remedy


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit(ALL, "vllm-openai:v0.19.1", "vllm-openai:latest")
    description.edit(LLM, QWEN, QWEN.replace("11405", '"11405"').replace("[2]", "2"))
    description.edit(EMBEDDING, '"gpus": [1]', '"gpus": [7]')
    description.append("group_data/lmm.py", "ready_timeout = 5\n")
    description.append(EMBEDDING, "stak = 1\n")
    answer = description.ask()
    assert {(problem.where, problem.field) for problem in answer.problems} == {
        ("group_data/lmm.py", "file name"),
        (ALL, "versions.vllm"),
        (LLM, f"{FIELD}.port"),
        (LLM, f"{FIELD}.gpus"),
        (EMBEDDING, "gpus"),
        (EMBEDDING, "stak"),
    }
    assert answer.message.startswith("6 problems in the description; no host was contacted.\n")
    assert "vllm_qwen_gpu2: stacks[0].instances[4].port = '11405'\n    why:    it is a text\n" in answer.message


def test_independent_problems_of_the_whole_host_are_told_at_once(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit(LLM, QWEN, QWEN.replace("11405", "11401").replace("[2]", "[3]"))
    description.edit(EMBEDDING, '"gpus": [1]', '"gpus": [7]')
    found = [(problem.where, problem.field, problem.value) for problem in description.problems()]
    assert found == [(LLM, "port", "11401"), (LLM, "gpus", "[3]"), (EMBEDDING, "gpus", "[7]")]


def test_several_problems_of_one_instance_are_told_at_once(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit(LLM, "11405", "114050")
    description.edit(LLM, '"max-model-len": 16384', '"max-model-length": 16384')
    found = {(problem.instance, problem.field) for problem in description.problems()}
    assert found == {
        ("vllm_qwen_gpu2", "stacks[0].instances[4].port"),
        ("vllm_qwen_gpu2", "arguments['max-model-length']"),
    }


def test_strict_closes_the_engines_ports() -> None:
    def change(data: Data) -> None:
        data["all"]["strict"] = True
        for group in ("llm", "embedding"):
            data[group]["stacks"][0]["gateway"]["keys"] = [{"name": "team-a", "sha256": "a" * 64}]

    assert {host.settings.firewall for host in make_fleet(change).hosts} == {"engines"}


def test_an_engine_with_a_key_of_its_own_behind_a_gateway_with_keys(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit(LLM, QWEN, QWEN.replace("}", ', "environment": {"VLLM_API_KEY": "secret"}}'))
    description.edit(LLM, '"port": 11434,', f'"port": 11434, "keys": [{{"name": "team-a", "sha256": "{"a" * 64}"}}],')
    (problem,) = description.problems()
    assert (problem.instance, problem.field, problem.value) == ("vllm_nginx", "gateway.keys", "['team-a']")
    assert "vllm_qwen_gpu2 wants a key of its own" in problem.reason


def test_a_problem_in_an_overlay_is_told_with_the_overlays_file(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.append("site/all.py", 'mirrors = {"hub": "hf-mirror.com"}\n')
    description.append("site/embedding.py", 'gpus = {"count": 1, "card": "P40", "memory_gib": 24}\n')
    description.append("site/llms.py", "ready_timeout = 20\n")
    found = {problem.where: problem.field for problem in description.problems(["site"])}
    assert found == {"site/all.py": "mirrors.hub", "site/llms.py": "file name", EMBEDDING: "gpus"}


def test_group_data_without_a_group(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.append("group_data/lmm.py", "ready_timeout = 5\n")
    assert description.problems() == (
        Problem(
            "group_data/lmm.py",
            "file name",
            "",
            "no group in the inventory has this name, so nothing reads the file",
            "rename the file to a group of inventory.py (or all.py), or add the group",
        ),
    )


@pytest.mark.parametrize(
    ("host", "value", "reason"),
    [
        ('"@local"', "", "@local has none, and no gateway and no client can use that name as one"),
        *(
            (
                f'("@local", {{"address": "{loopback}"}})',
                f"'{loopback}'",
                "in the container of vllm_nginx this leads to the container itself, not to @local",
            )
            for loopback in ("127.0.0.1", "localhost")
        ),
    ],
)
def test_this_machine_needs_the_address_by_which_others_reach_it(
    host: str, value: str, reason: str, tmp_path: Path
) -> None:
    description = Description.copy(tmp_path)
    description.edit("inventory.py", 'llm = ["192.168.31.10"]', f"llm = [{host}]")
    assert description.problems() == (
        Problem(
            "inventory.py (@local)",
            "address",
            value,
            reason,
            'give this machine\'s address in its network: ("@local", {"address": "192.168.31.40"})',
        ),
    )


def test_this_machine_among_others(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit("inventory.py", 'llm = ["192.168.31.10"]', 'llm = [("@local", {"address": "192.168.31.10"})]')
    assert [host.address for host in description.load().hosts] == ["192.168.31.10", "192.168.31.65"]


def test_a_list_that_is_no_group_names_the_host_it_makes(tmp_path: Path) -> None:
    """pyinfra takes every list of texts in an inventory for a group of hosts."""
    description = Description.copy(tmp_path)
    description.append("inventory.py", 'MODELS = ["bge-m3"]\n')
    (stacks,) = description.problems()
    assert stacks.field == "stacks"
    assert stacks.reason == "bge-m3 has none, and there is no default"
    assert stacks.remedy == "add 'stacks', or take bge-m3 out of the inventory"


@pytest.mark.parametrize(
    ("inventory", "overlays", "where", "reason"),
    [
        ("inventroy.py", [], "inventroy.py", "there is no such file"),
        ("inventory.py", ["sites"], "sites", "there is no such directory"),
    ],
)
def test_names_on_the_command_line(
    inventory: str, overlays: list[str], where: str, reason: str, tmp_path: Path
) -> None:
    (problem,) = Description.copy(tmp_path).problems(overlays, inventory)
    assert (problem.where, problem.reason) == (where, reason)


def test_an_inventory_without_hosts(tmp_path: Path) -> None:
    (tmp_path / "inventory.py").write_text("llm = []\n")
    (problem,) = Description(tmp_path).problems()
    assert problem.reason == "the inventory holds no hosts"


def test_one_key_of_a_json_argument(tmp_path: Path) -> None:
    """vLLM takes --compilation-config.cudagraph_mode; only the argument's own name is written with dashes."""
    description = Description.copy(tmp_path)
    description.edit(LLM, '"block-size": 128', '"block-size": 128, "compilation-config.cudagraph_mode": "NONE"')
    assert description.load()
