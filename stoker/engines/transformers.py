"""Hugging Face Transformers (`transformers serve`): simple, one request at a time, for debugging and for comparison.

Its image is made here (images/transformers): serve.py in it adds what the server lacks (names, a model list, the end of a stream), and waits
for the model before it answers. Facts are those of transformers 5.19.0.
"""

from __future__ import annotations

import re

from stoker.engine.argv import LISTENS, count_problem, form_problems, plain_argv
from stoker.engine.engine import Arguments, Container, Engine, Metrics, Paths, Place, Published
from stoker.engine.health import by_python
from stoker.engine.marks import progress_by
from stoker.engine.memory import CONTEXT_HIGH, CONTEXT_LOW, cache_bytes, layout
from stoker.engine.mounts import MODEL_DATA, directory_of, volumes
from stoker.engine.proofs import TORCH
from stoker.models.card import ModelCard
from stoker.models.weights import FLOAT_BYTES, of_card
from stoker.plan.memory.card import FixedUse
from stoker.plan.memory.predict import GIB
from stoker.ready.failure import Failure
from stoker.ready.failures_memory import MEMORY_FAILURES
from stoker.ready.failures_model import MODEL_FAILURES
from stoker.ready.phase import Phase
from stoker.spec.gateway import Kind
from stoker.spec.instance import Instance
from stoker.spec.profile import HostMemory, Profile
from stoker.spec.settings import FilesModel
from stoker.spec.vllm import Finding

_PORT = 8000

#: Everything that serve.py takes, and that is not Stoker's own.
_KNOWN = ("dtype", "device", "max-model-len")
_DTYPES = ("auto", "half", "float16", "bfloat16", "float32")
_OURS = {
    "model": "it is the instance's field `model`, whose description names the directory",
    "served-model-name": "it is the instance's field `model`",
    **LISTENS,
    "trust-remote-code": "code that comes with a model is not run; remove it",
}


def _problems(arguments: Arguments, version: str) -> list[Finding]:
    found = [*form_problems(arguments, _OURS, "Transformers"), *count_problem(arguments, "max-model-len")]
    seen = {name for name, _, _ in found}
    found += [
        (name, "the server with Transformers has no such argument", f"use {', '.join(_KNOWN)}, or remove it")
        for name in arguments
        if name not in (*_KNOWN, *seen)
    ]
    if arguments.get("dtype", "auto") not in _DTYPES:
        found.append(("dtype", f"it must be one of {', '.join(_DTYPES)}", "write one of these"))
    return found


def _kind(arguments: Arguments) -> Kind:
    return "chat"


def _container(place: Place) -> Container:
    instance, model = place.instance, place.host.model_of(place.instance)
    assert isinstance(model, FilesModel)  # the spec refuses an engine that cannot serve the model
    device = "cpu" if not place.host.profile_of(instance).uses_cards else "auto" if len(place.uuids) > 1 else "cuda:0"
    arguments: Arguments = {"device": device, **instance.arguments}
    return Container(
        # The image's entry point is serve.py.
        command=(
            *("--model", directory_of(model), "--served-model-name", instance.model, *model.aliases),
            *plain_argv(arguments),
        ),
        volumes=volumes(place.stack.model_directory),
        environment={"STOKER_MODEL": model.origin},
        healthcheck=by_python(f"http://127.0.0.1:{_PORT}/health"),
    )


def _memory(instance: Instance, card: ModelCard, file: str) -> FixedUse:
    """Weights as loaded, and the cache of one request, which grows to the context and is given back; activations of some 0.5 GiB."""
    loaded = FLOAT_BYTES.get(str(instance.arguments.get("dtype") or "auto"), 2)
    known = layout(card)
    given = instance.arguments.get("max-model-len")
    tokens = given if isinstance(given, int) else known.positions or 0
    weights = of_card(card, loaded).bytes
    each = len(instance.gpus)
    most = weights + cache_bytes(known, tokens, loaded) + GIB // 2
    return FixedUse(instance.name, most // each + CONTEXT_HIGH, weights // each + CONTEXT_LOW)


_FAILURES = (
    *MEMORY_FAILURES,
    *MODEL_FAILURES,
    Failure(
        id="transformers-argument",
        pattern=re.compile(r"serve\.py: error: (?P<what>.+)"),
        cause="the server with Transformers does not start: {what}",
        remedy="correct the instance's `arguments`, or its model's description",
        source="images/transformers/serve.py",
    ),
)

_MARKS = (
    (re.compile(r"^serve\.py: starts "), Phase.STARTING, ""),
    (re.compile(r"Loading (?:checkpoint shards|weights):\s+(\d+)%"), Phase.LOADING, r"\1 %"),
    (re.compile(r"^serve\.py: ready after"), Phase.SERVING, "model loaded"),
)

ENGINE = Engine(
    title="Transformers",
    port=_PORT,
    source="files",
    published=Published(
        ("stoker/transformers",),
        # What the build adds to its base: 290 MB, `du` of the same packages in an environment (2026-11).
        unpacked=300_000_000,
        packed=300_000_000,
        example="stoker/transformers:N.N.N-1",
        newest="5.19.0",
        pinned="5.19.0",
    ),
    profiles={
        "transformers-cuda": Profile("NVIDIA cards from compute capability 5.0 (PyTorch 2.10 for CUDA 12.6)", TORCH),
        "transformers-cpu": Profile(
            "any processor",
            not_applicable="not applicable: on the processor",
            # An estimate for a model of some 4 billion values in half precision; not measured.
            host_memory=HostMemory(9.0, "", 1, estimated=True),
        ),
    },
    container=_container,
    argument_problems=_problems,
    kind=_kind,
    paths={"chat": Paths(("/v1/chat/completions", "/v1/completions"))},
    # 503 while it loads, and once `transformers serve` has died
    health_path="/health",
    progress=progress_by(_MARKS),
    failures=_FAILURES,
    metrics=Metrics(
        "transformers:",
        running="num_requests_running",
        waiting="num_requests_waiting",
        prompt_tokens="prompt_tokens_total",
        generated_tokens="generation_tokens_total",
    ),
    memory=_memory,
    model_mount=MODEL_DATA,
    fetches_models=True,
)
