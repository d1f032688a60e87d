"""SGLang: many requests at once, on cards from Ampere on. Written from its documentation (0.5); nobody has run this part of Stoker on a card."""

from __future__ import annotations

import re

from stoker.engine import turn
from stoker.engine.argv import KEY_IS_SEEN, LISTENS, count_problem, form_problems, plain_argv, share_of, share_problem
from stoker.engine.engine import Arguments, Container, Engine, Metrics, Paths, Place, Published
from stoker.engine.health import by_python
from stoker.engine.marks import progress_by
from stoker.engine.mounts import CACHE, MODEL_DATA, directory_of, turn_volumes, volumes
from stoker.engine.proofs import TORCH
from stoker.plan.compatibility.row import Row
from stoker.ready.failure import Failure
from stoker.ready.failures_memory import MEMORY_FAILURES
from stoker.ready.phase import Phase
from stoker.spec.gateway import Kind
from stoker.spec.profile import Profile
from stoker.spec.settings import FilesModel
from stoker.spec.vllm import Finding

_PORT = 30000
_HEALTH = f"http://127.0.0.1:{_PORT}/health"
#: Its own default of --mem-fraction-static (docs.sglang.io, server arguments); it takes a little less on small cards.
_SHARE = 0.9

_OURS = {
    "model-path": "it is the instance's field `model`, whose description names the directory",
    "model": "it is the instance's field `model`, whose description names the directory",
    "served-model-name": "it is the instance's field `model`",
    **LISTENS,
    "api-key": KEY_IS_SEEN,
    "enable-metrics": "it is on already",
    "tp": "write 'tp-size', which the number of cards is compared with",
}


def _problems(arguments: Arguments, version: str) -> list[Finding]:
    return [
        *form_problems(arguments, _OURS, "SGLang"),
        *count_problem(arguments, "context-length"),
        *count_problem(arguments, "tp-size"),
        *share_problem(arguments, "mem-fraction-static"),
    ]


def _kind(arguments: Arguments) -> Kind:
    return "embeddings" if arguments.get("is-embedding") is True else "chat"


def _container(place: Place) -> Container:
    instance, model = place.instance, place.host.model_of(place.instance)
    assert isinstance(model, FilesModel)  # the spec refuses an engine that cannot serve the model
    return Container(
        entrypoint=(
            *turn.entrypoint(place, _HEALTH, directory_of(model)),
            *("python3", "-m", "sglang.launch_server"),
        ),
        command=(
            *("--model-path", directory_of(model), "--served-model-name", instance.model),
            *("--host", "0.0.0.0", "--port", str(_PORT), "--enable-metrics"),
            *plain_argv(instance.arguments),
        ),
        volumes=(*volumes(place.stack.model_directory), *turn_volumes(place.host.settings.stack_root, place.uuids)),
        environment={
            "STOKER_MODEL": model.origin,
            "HF_HUB_OFFLINE": "1",
            # Or each look at /health would compute a token.
            "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
            "TRITON_CACHE_DIR": f"{CACHE}/triton",
            "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
        },
        healthcheck=by_python(_HEALTH),
        takes_turns=True,
        # its processes talk through shared memory (its documentation asks for 32 GB)
        shared_memory="16gb",
    )


def _rows() -> tuple[Row, ...]:
    return (
        Row(
            "sglang-below-ampere",
            "SGLang, card below 8.0",
            "refuse",
            "SGLang's kernels need compute capability 8.0, and the {card} has {capability}",
            "serve the model with vLLM v0.19.1 (from 7.0), llama.cpp or Transformers on this card",
            "sgl-project/sglang#6006 (end of 7.5 with 0.5), #24224; gpustack/gpustack#3932",
            "engine-needs-newer-card",
            engine="sglang",
            capability_below=(8, 0),
        ),
    )


_FAILURES = (
    *MEMORY_FAILURES,
    Failure(
        id="sglang-memory",
        pattern=re.compile(r"Not enough memory\. Please try to increase --mem-fraction-static"),
        cause="SGLang's share of the card holds the weights and no cache",
        remedy="raise mem-fraction-static, shorten context-length, or take a smaller model",
        source="SGLang 0.5: srt/model_executor/model_runner.py",
    ),
)

_MARKS = (
    (re.compile(r"server_args=ServerArgs\("), Phase.STARTING, "reading arguments"),
    (re.compile(r"Init torch distributed begin"), Phase.STARTING, "starting the engine process"),
    (re.compile(r"Load weight begin"), Phase.LOADING, ""),
    (re.compile(r"checkpoint shards:\s+\d+% Completed \| (\d+)/(\d+)"), Phase.LOADING, r"\1 of \2 files"),
    (re.compile(r"Load weight end"), Phase.LOADING, "read"),
    (re.compile(r"KV Cache is allocated\. #tokens: (\d+)"), Phase.KV_CACHE, r"\1 tokens"),
    (re.compile(r"Capture cuda graph begin"), Phase.CAPTURING, ""),
    (re.compile(r"Capture cuda graph end"), Phase.CAPTURING, "done"),
    (re.compile(r"Application startup complete|The server is fired up"), Phase.SERVING, ""),
)

ENGINE = Engine(
    title="SGLang",
    port=_PORT,
    source="files",
    # Sizes not measured: taken to be as vLLM's, which has the same parts.
    published=Published(
        ("lmsysorg/sglang",),
        28_600_000_000,
        12_000_000_000,
        example="lmsysorg/sglang:vN.N.N",
        newest="0.5.6",
        pinned="0.5.6",
    ),
    profiles={"sglang-cuda": Profile("NVIDIA cards from compute capability 8.0", TORCH)},
    container=_container,
    argument_problems=_problems,
    kind=_kind,
    paths={
        "chat": Paths(("/v1/chat/completions", "/v1/completions")),
        "embeddings": Paths(("/v1/embeddings",)),
    },
    health_path="/health",
    progress=progress_by(_MARKS),
    failures=_FAILURES,
    metrics=Metrics(
        "sglang:",
        running="num_running_reqs",
        waiting="num_queue_reqs",
        prompt_tokens="prompt_tokens_total",
        generated_tokens="generation_tokens_total",
        kv_cache=("token_usage",),
    ),
    share=share_of("mem-fraction-static", _SHARE),
    share_argument="mem-fraction-static",
    card_arguments=("tp-size", "pp-size"),
    model_mount=MODEL_DATA,
    fetches_models=True,
    rows=_rows,
)
