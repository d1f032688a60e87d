"""Ollama: models of its own library, here for embeddings. Facts are those of 0.32.15; its log and failures are in stoker/ready."""

from __future__ import annotations

from stoker.engine.engine import Arguments, Container, Engine, Paths, Place, Published
from stoker.ready.failures_ollama import OLLAMA_FAILURES
from stoker.ready.ollama_log import ollama_progress
from stoker.spec.fleet import Host
from stoker.spec.gateway import Kind
from stoker.spec.profile import HostMemory, Profile
from stoker.spec.vllm import Finding

_HOME = "/root/.ollama"

#: Does Ollama compute on this card? It says so when it starts, and goes on with the CPU where it does not. "$0" is the card's UUID.
_PROOF = """
nvidia-smi -L | grep -F "$0" || { echo "the container does not see the card $0"; exit 1; }
ollama serve >/tmp/log 2>&1 &
i=0
until grep "inference compute" /tmp/log; do
    i=$((i+1))
    test $i -lt 240 || { tail -n 20 /tmp/log; echo "Ollama named no device within a minute"; exit 1; }
    sleep 0.25
done
grep -q "inference compute.*library=.\\?CUDA" /tmp/log && exit 0
grep -i "too old" /tmp/log
echo "Ollama does not use the card: its driver is too old (branch 580 is right), or this image has no CUDA library for it"
exit 1
""".strip()


def _problems(arguments: Arguments, version: str) -> list[Finding]:
    remedy = "use `environment`, or the model's `parameters`"
    return [(name, "Ollama takes no command-line arguments", remedy) for name in arguments]


def _kind(arguments: Arguments) -> Kind:
    return "embeddings"


def _container(place: Place) -> Container:
    return Container(
        volumes=(f"{place.stack.model_directory}:{_HOME}",),
        # Instances share the directory: a starting Ollama must not prune what another one is downloading.
        environment={"OLLAMA_NOPRUNE": "1", **_proxy(place.host)},
        healthcheck=("CMD", "ollama", "list"),
    )


def _proxy(host: Host) -> dict[str, str]:
    """It downloads itself."""
    proxy = host.settings.proxy
    wanted = {"HTTP_PROXY": proxy.http, "HTTPS_PROXY": proxy.https, "NO_PROXY": ",".join(proxy.no_proxy)}
    return {name: value for name, value in wanted.items() if value} if proxy.http or proxy.https else {}


ENGINE = Engine(
    title="Ollama",
    port=11434,
    source="library",
    published=Published(
        ("ollama/ollama",),
        # 3.5 GB (stratosphereips/stratocyberlab issue 57, 2026-09). `du` in the image said 3302 MB of 0.6 (ollama/ollama issue
        # 9982, 2025-03). How much of it is downloaded is not known: it is taken to be as much.
        unpacked=3_500_000_000,
        packed=3_500_000_000,
        example="ollama/ollama:N.N.N",
        newest="0.32.15",
        pinned="0.32.15",
        # The image holds libraries of both 12 and 13 and picks what the driver takes.
    ),
    profiles={
        "ollama-cuda": Profile(
            "NVIDIA cards from compute capability 5.0 (Ollama 0.32)", ("sh", "-c", _PROOF, "{uuid}")
        ),
        "ollama-cpu": Profile(
            "any processor",
            not_applicable="not applicable: on the processor",
            # bge-m3 with a context of 8192 tokens takes 2 GiB at most (its card's estimate).
            host_memory=HostMemory(2.5, "", 0, estimated=True),
        ),
    },
    container=_container,
    argument_problems=_problems,
    kind=_kind,
    # It has /v1/responses since v0.13.3, by its documentation.
    paths={
        "chat": Paths(("/v1/chat/completions", "/v1/completions", "/v1/responses")),
        "embeddings": Paths(("/v1/embeddings", "/api/embeddings", "/api/embed"), ("/api/tags", "/api/version")),
    },
    health_path="/api/version",
    progress=ollama_progress,
    failures=OLLAMA_FAILURES,
    has_levels=False,
    model_mount=_HOME,
)
