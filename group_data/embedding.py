"""Embeddings: two Tesla P40 with bge-m3 in Ollama, and the entry point to everything."""

gpus = {"count": 2, "card": "P40", "memory_gib": 24}

_bge = {
    "engine": "ollama",
    "model": "bge-m3",
    "environment": {"OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_KEEP_ALIVE": "-1"},
}

stacks = [
    {
        "project": "bge-ha",
        "compose_file": "bge-ha.yaml",
        "model_directory": "/data/ollama_models",
        "instances": [
            {"name": "ollama_bge_0", "gpus": [0], "port": 11434, **_bge},
            {"name": "ollama_bge_1", "gpus": [1], "port": 11435, **_bge},
        ],
        # The unified entry point: embeddings on this host, chat on the llm hosts.
        "gateway": {
            "container": "bge_nginx",
            "service": "nginx",
            "port": 11436,
            "config_file": "nginx-unified.conf",
            # Whoever comes from elsewhere is refused (docs/gateway.md: keys, limits and TLS too).
            "allowed_networks": ["192.168.31.0/24"],
            "pools": [
                {"name": "embed", "model": "bge-m3", "kind": "embeddings", "prefix": "/embed", "default": True},
                {"name": "llama", "model": "llama3.1-8b", "kind": "chat", "prefix": "/llama", "default": True},
                {"name": "qwen", "model": "qwen2.5-14b", "kind": "chat", "prefix": "/qwen"},
            ],
        },
    },
]
