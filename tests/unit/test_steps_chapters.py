"""Each step against states of a host: everything on a bare one, nothing on a converged one, exactly what deviates else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.fleet import Data, instances
from support.states import DRIVER, bare, converged, fleet_and_host, manifest, steps
from support.stubs import Stubs

from stoker.facts.paths import HOST_LOCKS
from stoker.facts.state import Container, FileState, HostState
from stoker.render.compose import stack_directory
from stoker.spec.fleet import Fleet, Host
from stoker.steps.layout import PROBES

DAEMON_JSON = "/etc/docker/daemon.json"
DOCKER_KEY = "/etc/apt/keyrings/docker.asc"
LLAMA = "/data/projects/models/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"
MANIFESTS = "/data/ollama_models/models/manifests/registry.ollama.ai/library/bge-m3"

#: Chapter -> descriptions of its actions.
Plan = dict[str, list[str]]


def plan(fleet: Fleet, host: Host, state: HostState, only: tuple[str, ...] = ()) -> Plan:
    chapters = steps(fleet, host, state, only)
    return {name: [str(action) for action in actions] for name, actions in chapters.items()}


def test_a_bare_llm_host_needs_everything() -> None:
    fleet, host = fleet_and_host("llm")
    found = plan(fleet, host, bare(host))
    assert list(found) == [
        "sources",
        "base",
        "docker",
        "driver",
        "toolkit",
        "layout",
        "images",
        "probes",
        "models",
        "files",
        "containers",
    ]
    assert found["sources"][-1] == (
        "write /etc/apt/sources.list.d/docker.sources, /etc/apt/sources.list.d/nvidia-container-toolkit.sources "
        "and refresh the package lists"
    )
    assert found["docker"] == [
        "merge settings into daemon.json",
        "install docker-ce 5:28.5.2, docker-ce-cli 5:28.5.2, containerd.io, docker-buildx-plugin, docker-compose-plugin 2.40.3",
        "start Docker, now and at boot",
    ]
    assert found["driver"] == [
        "pin the driver to branch 580: write /etc/apt/preferences.d/stoker-nvidia",
        "hold libcuda1, nvidia-driver-cuda, nvidia-kernel-dkms",
    ]
    assert found["images"] == ["pull vllm/vllm-openai:v0.19.1", "pull nginx:1.30.6-alpine"]
    assert found["probes"] == ["prove that vllm/vllm-openai:v0.19.1 computes on 3 x Tesla V100-SXM2-32GB"]
    assert found["models"] == [
        f"bring hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4 to {LLAMA} and verify it",
        "bring Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8 to /data/projects/models/Qwen2.5-14B-Instruct-GPTQ-Int8 and verify it",
    ]
    assert found["containers"] == [
        "vllm_llama_gpu0_0: create; vllm_llama_gpu0_1: create; vllm_llama_gpu1_0: create; vllm_llama_gpu1_1: create; "
        "vllm_qwen_gpu2: create; vllm_nginx: create"
    ]


def test_a_bare_embedding_host_needs_everything() -> None:
    fleet, host = fleet_and_host("embedding")
    found = plan(fleet, host, bare(host))
    assert found["ollama"] == [
        "pull bge-m3:567m through ollama_bge_0",
        "make bge-m3 from bge-m3:567m with num_ctx 8192, num_batch 8192",
    ]
    assert found["probes"] == ["prove that ollama/ollama:0.32.15 computes on 2 x Tesla P40"]
    assert "models" not in found


@pytest.mark.parametrize("group", ["llm", "embedding"])
def test_a_converged_host_needs_nothing(group: str) -> None:
    fleet, host = fleet_and_host(group)
    assert plan(fleet, host, converged(fleet, host)) == {}


@dataclass(frozen=True)
class Deviation:
    """A converged host with one thing changed, and all that the steps then want."""

    change: Callable[[Host, HostState], HostState]
    wanted: Plan
    group: str = "llm"


def without_file(path: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, files={name: f for name, f in state.files.items() if name != path})


def with_file(path: str, **changes: str) -> Callable[[Host, HostState], HostState]:
    def change(host: Host, state: HostState) -> HostState:
        old = state.files.get(path, FileState("regular file", "644", "root", "root"))
        return replace(state, files={**state.files, path: replace(old, **changes)})

    return change


def with_content(path: str, text: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, contents={**state.contents, path: text})


def with_package(name: str, version: str | None) -> Callable[[Host, HostState], HostState]:
    def change(host: Host, state: HostState) -> HostState:
        packages = {**state.packages, name: version or ""}
        return replace(state, packages={key: value for key, value in packages.items() if value})

    return change


def with_container(name: str, **changes: Any) -> Callable[[Host, HostState], HostState]:
    def change(host: Host, state: HostState) -> HostState:
        return replace(state, containers={**state.containers, name: replace(state.containers[name], **changes)})

    return change


def with_stray(project: str, configuration: str = "") -> Callable[[Host, HostState], HostState]:
    """A running container that nothing describes; one of Stoker's when it has a configuration."""

    def change(host: Host, state: HostState) -> HostState:
        stray = Container(
            "old_vllm", "f" * 64, "sha256:1", "running", "2026-11-01T10:00:00Z", 0, configuration, project
        )
        return replace(state, containers={**state.containers, stray.name: stray})

    return change


def without_container(name: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, containers={k: c for k, c in state.containers.items() if k != name})


def with_model_file(path: str, size: int | None) -> Callable[[Host, HostState], HostState]:
    def change(host: Host, state: HostState) -> HostState:
        files = {**state.model_files[LLAMA], path: size}
        there = {name: bytes_ for name, bytes_ in files.items() if bytes_ is not None}
        return replace(state, model_files={**state.model_files, LLAMA: there})

    return change


def with_driver(version: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, driver=version)


def with_image(reference: str, identity: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, images={**state.images, reference: identity})


def with_unit(unit: str, words: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, units={**state.units, unit: words})


def without_unit(unit: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, units={name: w for name, w in state.units.items() if name != unit})


def with_answer(name: str, text: str) -> Callable[[Host, HostState], HostState]:
    return lambda host, state: replace(state, answers={**state.answers, name: text})


def all_containers(status: str) -> Callable[[Host, HostState], HostState]:
    def change(host: Host, state: HostState) -> HostState:
        return replace(state, containers={name: replace(c, status=status) for name, c in state.containers.items()})

    return change


def other_daemon_json(host: Host, state: HostState) -> HostState:
    settings = json.loads(state.contents[DAEMON_JSON])
    settings["log-opts"]["max-size"] = "10m"
    return replace(state, contents={**state.contents, DAEMON_JSON: json.dumps(settings)})


FETCH_LLAMA = {"models": [f"bring hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4 to {LLAMA} and verify it"]}
MAKE_BGE = {"ollama": ["make bge-m3 from bge-m3:567m with num_ctx 8192, num_batch 8192"]}
SOURCES_FILE = "/etc/apt/sources.list.d/docker.sources"
DROP_IN = "/etc/systemd/system/docker.service.d/stoker.conf"
COMPOSE = "/opt/stoker/memoryx-hybrid/memoryx-hybrid.yaml"
GATEWAY = "/opt/stoker/memoryx-hybrid/gateway"
GATEWAY_FILES = ("health.js", "members.js", "metrics.js", "nginx-hybrid.conf", "router.js")
LOCK = f"{HOST_LOCKS}/GPU-00000001-5b8e-47c1-9d2a-000000000001.lock"
PROOF = f"{PROBES}/vllm-vllm_vllm-openai_v0.19.1"

DEVIATIONS = {
    # Package sources
    "repository file missing": Deviation(
        without_file(SOURCES_FILE), {"sources": [f"write {SOURCES_FILE} and refresh the package lists"]}
    ),
    "repository file changed": Deviation(
        with_file(SOURCES_FILE, digest="00" * 32),
        {"sources": [f"write {SOURCES_FILE} and refresh the package lists"]},
    ),
    "key of another owner": Deviation(
        with_content(DOCKER_KEY, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"),
        {
            "sources": [
                "fetch the key of docker from https://download.docker.com/linux/debian/gpg",
                "write nothing new and refresh the package lists",
            ]
        },
    ),
    "left by an earlier installation": Deviation(
        with_file("/etc/apt/sources.list.d/nvidia-docker.list"),
        {
            "sources": [
                "set aside old package sources: /etc/apt/sources.list.d/nvidia-docker.list",
                "write nothing new and refresh the package lists",
            ]
        },
    ),
    # Packages
    "base package missing": Deviation(with_package("curl", None), {"base": ["install curl"]}),
    "older Docker": Deviation(
        with_package("docker-ce", "5:27.5.1-1~debian.13~trixie"),
        {
            "docker": [
                "install docker-ce 5:28.5.2 (INTERRUPTS 6 running containers)",
                "start Docker, now and at boot",
            ]
        },
    ),
    "version that only begins alike": Deviation(
        with_package("docker-compose-plugin", "2.40.30-1~debian.13~trixie"),
        {"docker": ["install docker-compose-plugin 2.40.3", "start Docker, now and at boot"]},
    ),
    "toolkit library missing": Deviation(
        with_package("libnvidia-container1", None),
        {
            "toolkit": [
                "install libnvidia-container1 1.20.0-1",
                "describe 3 GPUs for containers in /var/run/cdi/nvidia.yaml",
            ]
        },
    ),
    # Docker
    "daemon.json says otherwise": Deviation(
        other_daemon_json,
        {"docker": ["merge settings into daemon.json and restart dockerd (INTERRUPTS 6 running containers)"]},
    ),
    "daemon.json missing": Deviation(
        with_content(DAEMON_JSON, ""),
        {"docker": ["merge settings into daemon.json and restart dockerd (INTERRUPTS 6 running containers)"]},
    ),
    "Docker not enabled at boot": Deviation(
        with_unit("docker.service", "active disabled"), {"docker": ["start Docker, now and at boot"]}
    ),
    # Cards
    "card not described for containers": Deviation(
        with_content("/var/run/cdi/nvidia.yaml", ""),
        {"toolkit": ["describe 3 GPUs for containers in /var/run/cdi/nvidia.yaml"]},
    ),
    "persistence daemon stopped": Deviation(
        with_unit("nvidia-persistenced.service", "inactive enabled"),
        {"toolkit": ["start nvidia-persistenced, now and at boot"]},
    ),
    "no persistence daemon": Deviation(without_unit("nvidia-persistenced.service"), {}),
    "Docker is not ordered after the cards at boot": Deviation(
        without_file(DROP_IN), {"toolkit": [f"order Docker after the GPUs at boot: write {DROP_IN}"]}
    ),
    "a device is not described": Deviation(
        with_content("/var/run/cdi/nvidia.yaml", "GPU-00000000-5b8e-47c1-9d2a-000000000000"),
        {"toolkit": ["describe 3 GPUs for containers in /var/run/cdi/nvidia.yaml"]},
    ),
    "driver changed since the proof": Deviation(
        with_driver("580.200.01"),
        {"probes": ["prove that vllm/vllm-openai:v0.19.1 computes on 3 x Tesla V100-SXM2-32GB"]},
    ),
    "never proven": Deviation(
        with_content(PROOF, ""),
        {"probes": ["prove that vllm/vllm-openai:v0.19.1 computes on 3 x Tesla V100-SXM2-32GB"]},
    ),
    # Directories and tools
    "directory missing": Deviation(
        without_file("/var/lib/stoker/ready"), {"layout": ["make 1 directories: /var/lib/stoker/ready"]}
    ),
    "secrets readable by others": Deviation(
        with_file("/etc/stoker", mode="755"), {"layout": ["make 1 directories: /etc/stoker"]}
    ),
    "model directory of another user": Deviation(
        with_file("/data/projects/models", mode="2775", owner="ml", group="ml"), {}
    ),
    "lock file missing": Deviation(without_file(LOCK), {"layout": [f"make 1 GPU lock files in {HOST_LOCKS}"]}),
    "wrapper edited on the host": Deviation(
        with_file("/opt/stoker/bin/gpu-turn.py", digest="00" * 32),
        {"layout": ["write /opt/stoker/bin/gpu-turn.py"]},
    ),
    "wrapper not executable": Deviation(
        with_file("/opt/stoker/bin/gpu-turn.py", mode="644"), {"layout": ["write /opt/stoker/bin/gpu-turn.py"]}
    ),
    # Models
    "no manifest": Deviation(with_content(f"{LLAMA}/.stoker-manifest.json", ""), FETCH_LLAMA),
    "manifest of another model": Deviation(
        with_content(f"{LLAMA}/.stoker-manifest.json", manifest("someone/else")), FETCH_LLAMA
    ),
    "manifest of another revision": Deviation(
        with_content(
            f"{LLAMA}/.stoker-manifest.json", manifest("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", "v2")
        ),
        FETCH_LLAMA,
    ),
    "half a manifest": Deviation(with_content(f"{LLAMA}/.stoker-manifest.json", '{"repository": '), FETCH_LLAMA),
    "manifest without files": Deviation(
        with_content(
            f"{LLAMA}/.stoker-manifest.json",
            '{"repository": "hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", "revision": "main", "files": []}',
        ),
        FETCH_LLAMA,
    ),
    "model file missing": Deviation(with_model_file("model.safetensors", None), FETCH_LLAMA),
    "model file shorter": Deviation(with_model_file("model.safetensors", 4_999_999), FETCH_LLAMA),
    "more files than listed": Deviation(with_model_file("notes.txt", 5), {}),
    # Stack files
    "compose file edited on the host": Deviation(with_file(COMPOSE, digest="00" * 32), {"files": [f"write {COMPOSE}"]}),
    "compose file writable by another user": Deviation(
        with_file(COMPOSE, owner="operator"), {"files": [f"write {COMPOSE}"]}
    ),
    "one gateway file missing": Deviation(
        without_file(f"{GATEWAY}/router.js"),
        {"files": [f"write {', '.join(f'{GATEWAY}/{name}' for name in GATEWAY_FILES)}"]},
    ),
    # Containers
    "stopped": Deviation(
        with_container("vllm_qwen_gpu2", status="exited"),
        {"containers": ["vllm_qwen_gpu2: start, it is exited"]},
    ),
    "crashing": Deviation(
        with_container("vllm_qwen_gpu2", status="restarting"),
        {"containers": ["vllm_qwen_gpu2: start anew, it ends again and again"]},
    ),
    "removed": Deviation(without_container("vllm_llama_gpu0_1"), {"containers": ["vllm_llama_gpu0_1: create"]}),
    "made from another description": Deviation(
        with_container("vllm_llama_gpu1_0", configuration="0123456789abcdef"),
        {
            "containers": [
                "vllm_llama_gpu1_0: recreate, its description changed (INTERRUPTS vllm_llama_gpu1_0)",
            ]
        },
    ),
    "image pulled anew under the same tag": Deviation(
        with_image("nginx:1.30.6-alpine", "sha256:9999"),
        {
            "containers": [
                "vllm_nginx: recreate, nginx:1.30.6-alpine is another image now (INTERRUPTS vllm_nginx)",
            ]
        },
    ),
    "image removed under a running container": Deviation(
        with_image("nginx:1.30.6-alpine", ""), {"images": ["pull nginx:1.30.6-alpine"]}
    ),
    "no longer described": Deviation(
        with_stray("memoryx-hybrid", configuration="0123456789abcdef"),
        {"containers": ["remove containers that are no longer described: old_vllm (INTERRUPTS old_vllm)"]},
    ),
    "its whole project is no longer described": Deviation(
        with_stray("old-project", configuration="0123456789abcdef"),
        {
            "containers": [
                "remove containers of projects that are no longer described: old_vllm (INTERRUPTS old_vllm)",
            ]
        },
    ),
    "a stranger's container": Deviation(with_stray("grafana"), {}),
    "a stranger's container under the project's name": Deviation(with_stray("memoryx-hybrid"), {}),
    "all stopped": Deviation(
        all_containers("exited"),
        {
            "containers": [
                "vllm_llama_gpu0_0: start, it is exited; vllm_llama_gpu0_1: start, it is exited; "
                "vllm_llama_gpu1_0: start, it is exited; vllm_llama_gpu1_1: start, it is exited; "
                "vllm_qwen_gpu2: start, it is exited; vllm_nginx: start, it is exited"
            ]
        },
    ),
    # Ollama
    "library model removed": Deviation(
        without_file(f"{MANIFESTS}/567m"),
        {"ollama": ["pull bge-m3:567m through ollama_bge_0", *MAKE_BGE["ollama"]]},
        group="embedding",
    ),
    "served model removed": Deviation(without_file(f"{MANIFESTS}/latest"), MAKE_BGE, group="embedding"),
    "served model overwritten by a pull": Deviation(
        with_file(f"{MANIFESTS}/latest", digest="cd" * 32), MAKE_BGE, group="embedding"
    ),
    "no record of how it was made": Deviation(
        with_content("/var/lib/stoker/models/ollama-bge-m3_data_ollama_models", ""), MAKE_BGE, group="embedding"
    ),
    # Gateway
    "nginx runs an old configuration": Deviation(
        with_answer("gateway-memoryx-hybrid", "000000000000"), {"gateway": []}
    ),
    "nginx does not answer": Deviation(with_answer("gateway-memoryx-hybrid", ""), {"gateway": []}),
}


@pytest.mark.parametrize("deviation", DEVIATIONS.values(), ids=DEVIATIONS)
def test_a_deviation_is_put_right_and_nothing_else(deviation: Deviation) -> None:
    fleet, host = fleet_and_host(deviation.group)
    found = plan(fleet, host, deviation.change(host, converged(fleet, host)))
    for action in found.get("gateway", []):
        assert action.startswith("reload vllm_nginx with configuration ")
        found["gateway"] = []
    assert found == deviation.wanted


def test_only_one_instance_is_touched_when_asked_so() -> None:
    fleet, host = fleet_and_host("llm")
    state = with_stray("memoryx-hybrid")(host, all_containers("exited")(host, converged(fleet, host)))
    assert plan(fleet, host, state, only=("vllm_qwen_gpu2",)) == {"containers": ["vllm_qwen_gpu2: start, it is exited"]}


def test_a_changed_argument_concerns_one_container_and_the_compose_file() -> None:
    _, before = fleet_and_host("llm")
    old_fleet, _ = fleet_and_host("llm")
    state = converged(old_fleet, before)

    def change(data: Data) -> None:
        qwen = instances(data, "llm")[4]
        qwen["arguments"] = {**qwen["arguments"], "max-model-len": 8192}

    fleet, host = fleet_and_host("llm", change)
    assert plan(fleet, host, state) == {
        "files": [f"write {COMPOSE}"],
        "containers": ["vllm_qwen_gpu2: recreate, its description changed (INTERRUPTS vllm_qwen_gpu2)"],
    }


def test_a_new_engine_version_pulls_proves_and_replaces() -> None:
    old_fleet, old_host = fleet_and_host("llm")

    def change(data: Data) -> None:
        data["all"]["versions"]["vllm"] = "vllm/vllm-openai:v0.19.0"

    fleet, host = fleet_and_host("llm", change)
    found = plan(fleet, host, converged(old_fleet, old_host))
    assert list(found) == ["images", "probes", "files", "containers"]
    assert found["images"] == ["pull vllm/vllm-openai:v0.19.0"]
    (containers,) = found["containers"]
    assert containers.count("recreate") == 5
    assert "vllm_nginx" not in containers


def test_a_card_that_an_image_has_not_used_before_is_proven() -> None:
    """An instance moves from GPU 2 to GPU 1: the image was proven on the cards that were used until then."""

    def on_two_cards(data: Data) -> None:
        data["llm"]["stacks"][0]["instances"] = instances(data, "llm")[:2]
        data["llm"]["stacks"][0]["gateway"]["pools"].pop()
        data["embedding"]["stacks"][0]["gateway"]["pools"].pop()

    old_fleet, old_host = fleet_and_host("llm", on_two_cards)
    state = converged(old_fleet, old_host)
    state = with_content(PROOF, f"{state.images['vllm/vllm-openai:v0.19.1']} {DRIVER} {state.gpus[0].uuid}\n")(
        old_host, state
    )
    assert plan(old_fleet, old_host, state) == {}

    fleet, host = fleet_and_host("llm")
    assert plan(fleet, host, state)["probes"] == [
        "prove that vllm/vllm-openai:v0.19.1 computes on 2 x Tesla V100-SXM2-32GB"
    ]


def test_images_that_differ_only_in_their_registry_have_proofs_of_their_own() -> None:
    def change(data: Data) -> None:
        instances(data, "llm")[4]["image"] = "registry.example.org/vllm-openai:v0.19.1"

    fleet, host = fleet_and_host("llm", change)
    state = converged(fleet, host)
    assert len({path for path in state.contents if path.startswith(PROBES)}) == 2


def test_a_gateway_that_is_about_to_be_replaced_is_not_reloaded() -> None:
    fleet, host = fleet_and_host("llm")
    state = with_answer("gateway-memoryx-hybrid", "000000000000")(host, converged(fleet, host))
    state = with_container("vllm_nginx", configuration="0123456789abcdef")(host, state)
    assert list(plan(fleet, host, state)) == ["containers"]


def test_nginx_judges_the_whole_set_of_files() -> None:
    fleet, host = fleet_and_host("llm")
    state = without_file(f"{stack_directory(host, host.stacks[0])}/gateway/router.js")(host, converged(fleet, host))
    (action,) = steps(fleet, host, state)["files"]
    assert "nginx -t -q -c /etc/nginx/stoker/nginx-hybrid.conf" in action.script
    assert "docker compose" not in action.script


def test_compose_judges_the_compose_file() -> None:
    fleet, host = fleet_and_host("llm")
    state = without_file(COMPOSE)(host, converged(fleet, host))
    (action,) = steps(fleet, host, state)["files"]
    assert 'docker compose -f "$new"/memoryx-hybrid.yaml config -q' in action.script
    assert "nginx -t" not in action.script


def test_only_what_differs_is_given_to_compose() -> None:
    fleet, host = fleet_and_host("llm")
    containers = converged(fleet, host).containers
    without = {name: one for name, one in containers.items() if name != "vllm_qwen_gpu2"}
    (action,) = steps(fleet, host, replace(converged(fleet, host), containers=without))["containers"]
    assert action.script == f"{COMPOSE_UP} vllm-qwen-gpu2"


def test_what_ends_again_and_again_is_started_anew() -> None:
    """Its last death may be of a trouble that this very deploy puts right, and Docker may be a minute away from its next try."""
    fleet, host = fleet_and_host("llm")
    state = with_container("vllm_qwen_gpu2", status="restarting")(host, converged(fleet, host))
    state = with_container("vllm_llama_gpu0_0", status="exited")(host, state)
    (action,) = steps(fleet, host, state)["containers"]
    assert "vllm_qwen_gpu2: start anew, it ends again and again" in str(action)
    restart, up = action.script.split(" && ", 1)
    assert restart == f"{COMPOSE_UP.removesuffix(' up -d --no-deps --pull never')} restart --no-deps vllm-qwen-gpu2"
    assert "vllm-qwen-gpu2" not in up
    assert f"{COMPOSE_UP} vllm-llama-gpu0-0" in up


COMPOSE_UP = (
    "docker compose --ansi never --progress quiet -f /opt/stoker/memoryx-hybrid/memoryx-hybrid.yaml "
    "up -d --no-deps --pull never"
)
LEFT = "runc create failed: container's cgroup is not empty: 1 process(es) found"


@pytest.mark.parametrize(
    ("said", "status", "calls"),
    [
        ("", 0, ["vllm-qwen-gpu2"]),
        ("no such image", 1, ["vllm-qwen-gpu2"]),
        (LEFT, 0, ["vllm-qwen-gpu2", "--force-recreate vllm-qwen-gpu2", "vllm-qwen-gpu2"]),
    ],
)
def test_a_container_that_cannot_be_started_again_is_made_anew(
    said: str, status: int, calls: list[str], tmp_path: Path
) -> None:
    fleet, host = fleet_and_host("llm")
    state = with_container("vllm_qwen_gpu2", status="exited")(host, converged(fleet, host))
    (action,) = steps(fleet, host, state)["containers"]
    stubs = Stubs(tmp_path / "stubs")
    mended = tmp_path / "mended"
    stubs.add(
        "docker",
        f'echo "docker $*" >>{stubs.folder}/called.txt; case $* in *--force-recreate*) touch {mended};; esac; '
        f'test -z "{said}" || test -e {mended} || {{ echo "{said}" >&2; exit 1; }}',
    )
    done = stubs.run(action.script)
    assert done.returncode == status, done
    assert [call.removeprefix(f"{COMPOSE_UP} ") for call in stubs.called()] == calls
    assert said in done.stdout


def test_a_model_can_be_read_again_after_its_manifest_is_lost() -> None:
    """The fetch goes into the same directory, so files that are right are kept."""
    fleet, host = fleet_and_host("llm")
    state = with_content(f"{LLAMA}/.stoker-manifest.json", "")(host, converged(fleet, host))
    (action,) = steps(fleet, host, state)["models"]
    assert action.long
    assert "--volume /data/projects/models:/models" in action.script
    assert "fetch-model.py /models/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4 hugging-quants/" in action.script


def test_a_paused_container_is_woken() -> None:
    """Compose leaves it paused."""
    fleet, host = fleet_and_host("llm")
    state = with_container("vllm_qwen_gpu2", status="paused")(host, converged(fleet, host))
    (action,) = steps(fleet, host, state)["containers"]
    assert action.description == "vllm_qwen_gpu2: start, it is paused"
    assert "docker unpause vllm_qwen_gpu2" in action.script


def from_the_distribution(data: Data) -> None:
    data["all"]["docker"] = {"source": "distribution"}


def test_a_host_with_the_distributions_docker_converges_too() -> None:
    fleet, host = fleet_and_host("llm", from_the_distribution)
    assert plan(fleet, host, converged(fleet, host)) == {}


def test_a_host_changes_to_the_distributions_docker() -> None:
    old_fleet, old_host = fleet_and_host("llm")
    state = converged(old_fleet, old_host)
    fleet, host = fleet_and_host("llm", from_the_distribution)
    found = plan(fleet, host, state)
    assert found["docker"] == [
        "merge settings into daemon.json",
        "install docker.io, docker-cli, docker-compose instead of docker-ce, docker-ce-cli, containerd.io, "
        "docker-buildx-plugin, docker-compose-plugin (INTERRUPTS 6 running containers)",
        "start Docker, now and at boot",
    ]
    assert "vllm_nginx: recreate" not in found["containers"][0]


def test_dockers_own_packages_take_the_place_of_the_distributions() -> None:
    fleet, host = fleet_and_host("llm")
    state = with_package("docker.io", "20.10.24+dfsg1-1+deb12u1")(host, bare(host))
    _, install, _ = steps(fleet, host, state)["docker"]
    assert install.description.endswith("docker-compose-plugin 2.40.3 instead of docker.io")
    assert install.script.count(" docker.io-") == 2  # also after the lists were refreshed


def test_with_the_distributions_docker_it_is_restarted_to_find_the_toolkit() -> None:
    fleet, host = fleet_and_host("llm", from_the_distribution)
    state = with_package("nvidia-container-toolkit", None)(host, converged(fleet, host))
    assert plan(fleet, host, state)["toolkit"] == [
        "install nvidia-container-toolkit 1.20.0-1",
        "restart Docker so that it finds the toolkit (INTERRUPTS 6 running containers)",
    ]


def test_one_instance_needs_only_its_own_model_image_and_card() -> None:
    fleet, host = fleet_and_host("llm")
    found = plan(fleet, host.only(["vllm_qwen_gpu2"]), bare(host), only=("vllm_qwen_gpu2",))
    assert found["images"] == ["pull vllm/vllm-openai:v0.19.1"]
    assert found["probes"] == ["prove that vllm/vllm-openai:v0.19.1 computes on 1 x Tesla V100-SXM2-32GB"]
    assert len(found["models"]) == 1
    assert host.only([]) is host


def test_what_was_proven_on_other_cards_stays_proven() -> None:
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    image, first = state.images["vllm/vllm-openai:v0.19.1"], state.gpus[0].uuid
    state = with_content(PROOF, f"{image} {DRIVER} {first}\n")(host, state)
    (action,) = steps(fleet, host.only(["vllm_qwen_gpu2"]), state)["probes"]
    assert f"$id {DRIVER} {first} {state.gpus[2].uuid}" in action.script
    assert first not in action.script.partition("docker image inspect")[0]
