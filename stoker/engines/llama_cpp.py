"""llama.cpp's server: one GGUF file, on any card and on none. Facts are those of builds b5177 to b11312.

Its ``model`` in a request is not looked at: it answers under every name. So a gateway in front of it decides by name, the server does not.
"""

from __future__ import annotations

import re

from stoker.engine.argv import KEY_IS_SEEN, LISTENS, count_problem, form_problems, plain_argv
from stoker.engine.engine import Arguments, Container, Engine, Metrics, Paths, Place, Published
from stoker.engine.marks import progress_by
from stoker.engine.memory import CONTEXT_HIGH, CONTEXT_LOW, cache_bytes, gguf_bytes, layout
from stoker.engine.mounts import MODEL_DATA, directory_of, volumes
from stoker.models.card import ModelCard
from stoker.plan.memory.card import FixedUse
from stoker.plan.memory.predict import GIB
from stoker.ready.failure import Failure
from stoker.ready.phase import Phase
from stoker.spec.gateway import Kind
from stoker.spec.instance import Instance
from stoker.spec.profile import HostMemory, Profile
from stoker.spec.settings import FilesModel
from stoker.spec.vllm import Finding

_PORT = 8080
_SERVER = "/app/llama-server"

_OURS = {
    "model": "it is the instance's field `model`, whose description names the file",
    "m": "it is the instance's field `model`, whose description names the file",
    "alias": "it is the instance's field `model`",
    **LISTENS,
    "api-key": KEY_IS_SEEN,
    "metrics": "it is on already",
    "hf-repo": "model files are fetched and verified before; describe the model in `models`",
}

#: All layers on the card, unless the description says otherwise. More than any model has.
_ALL_LAYERS = 999


def _is_embedding(arguments: Arguments) -> bool:
    return any(arguments.get(name) is True for name in ("embeddings", "embedding"))


def _kind(arguments: Arguments) -> Kind:
    return "embeddings" if _is_embedding(arguments) else "chat"


def _problems(arguments: Arguments, version: str) -> list[Finding]:
    return [
        *form_problems(arguments, _OURS, "llama.cpp"),
        *count_problem(arguments, "ctx-size"),
        *count_problem(arguments, "parallel"),
    ]


def _container(place: Place) -> Container:
    instance, model = place.instance, place.host.model_of(place.instance)
    assert isinstance(model, FilesModel)  # the spec refuses an engine that cannot serve the model
    assert model.file is not None
    on_card = place.host.profile_of(instance).uses_cards
    arguments: Arguments = {**({"n-gpu-layers": _ALL_LAYERS} if on_card else {}), **instance.arguments}
    return Container(
        command=(
            *("--model", f"{directory_of(model)}/{model.file}", "--alias", instance.model),
            *("--host", "0.0.0.0", "--port", str(_PORT), "--metrics"),
            *plain_argv(arguments),
        ),
        volumes=volumes(place.stack.model_directory),
        environment={"STOKER_MODEL": model.origin},
        healthcheck=("CMD", "curl", "-q", "-s", "-f", "-m", "8", f"http://127.0.0.1:{_PORT}/health"),
    )


def _memory(instance: Instance, card: ModelCard, file: str) -> FixedUse:
    """Weights, the cache of the whole context (it is made at the start), and the buffer of a batch: logits of `ubatch-size` tokens (512)
    in 4 bytes, and some 0.2 GiB of activations."""
    known = layout(card)
    given = instance.arguments.get("ctx-size")
    tokens = given if isinstance(given, int) and given else known.positions
    if tokens is None:
        raise ValueError("neither ctx-size nor the model's configuration says how long its context is")
    layers = instance.arguments.get("n-gpu-layers", _ALL_LAYERS)
    if isinstance(layers, int) and layers < len(known.windows):
        raise ValueError(
            f"n-gpu-layers {layers} leaves a part of the model in the machine's memory; how much is not computed here"
        )
    logits = 512 * 4 * (known.vocabulary or 0)
    whole = gguf_bytes(card, file) + cache_bytes(known, tokens) + logits
    each = len(instance.gpus)
    return FixedUse(instance.name, whole // each + CONTEXT_HIGH + round(0.2 * GIB), whole // each + CONTEXT_LOW)


_SOURCE = "llama.cpp b5177 to b11312"

_FAILURES = (
    Failure(
        id="llama-cpp-argument",
        pattern=re.compile(
            r"error: (?:invalid|unknown) argument: (?P<what>\S+)|error while handling argument \"(?P<which>[^\"]+)\""
        ),
        cause="llama.cpp does not take the argument {what}",
        remedy="correct it in the instance's `arguments`; `docker run --rm --entrypoint /app/llama-server IMAGE --help` lists all",
        source=f"{_SOURCE}: common/arg.cpp",
        numbers=lambda got, _: {"what": got["what"] or got["which"]},
    ),
    Failure(
        id="llama-cpp-out-of-memory",
        pattern=re.compile(
            r"allocating (?P<mib>[\d.]+) MiB on device \d+: cudaMalloc failed: out of memory|unable to allocate CUDA\d+ buffer"
        ),
        cause="the card has no room for the model{size}",
        remedy="a shorter `ctx-size`, a smaller quantisation (Q4_K_M), fewer `n-gpu-layers`, or another card; see what else is on it: nvidia-smi",
        source="ollama#8447 and ramalama#1354 print llama.cpp's lines: ggml-cuda.cu",
        numbers=lambda got, _: {"size": f": {float(got['mib']) / 1024:.1f} GiB more were wanted" if got["mib"] else ""},
    ),
    Failure(
        id="llama-cpp-model-damaged",
        pattern=re.compile(
            r"invalid magic characters|failed to open GGUF file|tensor '[^']+' data is not within the file bounds|"
            r"gguf_init_from_file\S*: failed to"
        ),
        cause="the model's file is no whole GGUF file",
        remedy="delete it in the model's directory and deploy again: it is then fetched and verified; a file that you copied, copy again",
        source=f"{_SOURCE}: ggml/src/gguf.cpp",
    ),
    Failure(
        id="llama-cpp-model-unsupported",
        pattern=re.compile(r"unknown model architecture: '(?P<what>[^']+)'"),
        cause="this build of llama.cpp does not know models of the kind {what}",
        remedy="pin a newer build under `versions` in group_data/all.py, or take another model",
        source=f"{_SOURCE}: src/llama-model.cpp",
    ),
    Failure(
        id="llama-cpp-no-card",
        pattern=re.compile(r"no usable GPU found|failed to initialize CUDA: (?P<why>.+)"),
        cause="llama.cpp found no card and works on the processor{why}",
        remedy="see that the image's name has server-cuda in it, and that `docker exec CONTAINER nvidia-smi -L` shows the card",
        source=f"{_SOURCE}: common/arg.cpp; llama.cpp#1866",
        sign=True,
        numbers=lambda got, _: {"why": f" ({got['why']})" if got["why"] else ""},
    ),
)

_MARKS = (
    (re.compile(r"^build: \d+|^system info:|^system_info:|llama_server: initializing"), Phase.STARTING, ""),
    (re.compile(r"load_model: loading model|llama_model_loader: loaded meta data"), Phase.LOADING, ""),
    (re.compile(r"load_tensors: offloaded (\d+)/(\d+) layers to GPU"), Phase.LOADING, r"\1 of \2 layers on the card"),
    (re.compile(r"(?:llama_context: constructing|KV self size|KV buffer size)"), Phase.KV_CACHE, ""),
    (re.compile(r"warming up the model"), Phase.PROFILING, "warming up"),
    (re.compile(r"(?:main|llama_server): model loaded"), Phase.SERVING, "model loaded"),
    (re.compile(r"server is listening on|llama_server: listening on"), Phase.SERVING, ""),
)

ENGINE = Engine(
    title="llama.cpp",
    port=_PORT,
    source="gguf",
    published=Published(
        ("ggml-org/llama.cpp",),
        # Not measured; the CUDA runtime and the kernels for all cards are most of it.
        unpacked=6_000_000_000,
        packed=3_000_000_000,
        example="ghcr.io/ggml-org/llama.cpp:server-cuda-bNNNNN",
        newest="11312",
        pinned="11312",
        tag=r"(?:server|full|light)?(?:-[a-z0-9]+)*?-?b(\d{4,5})$",
    ),
    profiles={
        "llama-cpp-cuda": Profile(
            "NVIDIA cards from compute capability 5.0, by code of the image or compiled by the driver",
            ("sh", "-c", f"{_SERVER} --list-devices 2>&1 | tee /tmp/devices; grep -q 'CUDA[0-9]' /tmp/devices"),
        ),
        # An estimate for a small model (4 GB of weights) and its cache; not measured.
        "llama-cpp-cpu": Profile(
            "any processor",
            not_applicable="not applicable: CPU build",
            host_memory=HostMemory(4.0, "", 1, estimated=True),
        ),
    },
    container=_container,
    argument_problems=_problems,
    kind=_kind,
    paths={
        "chat": Paths(("/v1/chat/completions", "/v1/completions")),
        "embeddings": Paths(("/v1/embeddings",)),
    },
    # 503 while it loads
    health_path="/health",
    progress=progress_by(_MARKS),
    failures=_FAILURES,
    has_levels=False,
    metrics=Metrics(
        "llamacpp:",
        running="requests_processing",
        waiting="requests_deferred",
        prompt_tokens="prompt_tokens_total",
        generated_tokens="tokens_predicted_total",
    ),
    memory=_memory,
    key_variable="LLAMA_API_KEY",
    model_mount=MODEL_DATA,
)
