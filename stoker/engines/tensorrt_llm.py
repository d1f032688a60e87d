"""TensorRT-LLM's server (`trtllm-serve`), on cards from Ampere on. Written from its documentation (1.1); nobody has run this part of Stoker
on a card. Its arguments have underscores; here they are written with dashes, as everywhere."""

from __future__ import annotations

import re

from stoker.engine import turn
from stoker.engine.argv import LISTENS, count_problem, form_problems, plain_argv, share_of, share_problem
from stoker.engine.engine import Arguments, Container, Engine, Paths, Place, Published
from stoker.engine.health import by_python
from stoker.engine.marks import progress_by
from stoker.engine.mounts import CACHE, turn_volumes
from stoker.engine.proofs import TORCH
from stoker.plan.compatibility.row import Row
from stoker.ready.failures_memory import MEMORY_FAILURES
from stoker.ready.phase import Phase
from stoker.spec.gateway import Kind
from stoker.spec.profile import Profile
from stoker.spec.settings import FilesModel
from stoker.spec.vllm import Finding

_PORT = 8000
_MODELS = "/models"
_HEALTH = f"http://127.0.0.1:{_PORT}/health"
#: Its own default of --free_gpu_memory_fraction: of what the weights leave free, so nearly the whole card.
_SHARE = 0.9

_OURS = {
    "served-model-name": "it is the instance's field `model`",
    **LISTENS,
    "tokenizer": "it lies in the model's directory",
}


def _problems(arguments: Arguments, version: str) -> list[Finding]:
    return [
        *form_problems(arguments, _OURS, "TensorRT-LLM"),
        *count_problem(arguments, "max-seq-len"),
        *count_problem(arguments, "max-batch-size"),
        *count_problem(arguments, "tp-size"),
        *share_problem(arguments, "free-gpu-memory-fraction"),
    ]


def _kind(arguments: Arguments) -> Kind:
    return "chat"


def _container(place: Place) -> Container:
    instance, model = place.instance, place.host.model_of(place.instance)
    assert isinstance(model, FilesModel)  # the spec refuses an engine that cannot serve the model
    # 1.1 has no option for the name (that came with pull request 11711, in 2026): it serves a directory under the directory's own name. So the
    # model is mounted under the one that it is to have; a name with / or : is not possible.
    served = f"{_MODELS}/{instance.model}"
    arguments = {name.replace("-", "_"): value for name, value in instance.arguments.items()}
    return Container(
        entrypoint=(*turn.entrypoint(place, _HEALTH, served), "trtllm-serve"),
        command=(
            served,
            *("--host", "0.0.0.0", "--port", str(_PORT)),
            *plain_argv(arguments),
        ),
        volumes=(
            f"{place.stack.model_directory}/{model.directory}:{served}:ro",
            *turn_volumes(place.host.settings.stack_root, place.uuids),
        ),
        environment={"STOKER_MODEL": model.origin, "HF_HUB_OFFLINE": "1", "TRITON_CACHE_DIR": f"{CACHE}/triton"},
        healthcheck=by_python(_HEALTH),
        takes_turns=True,
        shared_memory="16gb",
    )


def _rows() -> tuple[Row, ...]:
    return (
        Row(
            "tensorrt-llm-below-ampere",
            "TensorRT-LLM, card below 8.0",
            "refuse",
            "TensorRT-LLM is made for compute capability 8.0 and newer, and the {card} has {capability}",
            "serve the model with vLLM v0.19.1 (from 7.0), llama.cpp or Transformers on this card",
            "TensorRT-LLM's support matrix (0.18.2: Ampere SM80 and SM86 are the oldest)",
            "engine-needs-newer-card",
            engine="tensorrt-llm",
            capability_below=(8, 0),
        ),
    )


_MARKS = (
    (re.compile(r"Loading Model|Loading weights|checkpoint shards"), Phase.LOADING, ""),
    (re.compile(r"Allocated [\d.]+ GiB for max tokens in paged KV cache"), Phase.KV_CACHE, ""),
    (re.compile(r"CUDA graph warmup|Running .*warmup"), Phase.CAPTURING, ""),
    (re.compile(r"Application startup complete"), Phase.SERVING, ""),
)

ENGINE = Engine(
    title="TensorRT-LLM",
    port=_PORT,
    source="files",
    # Sizes not measured: taken to be as vLLM's.
    published=Published(
        ("tensorrt-llm/release",),
        28_600_000_000,
        12_000_000_000,
        example="nvcr.io/nvidia/tensorrt-llm/release:N.N.N",
        newest="1.1.0",
        pinned="1.1.0",
    ),
    profiles={"tensorrt-llm-cuda": Profile("NVIDIA cards from compute capability 8.0", TORCH)},
    container=_container,
    argument_problems=_problems,
    kind=_kind,
    paths={"chat": Paths(("/v1/chat/completions", "/v1/completions"))},
    health_path="/health",
    progress=progress_by(_MARKS),
    failures=MEMORY_FAILURES,
    share=share_of("free-gpu-memory-fraction", _SHARE),
    share_argument="free-gpu-memory-fraction",
    card_arguments=("tp-size", "pp-size"),
    model_mount=_MODELS,
    fetches_models=True,
    rows=_rows,
)
