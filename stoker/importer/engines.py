"""Which service is what: an engine, a gateway, or something that a description cannot say. Pure."""

from __future__ import annotations

from typing import Literal

from stoker.plan.compatibility.image import official
from stoker.plan.handmade import repository

Role = Literal["vllm", "ollama", "nginx", "web-ui", "other"]

#: Part of an image's name -> why it is not taken over, and what to do with it.
_OTHERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("transformers", "huggingface/", "pytorch/"),
        "the options of a program of its own with Transformers are not known; describe its model with the engine transformers or vllm "
        "(docs/engines.md)",
    ),
    (
        ("sglang", "tensorrt-llm", "llama.cpp", "llama-cpp"),
        "an import reads the options of vLLM and Ollama only; describe this instance by hand with its own engine (docs/engines.md)",
    ),
    (
        ("text-generation-inference", "text-embeddings-inference", "tritonserver", "xinference", "lmdeploy", "localai"),
        "this engine is none that a description knows (docs/engines.md); serve its model with one of those, or leave it in a Compose "
        "file of its own",
    ),
    (
        ("litellm", "haproxy", "traefik", "caddy", "envoy"),
        "Stoker's gateway is nginx, made from the description; leave it out, or in a Compose file of its own before the gateway",
    ),
)  # fmt: skip

#: Of an Open WebUI that has no Ollama beside it.
WEB_UI_ALONE = (
    "Stoker deploys Open WebUI beside an Ollama of the same file only; leave it in a Compose file of its own, with OPENAI_API_BASE_URL "
    "at the address of an instance or of a gateway"
)

_UNKNOWN = "a description holds engines and a gateway; leave it in a Compose file of its own"


def role(image: str) -> Role:
    name = repository(image).lower()
    engine = official().get("/".join(name.split("/")[-2:]))
    last = name.rpartition("/")[2]
    if engine:
        return "vllm" if engine == "vllm" else "ollama" if engine == "ollama" else "other"
    if last in ("nginx", "nginx-unprivileged", "openresty"):
        return "nginx"
    if last == "ollama":
        return "ollama"
    if last in ("open-webui", "ollama-webui"):
        return "web-ui"
    return "vllm" if "vllm" in last else "other"


def why_not(image: str) -> str:
    name = image.lower()
    return next((why for parts, why in _OTHERS if any(part in name for part in parts)), _UNKNOWN)
