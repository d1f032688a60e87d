"""The embedding service of an application: one setting chooses who computes, and the application keeps its address."""

from stoker.given import choice as _choice
from stoker.given import number as _number
from stoker.given import text as _text

# vllm: many clients, on cards. ollama: development, on a card or on the processor. openai: OpenAI, or a service like it.
_PROVIDER = _choice("EMBEDDING_PROVIDER", "vllm", ("vllm", "ollama", "openai"))

# Every model by the name under which the application asks for it: EMBEDDING_MODEL.
_MODELS = {
    "vllm": {
        "bge-m3": {"repository": "BAAI/bge-m3", "directory": "bge-m3", "dimensions": 1024},
        "bge-large": {"repository": "BAAI/bge-large-zh-v1.5", "directory": "bge-large-zh-v1.5", "dimensions": 1024},
        "bge-small": {"repository": "BAAI/bge-small-zh-v1.5", "directory": "bge-small-zh-v1.5", "dimensions": 512},
    },
    "ollama": {
        "bge-m3": {"library": "bge-m3:567m", "parameters": {"num_ctx": 8192, "num_batch": 8192}, "dimensions": 1024},
        "nomic-embed-text": {
            "library": "nomic-embed-text:v1.5",
            "parameters": {"num_ctx": 2048, "num_batch": 2048},
            "dimensions": 768,
        },
    },
    "openai": {},
}
# At OpenAI: name -> length of its vectors.
_OPENAI = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}

_DEFAULT = {"vllm": "bge-m3", "ollama": "bge-m3", "openai": "text-embedding-3-small"}
_MODEL = _choice(
    "EMBEDDING_MODEL", _DEFAULT[_PROVIDER], tuple({**_MODELS[_PROVIDER], **(_OPENAI if _PROVIDER == "openai" else {})})
)

# 1, or 2: one on each card.
_REPLICAS = _number("EMBEDDING_REPLICAS", 1)

# Tokens of one text: what the model was made for.
_CONTEXT = {"bge-m3": 8192, "bge-large": 512, "bge-small": 512}

models = _MODELS[_PROVIDER]
# Ollama can work on the processor; `cuda` is a card.
profiles = {"ollama": f"ollama-{_choice('OLLAMA_ON', 'cuda', ('cuda', 'cpu'))}"}
# A gateway alone, and Ollama on the processor, run on a machine without cards.
_ON_CARDS = _PROVIDER == "vllm" or (_PROVIDER == "ollama" and profiles["ollama"] == "ollama-cuda")
gpus = {"count": 2, "card": "RTX", "memory_gib": 24} if _ON_CARDS else None


def _vllm(number):
    return {
        "name": f"memomate-vllm-embedding-{number + 1}",
        "service": "vllm-embedding" if number == 0 else f"vllm-embedding-{number + 1}",
        "engine": "vllm",
        "model": _MODEL,
        "gpus": [number],
        "port": 8000 + number,
        "arguments": {
            "runner": "pooling",
            "max-model-len": _CONTEXT[_MODEL],
            "max-num-seqs": 256,  # 512 where answers are slow and the card has room
            "max-num-batched-tokens": 8192,
            # 1.1 GiB of weights and what 8192 tokens at once take; a pooling model has no KV cache.
            "gpu-memory-utilization": 0.25,
        },
    }


def _ollama(number):
    return {
        "name": f"memomate-ollama-{number + 1}",
        "service": "ollama" if number == 0 else f"ollama-{number + 1}",
        "engine": "ollama",
        "model": _MODEL,
        "gpus": [number] if profiles["ollama"] == "ollama-cuda" else [],
        "port": 11434 + number,
        "environment": {"OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_KEEP_ALIVE": "-1"},
    }


_pool = {"name": "embed", "model": _MODEL, "kind": "embeddings", "default": True}
if _PROVIDER == "openai":
    _pool["external"] = {
        "url": _text("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        "key": "OPENAI_API_KEY",  # the name of the variable that holds it, on the machine that deploys
        "model": _MODEL,
        "dimensions": _OPENAI[_MODEL],
    }

stacks = [
    {
        "project": "memomate",
        "compose_file": "embedding.yaml",
        "model_directory": "/data/ollama" if _PROVIDER == "ollama" else "/data/embedding_models",
        "instances": [{"vllm": _vllm, "ollama": _ollama}[_PROVIDER](number) for number in range(_REPLICAS)]
        if _PROVIDER != "openai"
        else [],
        # For managing Ollama's models in a browser; accounts are on, the first one administers.
        "web_ui": {"container": "memomate-ollama-webui-1", "port": 3000} if _PROVIDER == "ollama" else None,
        # What the application talks to, whoever the provider is.
        "gateway": {
            "container": "memomate-embedding-gateway-1",
            "service": "embedding",
            "port": 11436,
            "config_file": "nginx-embedding.conf",
            # Clients in the rack, and containers on this host (Docker's networks).
            "allowed_networks": ["192.168.31.0/24", "172.16.0.0/12"],
            "pools": [_pool],
        },
    },
]
