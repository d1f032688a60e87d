"""LLM inference: three V100 with five vLLM instances, and a gateway in front of them."""

gpus = {"count": 3, "card": "V100", "memory_gib": 32}

_llama = {
    "engine": "vllm",
    "model": "llama3.1-8b",
    "arguments": {
        "dtype": "half",  # a V100 has no bfloat16
        "gpu-memory-utilization": 0.45,  # of the whole card, for each of the two instances on it
        "max-model-len": 8192,
        "block-size": 64,
        "max-num-seqs": 16,
    },
}

_qwen = {
    "engine": "vllm",
    "model": "qwen2.5-14b",
    "arguments": {
        "dtype": "half",
        "gpu-memory-utilization": 0.85,
        "max-model-len": 16384,
        "block-size": 128,
        "max-num-seqs": 32,
    },
}

stacks = [
    {
        "project": "memoryx-hybrid",
        "compose_file": "memoryx-hybrid.yaml",
        "model_directory": "/data/projects/models",
        # Cards by index, UUID ("GPU-...") or bus address ("3b:00.0"); an index keeps its card after the first deploy.
        "instances": [
            {"name": "vllm_llama_gpu0_0", "gpus": [0], "port": 11401, **_llama},
            {"name": "vllm_llama_gpu0_1", "gpus": [0], "port": 11402, **_llama},
            {"name": "vllm_llama_gpu1_0", "gpus": [1], "port": 11403, **_llama},
            {"name": "vllm_llama_gpu1_1", "gpus": [1], "port": 11404, **_llama},
            {"name": "vllm_qwen_gpu2", "gpus": [2], "port": 11405, **_qwen},
        ],
        "gateway": {
            "container": "vllm_nginx",
            "service": "nginx",
            "port": 11434,
            "config_file": "nginx-hybrid.conf",
            # Whoever comes from elsewhere is refused (docs/gateway.md: keys, limits and TLS too).
            "allowed_networks": ["192.168.31.0/24"],
            "pools": [
                {"name": "llama", "model": "llama3.1-8b", "kind": "chat", "prefix": "/llama", "default": True},
                {"name": "qwen", "model": "qwen2.5-14b", "kind": "chat", "prefix": "/qwen"},
            ],
        },
    },
]
